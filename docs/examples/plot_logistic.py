"""
Logistic regression: what is known of the coefficients
======================================================

Intervals show which columns tell malignant tumours from benign ones, and an L1 penalty chooses among all of
them (Friedman, Hastie and Tibshirani 2010).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from fullspan.estimators import LogisticRegression

data = load_breast_cancer(as_frame=True)
Z = StandardScaler().set_output(transform="pandas").fit_transform(data.data)
columns = ["mean radius", "mean texture", "mean smoothness", "mean compactness", "mean symmetry"]
table = LogisticRegression(C=np.inf, tol=1e-8).fit(Z[columns], data.target).summary()
print(table)

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
place = np.arange(len(columns))
coefficients = table.coefficients[0, :-1]
left.errorbar(coefficients, place, xerr=table.upper[0, :-1] - coefficients, fmt="o", capsize=3)
left.axvline(0, color="grey", linewidth=0.8)
left.set(
    yticks=place, yticklabels=columns, xlabel="log-odds for a standard deviation", title="95 % intervals"
)

# %%
# The weaker the penalty, the more columns: each fit begins where the last one ended.
strengths = np.logspace(-2, 1, 30)
path = LogisticRegression(l1_ratio=1, warm_start=True)
coefs = np.array([path.set_params(C=C).fit(Z, data.target).coef_[0] for C in strengths])
right.plot(strengths, coefs)
right.set(xscale="log", xlabel="C", ylabel="coefficients", title="An L1 penalty")
plt.show()
