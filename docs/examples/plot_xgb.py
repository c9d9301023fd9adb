"""
XGBoost-style boosting: early stopping and SHAP values
======================================================

Second-order boosting with a penalty on the leaves (Chen and Guestrin 2016). SHAP values (Lundberg et al.
2020) share out each prediction among the features: they add up to it.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from fullspan.estimators import XGBClassifier

data = load_breast_cancer()
X, X_test, y, y_test = train_test_split(data.data, data.target, random_state=0)
model = XGBClassifier(n_estimators=500, learning_rate=0.1, early_stopping_rounds=20, eval_metric="logloss")
model.fit(X, y, eval_set=[(X, y), (X_test, y_test)], verbose=False)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, result in zip(("training", "held out"), model.evals_result().values(), strict=True):
    left.plot(result["logloss"], label=name)
left.axvline(model.best_iteration, color="grey", linestyle="--", label="kept")
left.set(xlabel="trees", ylabel="log loss", title="Early stopping")
left.legend()

values = model.shap_values(X_test)[:, :-1]
order = np.argsort(np.abs(values).mean(axis=0))[-10:]
for position, feature in enumerate(order):
    ranks = np.argsort(np.argsort(X_test[:, feature]))
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(ranks))
    right.scatter(values[:, feature], position + jitter, c=ranks, cmap="coolwarm", s=6)
right.set_yticks(range(len(order)), np.array(data.feature_names)[order])
right.set(xlabel="SHAP value (log-odds)", title="What moves the predictions")
plt.show()
