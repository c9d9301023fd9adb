"""What AdaBoost's estimators say together: weighted votes for classes, weighted medians of numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _num_samples

from fullspan.core.device import usable_cores
from fullspan.estimators.tree.cart import DecisionTreeClassifier

_WORTH_THREADS = 5_000  # rows


def staged_votes(
    estimators: list[Any], weights: NDArray[np.float64], classes: NDArray[Any], X: Any
) -> Iterator[NDArray[np.float64]]:
    """Sums of votes after each estimator, in one array of shape (n_samples, n_classes).

    Parameters
    ----------
    X : {array, sparse matrix} of shape (n_samples, n_features)
        As fullspan's trees take it without a further look, if the estimators are such.
    """
    n_classes = len(classes)
    votes = np.zeros((_num_samples(X), n_classes))
    for estimator, weight in zip(estimators, weights, strict=False):
        against = -weight / (n_classes - 1)
        if isinstance(estimator, DecisionTreeClassifier):
            by_node = node_votes(estimator, weight)
            votes += by_node.take(estimator.tree_.apply(X), axis=0)
        else:
            votes += np.where(estimator.predict(X)[:, None] == classes, weight, against)
        yield votes


def node_votes(tree: DecisionTreeClassifier, weight: float) -> NDArray[np.float64]:
    """The votes of each node of a tree: [node_count, n_classes]."""
    n_classes = int(tree.n_classes_)
    says = tree.tree_.value[:, 0].argmax(axis=1)
    return np.where(says[:, None] == np.arange(n_classes), weight, -weight / (n_classes - 1))


def all_votes(
    estimators: list[Any], weights: NDArray[np.float64], classes: NDArray[Any], X: Any, *, in_blocks: bool
) -> NDArray[np.float64]:
    """Sums of all votes, of shape (n_samples, n_classes).

    Parameters
    ----------
    in_blocks : bool
        Whether threads may take the rows of X block by block.
    """

    def last(rows: Any) -> NDArray[np.float64]:
        for votes in staged_votes(estimators, weights, classes, rows):
            total = votes
        return total

    if not in_blocks or X.shape[0] <= _WORTH_THREADS:
        return last(X)
    n_threads = usable_cores()
    cuts = np.linspace(0, X.shape[0], n_threads + 1).astype(np.int64)
    with ThreadPoolExecutor(n_threads) as pool:
        return np.concatenate(list(pool.map(last, (X[a:b] for a, b in itertools.pairwise(cuts)))))


def weighted_median(predictions: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's first prediction that half of the weight does not exceed.

    Parameters
    ----------
    predictions : float64 array of shape (n_samples, n_estimators)
    weights : float64 array of shape (n_estimators or more,)

    Examples
    --------
    >>> weighted_median(np.array([[3.0, 1.0, 2.0]]), np.array([1.0, 1.0, 5.0]))
    array([2.])
    """
    order = np.argsort(predictions, axis=1)
    reached = np.cumsum(weights[order], axis=1)
    middle = (reached >= 0.5 * reached[:, -1:]).argmax(axis=1)
    rows = np.arange(len(predictions))
    return np.asarray(predictions[rows, order[rows, middle]])
