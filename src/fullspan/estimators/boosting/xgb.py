"""Gradient boosting with second-order trees, under xgboost's scikit-learn interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _deprecate_positional_args, check_array, column_or_1d

from fullspan.estimators.boosting._data import Rows, plain_labels
from fullspan.estimators.boosting._tables import is_frame
from fullspan.estimators.boosting.ranking import RankingGroups
from fullspan.estimators.boosting.watching import metrics_of, score_of
from fullspan.estimators.boosting.xgb_base import XGBBase
from fullspan.estimators.boosting.xgb_parameters import with_defaults

Array = NDArray[Any]


class XGBModel(XGBBase):
    """Boosted trees under any objective: what XGBRegressor, XGBClassifier and XGBRanker are made of.

    Parameters are those of `XGBRegressor`; without an `objective` it is "reg:squarederror".

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBModel
    >>> X = np.arange(40.0)[:, None]
    >>> XGBModel(n_estimators=30, max_depth=1).fit(X, X[:, 0] > 19).predict([[5.0], [30.0]]).round(1)
    array([0., 1.], dtype=float32)
    """

    @_deprecate_positional_args(version="1.0")  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        verbose: bool | int | None = True,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        feature_weights: Any = None,
    ) -> Self:
        """Boost.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            `missing` (NaN) is a missing value, as is what a sparse matrix does not hold. tree_method="hist"
            and "approx" make sparse matrices dense, with 4 bytes for each value.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional
        base_margin : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        eval_set : list of (X, y), optional
            Sets whose metrics are taken after each round; the last one decides on early stopping.
        verbose : bool or int
            Print the metrics after each round, or each so many rounds.
        xgb_model : path, fitted estimator or its `get_booster()`, optional
            Go on from this model.
        sample_weight_eval_set, base_margin_eval_set : list of array-like, optional

        Raises
        ------
        ValueError
            If data or parameters are wrong or contradict each other; the message names them.
        """
        return self._fit(
            X, y, sample_weight, base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set,
            base_margin_eval_set, feature_weights,
        )  # fmt: skip


class XGBRegressor(RegressorMixin, XGBModel):  # type: ignore[misc]
    """Boosted trees for numbers, counts, times and quantiles; parameters, defaults and trees are XGBoost's.

    The parameters that are not listed here mean what they do in XGBoost's own documentation; those left at
    None have XGBoost's defaults.

    Parameters
    ----------
    n_estimators : int, default=100
        Rounds of boosting.
    learning_rate : float, default=0.3
    max_depth : int, default=6
        0 for no limit.
    objective : str or callable, default="reg:squarederror"
        A callable takes (y_true, raw scores) and returns gradients and hessians.
    booster : {"gbtree", "gblinear", "dart"}, default="gbtree"
    tree_method : {"hist", "approx", "exact"}, default="hist"
    weak_learner : regressor, optional
        Fitted to Newton's steps in place of trees; fullspan's own parameter.
    max_bin : int, default=256
        256 stands for 255, the most bins that a feature may have.
    quantile_alpha, tweedie_variance_power, huber_slope, aft_loss_distribution, aft_loss_distribution_scale :
        Of the objectives "reg:quantileerror", "reg:tweedie", "reg:pseudohubererror" and "survival:aft"; for
        the latter y has two columns, the bounds of the time.
    rate_drop, skip_drop, one_drop, sample_type, normalize_type :
        Of booster="dart".

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRegressor
    >>> X = np.arange(40.0)[:, None]
    >>> y = np.where(X[:, 0] < 20, 1.0, 3.0)
    >>> model = XGBRegressor(n_estimators=30, max_depth=2).fit(X, y)
    >>> model.predict([[5.0], [30.0]]).round(2)
    array([1., 3.], dtype=float32)
    """

    __init__ = with_defaults(objective="reg:squarederror")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class XGBClassifier(ClassifierMixin, XGBModel):  # type: ignore[misc]
    """Boosted trees for classes; parameters, defaults and trees are XGBoost's.

    With more than two classes the objective is "multi:softprob". Classes may be numbers or strings. With y of
    several columns of 0 and 1, each column is a label of its own. Parameters are those of `XGBRegressor`.

    References
    ----------
    T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBClassifier
    >>> X = np.arange(40.0)[:, None]
    >>> y = np.where(X[:, 0] < 20, "low", "high")
    >>> model = XGBClassifier(n_estimators=10, max_depth=2).fit(X, y)
    >>> model.predict([[5.0], [30.0]])
    array(['low', 'high'], dtype='<U4')
    """

    _default_objective = "binary:logistic"
    __init__ = with_defaults(objective="binary:logistic")

    def _target(self, y: Any, reset: bool) -> Array:
        labels = check_array(plain_labels(y), ensure_2d=False, dtype=None, input_name="y")
        if reset:
            # A column is of the kind of its distinct values, which are fewer; objects may have no order.
            kinds = np.unique(labels) if labels.ndim == 1 and labels.dtype != object else labels
            check_classification_targets(kinds)
            self._multilabel = type_of_target(kinds) == "multilabel-indicator"
        if self._multilabel:
            if reset:
                self.classes_, self.n_classes_ = np.array([0, 1]), 2
                self.n_labels_ = labels.shape[1]
            return np.asarray(labels, np.float32)
        labels = column_or_1d(labels, warn=True)
        if reset:
            self.classes_ = np.unique(kinds)
            self.n_classes_ = len(self.classes_)
            if np.array_equal(self.classes_, np.arange(self.n_classes_)):
                return np.asarray(labels[:, None], np.float32)
        codes = np.minimum(np.searchsorted(self.classes_, labels), len(self.classes_) - 1)
        if not np.array_equal(self.classes_[codes], labels):
            strange = labels[self.classes_[codes] != labels].tolist()[0]
            raise ValueError(f"eval_set holds the class {strange!r}, which is not in y")
        return np.asarray(codes[:, None], np.float32)

    def _objective_name(self) -> str:
        name = super()._objective_name()
        if not self._multilabel and self.n_classes_ > 2 and name != "multi:softmax":
            return "multi:softprob"
        return name

    def _n_outputs(self, y: Array) -> int:
        if self._objective_name().startswith("multi:"):
            return max(self.n_classes_, 2)
        return int(y.shape[1])

    def _described(self) -> dict[str, Any]:
        classes = self.classes_.tolist()
        known = classes != list(range(len(classes))) and all(isinstance(c, str | int) for c in classes)
        return super()._described() | ({"classes": classes} if known else {})

    def _loaded(self, described: dict[str, Any]) -> None:
        name, outputs = self._objective.name, self._objective.n_outputs
        self._multilabel = not name.startswith("multi:") and outputs > 1
        self.n_classes_ = outputs if name.startswith("multi:") else 2
        classes = described.get("classes")
        fits = isinstance(classes, list) and len(classes) == self.n_classes_
        self.classes_ = np.array(classes) if fits else np.arange(self.n_classes_)

    def predict(
        self,
        X: Any,
        *,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> Array:
        """The class of each row of X, or with `output_margin` its raw scores; see `XGBModel.predict`."""
        out = self._predict(X, output_margin, iteration_range, base_margin)
        if output_margin:
            return out
        if self._multilabel:
            return (out > 0.5).astype(np.int64)
        if self._objective.name == "multi:softmax":
            codes = out.astype(np.intp)
        elif out.ndim == 2:
            codes = out.argmax(axis=1)
        else:
            threshold = 0.0 if self._objective.name == "binary:logitraw" else 0.5
            codes = (out > threshold).astype(np.intp)
        return np.asarray(self.classes_[np.minimum(codes, len(self.classes_) - 1)])

    def predict_proba(
        self,
        X: Any,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> NDArray[np.float32]:
        """The probability of each class.

        Returns
        -------
        float32 array of shape (n_samples, n_classes)
            With labels of several columns, the probability of each label.

        Raises
        ------
        ValueError
            If the objective has no probabilities: "binary:hinge" and "binary:logitraw".
        """
        name = self.get_booster().objective.name
        if name in ("binary:hinge", "binary:logitraw"):
            raise ValueError(f"objective={name!r} has no probabilities: use 'binary:logistic'")
        margin = self._margin(X, iteration_range, base_margin)
        if name.startswith("multi:"):
            return np.asarray(self._objective.loss.inverse_link(margin))
        p = self._objective.prediction(margin)
        if self._multilabel:
            return p
        if self.n_classes_ == 1:
            return np.ones_like(p)
        return np.hstack([1 - p, p])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class XGBRanker(XGBModel):
    """LambdaMART: boosted trees that order the rows of each query; parameters and defaults are XGBoost's.

    Parameters
    ----------
    objective : {"rank:ndcg", "rank:pairwise", "rank:map"}, default="rank:ndcg"
    lambdarank_pair_method : {"topk", "mean"}, default="topk"
        Pairs of the best rows with all below them, or of each row with some at random.
    lambdarank_num_pair_per_sample : int, optional
        32 for "topk", 1 for "mean".
    lambdarank_normalization, lambdarank_score_normalization, ndcg_exp_gain : bool, default=True

    References
    ----------
    C. Burges, "From RankNet to LambdaRank to LambdaMART: an overview", MSR-TR-2010-82.

    Examples
    --------
    >>> import numpy as np
    >>> from fullspan.estimators import XGBRanker
    >>> X = np.tile(np.arange(10.0), 4)[:, None]
    >>> qid = np.repeat(np.arange(4), 10)
    >>> model = XGBRanker(n_estimators=20).fit(X, X[:, 0] // 3, qid=qid)
    >>> scores = model.predict([[0.0], [4.0], [9.0]])
    >>> bool(scores[0] < scores[1] < scores[2])
    True
    """

    _default_objective = "rank:ndcg"
    __init__ = with_defaults(objective="rank:ndcg")

    @_deprecate_positional_args(version="1.0")  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        group: Any = None,
        qid: Any = None,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        eval_group: Sequence[Any] | None = None,
        eval_qid: Sequence[Any] | None = None,
        verbose: bool | int | None = False,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        feature_weights: Any = None,
    ) -> Self:
        """Boost.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Relevance of each row.
        group : array-like, optional
            Sizes of the queries, in the order of the rows.
        qid : array-like of shape (n_samples,), optional
            The query of each row, ascending. Either this or `group` is needed, or a column "qid" of X.
        sample_weight : array-like of shape (n_queries,), optional
            A weight for each query.
        base_margin, eval_set, verbose, xgb_model, sample_weight_eval_set, base_margin_eval_set :
            As of `XGBModel.fit`.
        eval_group, eval_qid : list of array-like, optional
            The queries of each set in `eval_set`.

        Raises
        ------
        ValueError
            If the objective does not rank, or the queries do not fit the rows.
        """
        if callable(self.objective):
            raise ValueError("custom objective function not supported by XGBRanker")
        if not (self.objective or "rank:").startswith("rank:"):
            raise ValueError(f"please use XGBRanker for ranking task, got objective={self.objective!r}")
        X, qid = split_queries(X, qid)
        groups = [RankingGroups.of(_length(X), qid, group)]
        sets = []
        for i, (rows, target) in enumerate(eval_set or []):
            own, query = split_queries(rows, eval_qid[i] if eval_qid else None)
            sets.append((own, target))
            groups.append(RankingGroups.of(_length(own), query, eval_group[i] if eval_group else None))
        return self._fit(
            X, y, sample_weight, base_margin, sets, verbose, xgb_model, sample_weight_eval_set,
            base_margin_eval_set, feature_weights, groups,
        )  # fmt: skip

    def _get_type(self) -> str:
        return "ranker"

    def _features(self, X: Any) -> Any:
        return super()._features(split_queries(X, None)[0])

    def score(self, X: Any, y: Any, qid: Any = None, group: Any = None) -> float:
        """The last of the metrics in `eval_metric`, or the objective's own, by default NDCG.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A DataFrame may have a column "qid".
        y : array-like of shape (n_samples,)
            Relevance of each row.
        qid, group : array-like, optional
            The query of each row, or the sizes of the queries.

        Returns
        -------
        float
        """
        X, qid = split_queries(X, qid)
        target = self._target(y, reset=False)
        groups = RankingGroups.of(len(target), qid, group)
        metric = metrics_of(self.eval_metric, self._objective.default_metric)[-1]
        rows = Rows(None, target, groups=groups, margin=self._margin(X, None, None))
        return score_of(metric, self._objective, rows, raw=False)


def split_queries(X: Any, qid: Any) -> tuple[Any, Any]:
    """A DataFrame's column "qid" apart from the rest; other data as they are.

    Raises
    ------
    ValueError
        If queries are given beside it.

    Examples
    --------
    >>> import pandas as pd
    >>> X, qid = split_queries(pd.DataFrame({"x": [1.0, 2.0], "qid": [7, 7]}), None)
    >>> list(X), qid.tolist()
    (['x'], [7, 7])
    """
    if not (is_frame(X) and "qid" in X.columns):
        return X, qid
    if qid is not None:
        raise ValueError("X has a column 'qid', and `qid` is given too: remove one of them")
    return X.drop(columns="qid"), X["qid"].to_numpy()


def _length(X: Any) -> int:
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)
