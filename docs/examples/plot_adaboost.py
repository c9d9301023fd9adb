"""
AdaBoost: stumps that look at what the others got wrong
=======================================================

Two classes that no single split parts. Each round raises the weight of the rows that the stumps so far got
wrong; their weighted vote bends the border (Freund and Schapire 1997; Zhu et al. 2009).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from fullspan.estimators import AdaBoostClassifier

X, y = make_moons(300, noise=0.25, random_state=0)
x1, x2 = np.meshgrid(np.linspace(-2, 3, 150), np.linspace(-1.5, 2, 150))
grid = np.column_stack([x1.ravel(), x2.ravel()])

fig, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
for panel, rounds in zip(panels, (1, 10, 100), strict=True):
    model = AdaBoostClassifier(n_estimators=rounds, random_state=0).fit(X, y)
    panel.contourf(x1, x2, model.decision_function(grid).reshape(x1.shape), levels=20, cmap="RdBu", alpha=0.6)
    panel.scatter(*X.T, c=y, cmap="RdBu", s=12, edgecolors="black", linewidths=0.4)
    panel.set(title=f"{rounds} stumps, accuracy {model.score(X, y):.2f}")
plt.show()
