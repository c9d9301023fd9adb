"""
Self-organizing maps: thirteen columns of wine on a sheet of hexagons
=====================================================================

The map never sees the three cultivars, yet they lie apart on it: ridges of the U-matrix part them, and the
planes of the components show by what (Kohonen 1982; Ultsch and Siemon 1990).
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from fullspan.estimators import SelfOrganizingMap
from fullspan.estimators.som.plotting import plot_clusters, plot_components, plot_hits, plot_u_matrix

wine = load_wine(as_frame=True)
X = StandardScaler().set_output(transform="pandas").fit_transform(wine.data)
som = SelfOrganizingMap(9, 8, topology="hexagonal", max_iter=50).fit(X, wine.target_names[wine.target])

fig, panels = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
plot_u_matrix(som, ax=panels[0])
plot_hits(som, ax=panels[1])
plot_clusters(som, ax=panels[2])
plot_clusters(som, 3, ax=panels[3])
print(f"quantization error {som.quantization_error_:.2f}, topographic error {som.topographic_error(X):.2f}")

# %%
# What the units know of some columns.
plot_components(som, [0, 6, 9, 12])
plt.show()
