"""
Decision tree: grow, look, prune
================================

A tree that is grown until its leaves are pure learns the noise too. Minimal cost-complexity pruning (Breiman
et al. 1984) takes back the splits that buy the least.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from fullspan.estimators import DecisionTreeClassifier
from fullspan.estimators.tree.plotting import plot_tree

data = load_breast_cancer()
X, X_test, y, y_test = train_test_split(data.data, data.target, random_state=0)

path = DecisionTreeClassifier(random_state=0).cost_complexity_pruning_path(X, y)
trees = [DecisionTreeClassifier(random_state=0, ccp_alpha=alpha).fit(X, y) for alpha in path.ccp_alphas]

fig, ax = plt.subplots()
leaves = [tree.get_n_leaves() for tree in trees]
ax.step(leaves, [tree.score(X, y) for tree in trees], where="post", label="rows it was grown on")
ax.step(leaves, [tree.score(X_test, y_test) for tree in trees], where="post", label="held-out rows")
ax.set(xlabel="leaves", ylabel="accuracy", title="Pruning a decision tree")
ax.legend()

# %%
# The tree that does best on held-out rows is small enough to be read.

best = max(trees, key=lambda tree: (tree.score(X_test, y_test), -tree.get_n_leaves()))
fig, ax = plt.subplots(figsize=(10, 5))
plot_tree(best, feature_names=list(data.feature_names), filled=True, ax=ax)
plt.show()
