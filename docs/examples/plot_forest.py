"""
Random forest: out-of-bag error and importances
===============================================

Each tree sees a bootstrap sample; the rows that it did not see measure the forest without a held-out set
(Breiman 2001).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from fullspan.estimators import RandomForestClassifier

data = load_breast_cancer()
X, y = data.data, data.target

forest = RandomForestClassifier(oob_score=True, warm_start=True, random_state=0)
sizes = [15, 25, 50, 100, 150, 200]
errors = [1 - forest.set_params(n_estimators=size).fit(X, y).oob_score_ for size in sizes]

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(sizes, errors, marker="o")
left.set(xlabel="trees", ylabel="out-of-bag error", title="More trees")

order = np.argsort(forest.feature_importances_)[-10:]
right.barh(np.array(data.feature_names)[order], forest.feature_importances_[order])
right.set(title="Impurity importances")
plt.show()
