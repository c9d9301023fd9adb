"""
Gradient boosting: shrinkage, and intervals from quantiles
==========================================================

Small steps need more trees and end lower (Friedman 2001). With the quantile loss the same machine gives
an interval instead of a number.
"""

import matplotlib.pyplot as plt
import numpy as np

from fullspan.estimators import GradientBoostingRegressor

rng = np.random.default_rng(0)
X = np.sort(rng.uniform(0, 10, (400, 1)), axis=0)
y = X[:, 0] * np.sin(X[:, 0]) + rng.normal(0, 1 + X[:, 0] / 4)
X_test = np.sort(rng.uniform(0, 10, (400, 1)), axis=0)
y_test = X_test[:, 0] * np.sin(X_test[:, 0]) + rng.normal(0, 1 + X_test[:, 0] / 4)

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for rate in (1.0, 0.3, 0.05):
    model = GradientBoostingRegressor(n_estimators=200, learning_rate=rate, random_state=0).fit(X, y)
    left.plot(
        [np.mean((y_test - p) ** 2) for p in model.staged_predict(X_test)], label=f"learning rate {rate}"
    )
left.set(xlabel="trees", ylabel="squared error on held-out rows", title="Shrinkage")
left.legend()

low, middle, high = (
    GradientBoostingRegressor(loss="quantile", alpha=alpha, random_state=0).fit(X, y).predict(X)
    for alpha in (0.05, 0.5, 0.95)
)
right.scatter(X[:, 0], y, s=6, color="grey")
right.fill_between(X[:, 0], low, high, alpha=0.3, label="5 % to 95 %")
right.plot(X[:, 0], middle, label="median")
right.set(title="Quantile loss")
right.legend()
plt.show()
