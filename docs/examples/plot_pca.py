"""
Principal components: scree plot, biplot and a kernel
=====================================================

How much each component of the wines explains, what it is made of (Gabriel 1971), and how a kernel straightens
what no line can part (Schölkopf, Smola and Müller 1998).
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_wine, make_circles
from sklearn.preprocessing import StandardScaler

from fullspan.estimators import PCA, IncrementalPCA, KernelPCA, biplot, scree_plot

wine = load_wine(as_frame=True)
Z = StandardScaler().set_output(transform="pandas").fit_transform(wine.data)
pca = PCA().fit(Z)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
scree_plot(pca, ax=left)
biplot(pca, Z, wine.target_names[wine.target], ax=right)

batches = IncrementalPCA(2, batch_size=30).fit(Z)
print("first component, all rows against batches:", abs(pca.components_[0] @ batches.components_[0]).round(4))

# %%
# Two circles, one inside the other.
X, y = make_circles(400, factor=0.3, noise=0.05, random_state=0)
fig, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
curved = KernelPCA(2, kernel="rbf", gamma=3).fit_transform(X)
for ax, points, title in zip(panels, (X, curved), ("rows", "two components of an rbf kernel"), strict=True):
    ax.scatter(*points.T, c=y, s=8)
    ax.set_title(title)
plt.show()
