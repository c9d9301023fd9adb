"""
Constraints: what is known before the data
==========================================

A demand falls when the price rises, whatever a few noisy rows say. A monotone constraint keeps each split to
that; an interaction constraint keeps columns apart that are known to act alone.
"""

import matplotlib.pyplot as plt
import numpy as np

from fullspan.estimators import XGBRegressor

rng = np.random.default_rng(0)
price, season = rng.uniform(0, 10, 150), rng.uniform(0, 1, 150)
demand = 30 - 2 * price + 6 * np.sin(2 * np.pi * season) + rng.normal(0, 4, 150)
X = np.column_stack([price, season])

settings = {"n_estimators": 60, "max_depth": 4, "random_state": 0}
models = {
    "free": XGBRegressor(**settings),
    "never rises": XGBRegressor(**settings, monotone_constraints=(-1, 0)),
    "never rises, columns apart": XGBRegressor(
        **settings, monotone_constraints=(-1, 0), interaction_constraints=[[0], [1]]
    ),
}

prices = np.linspace(0, 10, 300)
fig, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
for panel, (name, model) in zip(panels, models.items(), strict=True):
    model.fit(X, demand)
    panel.scatter(price, demand, s=8, color="grey", alpha=0.6)
    for time, label in ((0.25, "high season"), (0.75, "low season")):
        panel.plot(prices, model.predict(np.column_stack([prices, np.full(300, time)])), label=label)
    panel.set(title=name, xlabel="price")
panels[0].set_ylabel("demand")
panels[0].legend()
plt.show()
