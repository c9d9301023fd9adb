"""
Losses: the same rows, other questions
======================================

The loss decides what a model of a skewed quantity predicts: the mean, the median, a mean that can only be
positive, or the time until something happens where some rows have been watched for a while only (AFT).
"""

import matplotlib.pyplot as plt
import numpy as np

from fullspan.estimators import XGBRegressor

rng = np.random.default_rng(0)
X = np.sort(rng.uniform(0, 10, (600, 1)), axis=0)
mean = np.exp(0.25 * X[:, 0])
y = rng.gamma(1.5, mean / 1.5)

fig, ax = plt.subplots(layout="constrained")
ax.scatter(X[:, 0], y, s=5, color="grey", alpha=0.5)
ax.plot(X[:, 0], mean, color="black", linestyle="--", label="true mean")
for objective in ("reg:squarederror", "reg:absoluteerror", "reg:gamma"):
    model = XGBRegressor(objective=objective, n_estimators=60, max_depth=2, learning_rate=0.1).fit(X, y)
    ax.plot(X[:, 0], model.predict(X), label=objective)
ax.set(xlabel="x", ylabel="y", title="Mean, median, positive mean", ylim=(0, 25))
ax.legend()
plt.show()
