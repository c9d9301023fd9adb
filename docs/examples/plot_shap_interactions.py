"""
SHAP values: one column's effect, and with whom it acts
=======================================================

TreeSHAP (Lundberg et al. 2020) shares out every prediction among the columns. On the left, how much one
column adds at each of its values; the spread at one value is the work of its interactions, which the right
panel names.
"""

import matplotlib.pyplot as plt
import numpy as np

from fullspan.estimators import XGBRegressor

rng = np.random.default_rng(0)
names = ["age", "dose", "weight", "noise"]
X = rng.uniform(0, 1, (800, 4))
y = 2 * X[:, 0] + 4 * (X[:, 1] - 0.5) * (X[:, 2] > 0.5) + rng.normal(0, 0.1, 800)

model = XGBRegressor(n_estimators=100, max_depth=3).fit(X, y)
values = model.shap_values(X)
pairs = np.abs(model.shap_interaction_values(X[:300])[:, :-1, :-1]).mean(axis=0)
# Rows add up to the prediction; the last column is what is expected without any feature.
assert np.allclose(values.sum(axis=1), model.predict(X), atol=1e-3)

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
dots = left.scatter(X[:, 1], values[:, 1], c=X[:, 2], cmap="coolwarm", s=8)
fig.colorbar(dots, ax=left, label="weight")
left.set(xlabel="dose", ylabel="SHAP value of dose", title="What the dose adds")
image = right.imshow(pairs, cmap="Blues")
fig.colorbar(image, ax=right, label="mean absolute SHAP interaction value")
right.set_xticks(range(4), names)
right.set_yticks(range(4), names)
right.set(title="Who acts with whom")
plt.show()
