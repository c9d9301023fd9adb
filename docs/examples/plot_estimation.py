"""
Estimation: three answers that meet
===================================

Maximum likelihood trusts the data alone, MAP is the peak of prior and data together, the posterior mean its
balance point. With few data they differ; as data grow the prior is forgotten and all meet at the truth.
"""

import matplotlib.pyplot as plt
import numpy as np

from fullspan.estimators.probability import (
    BetaBinomial,
    Censored,
    Gamma,
    GammaPoisson,
    NormalInverseGamma,
    mle,
    plot_convergence,
)

rng = np.random.default_rng(4)
fig, panels = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
plot_convergence(rng.random(3000) < 0.7, BetaBinomial(8, 8), "p", truth=0.7, ax=panels[0])
plot_convergence(rng.poisson(4, 3000), GammaPoisson(20, 2), "mu", truth=4, ax=panels[1])
plot_convergence(rng.normal(1, 2, 3000), NormalInverseGamma(0, 5, 5, 60), "variance", truth=4, ax=panels[2])

# %%
# Lifetimes of which a third were still running when we stopped to look. Leaving them out, or taking the time
# so far for the whole, both say that things break sooner than they do.
lifetimes = rng.gamma(2.5, 4, 400)
running = lifetimes > 12
seen = np.minimum(lifetimes, 12)
fits = {
    "censored": mle(Gamma(), Censored.right(seen, running)),
    "running ones left out": mle(Gamma(), seen[~running]),
    "taken as they are": mle(Gamma(), seen),
}
x = np.linspace(0.1, 35, 300)
fig, ax = plt.subplots(layout="constrained")
ax.hist(lifetimes, 40, density=True, color="lightgrey", label="all lifetimes, later")
for name, fit in fits.items():
    ax.plot(x, fit.distribution().pdf(x), label=name)
ax.axvline(12, color="black", linewidth=0.8)
ax.set(xlabel="lifetime", ylabel="density")
ax.legend()
print(fits["censored"].summary())
plt.show()
