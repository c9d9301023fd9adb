"""The picture of three estimates that meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fullspan.estimators.probability.conjugate import Conjugate


def plot_convergence(
    data: Any,
    prior: Conjugate,
    parameter: str,
    *,
    sizes: Sequence[int] | None = None,
    truth: float | None = None,
    level: float = 0.95,
    ax: Any = None,
) -> Any:
    """Draw maximum likelihood, MAP and the posterior of one parameter as data grow.

    Parameters
    ----------
    data : array-like of shape (n,)
    prior : Conjugate
        Its `mode` after data is the MAP estimate, that of a nearly flat prior the most likely value.
    parameter : str
        One of the prior's marginals.
    sizes : sequence of int, optional
        How many of the data each estimate is from; from 2 on, evenly on a logarithmic scale, by default.
    truth : float, optional
        Drawn as a line.
    level : float
        Of the posterior's credible interval.
    ax : matplotlib Axes, optional
        The current ones by default.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from fullspan.estimators.probability import BetaBinomial
    >>> import matplotlib.pyplot as plt
    >>> seen, prior = [1, 0, 1, 1, 0, 1, 1, 1], BetaBinomial(4, 4)
    >>> axes = plot_convergence(seen, prior, "p", truth=0.7, ax=plt.subplots()[1])
    >>> [line.get_label() for line in axes.lines]
    ['maximum likelihood', 'MAP', 'posterior mean', 'truth']
    """
    import matplotlib.pyplot as plt

    from fullspan.estimators.probability.families import Bernoulli, Binomial, Exponential, Normal, Poisson
    from fullspan.estimators.probability.fitting import mle

    families: dict[str, Any] = {
        "BetaBinomial": lambda: Binomial(prior.n) if prior.n > 1 else Bernoulli(),  # type: ignore[attr-defined]
        "GammaPoisson": Poisson, "GammaExponential": Exponential, "NormalInverseGamma": Normal,
    }  # fmt: skip
    kind = type(prior).__name__
    if kind not in families or parameter not in prior.marginals():
        raise ValueError(
            f"no picture of {parameter!r} of {kind}: take a prior of one number and its parameter"
        )
    x = np.asarray(data)
    if sizes is None:
        sizes = np.unique(np.geomspace(2, len(x), 40).astype(int)).tolist()
    likely, modes, means, low, high = [], [], [], [], []
    for n in sizes:
        after = prior.update(x[:n])
        found = mle(families[kind](), x[:n]).parameters
        # The most likely value of a function of a parameter is that function's value.
        likely.append(
            {"mean": lambda f=found: f["loc"], "variance": lambda f=found: f["scale"] ** 2,
             "rate": lambda f=found: 1 / f["scale"]}.get(parameter, lambda f=found: f[parameter])()
        )  # fmt: skip
        modes.append(after.mode[parameter])
        means.append(after.mean[parameter])
        ends = after.interval(level)[parameter]
        low.append(ends[0])
        high.append(ends[1])
    axes = plt.gca() if ax is None else ax
    axes.fill_between(sizes, low, high, alpha=0.2, label=f"{100 * level:g} % of the posterior")
    axes.plot(sizes, likely, label="maximum likelihood")
    axes.plot(sizes, modes, label="MAP", linestyle="--")
    axes.plot(sizes, means, label="posterior mean", linestyle=":")
    if truth is not None:
        axes.axhline(truth, color="black", linewidth=0.8, label="truth")
    axes.set(xscale="log", xlabel="values seen", ylabel=parameter)
    axes.legend()
    return axes
