"""A fitted model in words, tables and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from fullspan.core.files import replacing
from fullspan.estimators.boosting import dumping
from fullspan.estimators.boosting.ensemble import TreeEnsemble
from fullspan.estimators.boosting.linear import LinearModel
from fullspan.estimators.boosting.weak import WeakModel
from fullspan.estimators.boosting.xgboost_format import Content
from fullspan.estimators.saving import Saveable

if TYPE_CHECKING:
    from fullspan.estimators.boosting.training import Training

Model = TreeEnsemble | LinearModel | WeakModel


class Categories:
    """The categories of each feature in the order of their codes; None for those that are numbers."""

    def __init__(self, known: list[tuple[str, NDArray[Any] | None]]) -> None:
        self.known = known

    def empty(self) -> bool:
        """Whether all features are numbers."""
        return all(values is None for _, values in self.known)

    def to_arrow(self) -> list[tuple[str, Any]]:
        """Name and Arrow array of each feature, None for those that are numbers."""
        return [(name, None if values is None else pa.array(values)) for name, values in self.known]


class DescribedModel(Saveable):
    """A model, and what can be said of it; the base of `Booster`."""

    _content: Content | None
    _training: Training | None

    @property
    def content(self) -> Content:
        """The model and all that is kept with it."""
        content = self._kept
        if self._training is not None:
            content.model = self._training.model()
        return content

    @property
    def _kept(self) -> Content:
        """The content, whose model may be behind while it is fitted."""
        if self._content is None:
            raise NotFittedError("This Booster holds no model: load one.")
        return self._content

    @property
    def model(self) -> Model:
        model: Model = self.content.model
        return model

    def num_features(self) -> int:
        """How many features the model takes."""
        return self.model.n_features

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the features, if they have any."""
        return self.content.feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self.content.feature_names = self._fitting(names, "feature_names")

    @property
    def feature_types(self) -> list[str] | None:
        """Types of the features, if they are known."""
        return self.content.feature_types

    @feature_types.setter
    def feature_types(self, types: Sequence[str] | None) -> None:
        self.content.feature_types = self._fitting(types, "feature_types")

    def _fitting(self, given: Sequence[str] | None, name: str) -> list[str] | None:
        if given is None:
            return None
        if len(given) != self.num_features():
            raise ValueError(f"{name} has {len(given)} entries, expected {self.num_features()}")
        return [str(one) for one in given]

    def get_categories(self, export_to_arrow: bool = False) -> Categories:
        """The categories that the model was fitted to, where a table had some.

        Parameters
        ----------
        export_to_arrow : bool
            For xgboost's sake: they can always be had as Arrow arrays.
        """
        known = self.content.categories
        names = self.feature_names or [str(i) for i in range(self.num_features())]
        return Categories([(name, known.get(i)) for i, name in enumerate(names)])

    def trees_or_error(self, asked: str) -> TreeEnsemble:
        """The trees; ValueError if the model has none, which what is `asked` needs."""
        model = self.model
        if not isinstance(model, TreeEnsemble):
            raise ValueError(f"{asked} needs trees, but the model is a {type(model).__name__}")
        return model

    def _features(self, fmap: Path | str) -> list[dumping.Feature]:
        if fmap:
            return dumping.features_of_map(fmap)
        return dumping.features_of_model(self.num_features(), self.feature_names, self.feature_types)

    def _described(self, asked: str) -> TreeEnsemble | LinearModel:
        model = self.model
        if isinstance(model, WeakModel):
            raise ValueError(f"{asked} needs trees or a linear model, but the model is a WeakModel")
        return model

    def get_dump(
        self, fmap: Path | str = "", with_stats: bool = False, dump_format: str = "text"
    ) -> list[str]:
        """Each tree in words.

        Parameters
        ----------
        fmap : path-like, optional
            A file with number, name and type of each feature.
        with_stats : bool
            Gains and covers too.
        dump_format : {"text", "json", "dot"}

        Returns
        -------
        list of str
        """
        return dumping.dump(self._described("get_dump"), self._features(fmap), dump_format, with_stats)

    def dump_model(
        self,
        fout: Path | str,
        fmap: Path | str = "",
        with_stats: bool = False,
        dump_format: str = "text",
    ) -> None:
        """Write what `get_dump` gives to a file."""
        trees = self.get_dump(fmap, with_stats, dump_format)
        if dump_format == "json":
            text = "[\n" + ",\n".join(trees) + "\n]"
        else:
            text = "".join(f"booster[{i}]:\n{tree}" for i, tree in enumerate(trees))
        with replacing(fout) as beside:
            beside.write_text(text, encoding="utf-8")

    def trees_to_dataframe(self, fmap: Path | str = "") -> Any:
        """A pandas DataFrame with a row for each node; of leaves, `Gain` is the value."""
        import pandas as pd  # type: ignore[import-untyped]

        return pd.DataFrame(dumping.table(self.trees_or_error("trees_to_dataframe"), self._features(fmap)))

    def get_score(self, fmap: Path | str = "", importance_type: str = "weight") -> dict[str, Any]:
        """The importance of each feature that is used; of a linear model the weights.

        Parameters
        ----------
        fmap : path-like, optional
        importance_type : {"weight", "gain", "cover", "total_gain", "total_cover"}

        Returns
        -------
        dict from names of features to float, or to a list with one float for each output
        """
        names = [feature.name for feature in self._features(fmap)]
        model = self._described("get_score")
        if isinstance(model, LinearModel):
            if importance_type != "weight":
                raise ValueError("booster='gblinear' has only the importance_type 'weight'")
            weights = model.weight[:, 0] if model.n_groups == 1 else model.weight
            return dict(zip(names, weights.tolist(), strict=True))
        counts, values = model.importances("weight"), model.importances(importance_type)
        return {names[i]: float(values[i]) for i in np.flatnonzero(counts)}

    def get_fscore(self, fmap: Path | str = "") -> dict[str, Any]:
        """How often each feature is split by."""
        return self.get_score(fmap)

    def get_split_value_histogram(
        self, feature: str, fmap: Path | str = "", bins: int | None = None, as_pandas: bool = True
    ) -> Any:
        """How many splits of a feature there are between which values.

        Parameters
        ----------
        feature : str
        fmap : path-like, optional
        bins : int, optional
            At most; as many as there are different values by default.
        as_pandas : bool
            A DataFrame with `SplitValue`, the upper edge, and `Count`, else an array with these columns.

        Raises
        ------
        ValueError
            If the feature is split by categories.
        """
        ensemble = self.trees_or_error("get_split_value_histogram")
        features = self._features(fmap)
        known = [i for i, one in enumerate(features) if one.name == feature]
        here = np.isin(ensemble.feature, known) & (ensemble.left >= 0)
        if np.any(np.diff(ensemble.category_start)[here] > 0):
            raise ValueError("Split value histogram doesn't support categorical split.")
        values = ensemble.threshold[here].astype(np.float64)
        most = len(np.unique(values)) if bins is None else min(bins, len(np.unique(values)))
        counts, edges = np.histogram(values, bins=max(most, 1))
        found = np.column_stack([edges[1:], counts.astype(np.float64)])[counts > 0]
        if not as_pandas:
            return found
        import pandas as pd

        return pd.DataFrame(found, columns=["SplitValue", "Count"])
