"""Random forests grown by boosting's trees: one round of many trees, under xgboost's interface."""

from __future__ import annotations

from typing import Any

from fullspan.estimators.boosting.xgb import XGBClassifier, XGBRegressor
from fullspan.estimators.boosting.xgb_fit import XGBFit
from fullspan.estimators.boosting.xgb_parameters import with_defaults

_FOREST = {"learning_rate": 1.0, "subsample": 0.8, "colsample_bynode": 0.8, "reg_lambda": 1e-5}


class _Forest(XGBFit):
    """`n_estimators` trees in a single round."""

    def _effective(self) -> Any:
        if self.early_stopping_rounds is not None or self.callbacks is not None:
            raise NotImplementedError(
                "`early_stopping_rounds` and `callbacks` are not implemented for random forest."
            )
        e = super()._effective()
        e.num_parallel_tree, e.n_estimators = super().get_num_boosting_rounds(), 1
        return e

    def get_num_boosting_rounds(self) -> int:
        """How many rounds fit will take: one."""
        return 1

    def get_xgb_params(self) -> dict[str, Any]:
        """The parameters of training.

        Returns
        -------
        dict
        """
        return super().get_xgb_params() | {"num_parallel_tree": super().get_num_boosting_rounds()}


class XGBRFClassifier(_Forest, XGBClassifier):
    """A forest for classes; `n_estimators` is the number of trees, all else as of `XGBClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRFClassifier
    >>> X = np.arange(40.0)[:, None]
    >>> model = XGBRFClassifier(n_estimators=10).fit(X, X[:, 0] > 19)
    >>> model.predict([[5.0], [30.0]]), model.get_booster().num_boosted_rounds()
    (array([False,  True]), 1)
    """

    __init__ = with_defaults(objective="binary:logistic", **_FOREST)


class XGBRFRegressor(_Forest, XGBRegressor):
    """A forest for numbers; `n_estimators` is the number of trees, all else as of `XGBRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRFRegressor
    >>> X = np.arange(40.0)[:, None]
    >>> model = XGBRFRegressor(n_estimators=10).fit(X, np.where(X[:, 0] > 19, 3.0, 1.0))
    >>> model.predict([[5.0], [30.0]]).round(1)
    array([1., 3.], dtype=float32)
    """

    __init__ = with_defaults(objective="reg:squarederror", **_FOREST)
