"""A fitted model's metrics on data that know their labels, such as XGBoost's DMatrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fullspan.estimators.boosting._data import Rows
from fullspan.estimators.boosting.booster_descriptions import DescribedModel
from fullspan.estimators.boosting.objectives import RankObjective
from fullspan.estimators.boosting.ranking import RankingGroups
from fullspan.estimators.boosting.watching import metrics_of, score_of


class EvaluatedModel(DescribedModel):
    """A model, and how good it is; the base of `Booster`."""

    parameters: dict[str, Any]

    def predict(self, data: Any, *, output_margin: bool = False, strict_shape: bool = False) -> Any:
        """Predictions for the rows of `data`."""
        raise NotImplementedError

    def eval(self, data: Any, name: str = "eval", iteration: int = 0) -> str:
        """A line with the metrics of one set; see `eval_set`."""
        return self.eval_set([(data, name)], iteration)

    def eval_set(
        self,
        evals: Sequence[tuple[Any, str]],
        iteration: int = 0,
        feval: Callable[[Any, Any], tuple[str, float]] | None = None,
        output_margin: bool = True,
    ) -> str:
        """A line with the metrics of sets: those of `eval_metric`, or the objective's own.

        Parameters
        ----------
        evals : list of (data, name)
            Data with the methods of XGBoost's DMatrix, which know their labels.
        iteration : int
            The number at the beginning of the line.
        feval : callable, optional
            One more metric, ``(predictions, data) -> (name, value)``.
        output_margin : bool
            Whether it is given raw scores.

        Returns
        -------
        str
        """
        objective = self.content.objective
        silent = self.parameters.get("disable_default_eval_metric", False)
        metrics = metrics_of(self.parameters.get("eval_metric"), None if silent else objective.default_metric)
        parts = [f"[{iteration}]"]
        for data, name in evals:
            rows = self._labelled_rows(data)
            parts += [f"{name}-{one}:{score_of(one, objective, rows, False)!r}" for one in metrics]
            if feval is not None:
                called, value = feval(self.predict(data, output_margin=output_margin), data)
                parts.append(f"{name}-{called}:{float(value)!r}")
        return "\t".join(parts)

    def _labelled_rows(self, data: Any) -> Rows:
        if not hasattr(data, "get_label"):
            raise TypeError(f"expected data with labels, such as a DMatrix, got a {type(data).__name__}")
        objective = self.content.objective
        n = data.num_row()
        if objective.name == "survival:aft":
            bounds = [data.get_float_info(f"label_{end}_bound") for end in ("lower", "upper")]
            y = np.column_stack(bounds).astype(np.float32)
        else:
            y = np.asarray(data.get_label(), dtype=np.float32)
            if y.size == 0:
                raise ValueError("the data has no labels")
            y = y.reshape(n, -1)
        weight = np.asarray(data.get_weight(), dtype=np.float32)
        groups = None
        if isinstance(objective, RankObjective):
            ends = data.get_uint_info("group_ptr")
            groups = RankingGroups(np.asarray(ends if len(ends) else [0, n], dtype=np.int64))
        margin = self.predict(data, output_margin=True, strict_shape=True)
        return Rows(None, y, weight if weight.size else None, groups=groups, margin=margin)
