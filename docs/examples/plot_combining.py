"""
Bagging, voting and stacking: three ways to combine
===================================================

Bagging averages copies of one unstable learner, voting averages different ones, stacking learns how much to
trust each from predictions of rows that they were not fitted on (Breiman 1996; Wolpert 1992).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from fullspan.estimators import (
    BaggingClassifier,
    DecisionTreeClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)

X, y = make_moons(300, noise=0.3, random_state=0)
parts = [
    ("stump", DecisionTreeClassifier(max_depth=1, random_state=0)),
    ("forest", RandomForestClassifier(50, random_state=0)),
    ("neighbours", KNeighborsClassifier(15)),
]
models = {
    "one tree": DecisionTreeClassifier(random_state=0),
    "bagging": BaggingClassifier(DecisionTreeClassifier(random_state=0), 50, random_state=0),
    "voting": VotingClassifier(parts, voting="soft"),
    "stacking": StackingClassifier(parts),
}

x1, x2 = np.meshgrid(np.linspace(-2, 3, 120), np.linspace(-1.5, 2, 120))
grid = np.column_stack([x1.ravel(), x2.ravel()])
fig, panels = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharey=True)
for panel, (name, model) in zip(panels, models.items(), strict=True):
    accuracy = cross_val_score(model, X, y, cv=5).mean()
    probability = model.fit(X, y).predict_proba(grid)[:, 1]
    panel.contourf(x1, x2, probability.reshape(x1.shape), levels=10, cmap="RdBu", alpha=0.6)
    panel.scatter(*X.T, c=y, cmap="RdBu", s=12, edgecolors="black", linewidths=0.4)
    panel.set(title=f"{name}: {accuracy:.3f}")
plt.show()
