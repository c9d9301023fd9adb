"""
KDTree: the same places in two photographs
==========================================

Two photographs of a motorcycle, taken from places some centimetres apart. SIFT describes thousands of spots
in each by 128 numbers; a kd-tree finds what each spot of the first is most like in the second. Lowe's ratio
test (2004) keeps those that are clearly nearer than the second best. For this pair of the Middlebury stereo
data it is known where each pixel lies in the other photograph, and so how many matches are right.

In 128 dimensions an exact search looks at nearly all leaves of the tree. Best bin first (Beis and Lowe 1997)
looks at the most promising ones only: the last panel shows what that costs.
"""

import cv2
import matplotlib.pyplot as plt
import numpy as np
from skimage.data import stereo_motorcycle

from fullspan.estimators import KDTree, KNeighborsClassifier, KNeighborsRegressor, match

left, right, disparity = stereo_motorcycle()
sift = cv2.SIFT_create()
(spots_a, a), (spots_b, b) = (
    sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (left, right)
)
where_a, where_b = (np.array([spot.pt for spot in spots]) for spots in (spots_a, spots_b))


def are_right(pairs):
    """Whether matches lie within two pixels of the truth; NaN where it is not known."""
    from_, to = where_a[pairs[:, 0]], where_b[pairs[:, 1]]
    shift = disparity[tuple(np.rint(from_).astype(int).T[::-1])]
    off = np.abs(from_ - to - np.column_stack([shift, np.zeros(len(shift))])).max(axis=1)
    return np.where(np.isfinite(shift) & (shift > 0), off < 2, np.nan)


pairs, _ = match(a, b)
correct = are_right(pairs)
everything = match(a, b, ratio=1.0)[0]
print(f"{len(a)} and {len(b)} SIFT features; {len(pairs)} matches pass the ratio test, ", end="")
print(f"{np.nanmean(correct):.1%} of them right; without it {np.nanmean(are_right(everything)):.1%}")

# %%
# Matches drawn across the two photographs: green ones are right, red ones are not.
fig, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(3, 1))
panels[0].imshow(np.hstack([left, right]))
for (i, j), fine in list(zip(pairs, correct, strict=True))[::8]:
    if np.isfinite(fine):
        ends = np.array([where_a[i], where_b[j] + [left.shape[1], 0]])
        panels[0].plot(*ends.T, color="lime" if fine else "red", linewidth=0.6, alpha=0.8)
panels[0].set_axis_off()
panels[0].set_title(f"an eighth of {len(pairs)} matches")

leaves = 2 ** np.arange(9)
tree = KDTree(b)
exact = tree.query(a, 2)[1]
found = [np.mean(tree.query(a, 2, max_leaves=int(n))[1][:, 0] == exact[:, 0]) for n in leaves]
panels[1].semilogx(leaves, found, "o-", base=2)
panels[1].set(
    xlabel=f"leaves looked at, of {(tree.size + 1) // 2}", ylabel="nearest neighbours found", ylim=(0, 1.02)
)
plt.show()

# %%
# Right matches say how far away things are. The nearest ones of every pixel fill in the rest (a regression),
# or tell near from far (a classification).
known = correct == 1
at, shift = where_a[pairs[known, 0]], (where_a[pairs[known, 0]] - where_b[pairs[known, 1]])[:, 0]
grid = np.stack(np.meshgrid(np.arange(0, 741, 3), np.arange(0, 500, 3)), axis=-1).reshape(-1, 2)
depth = KNeighborsRegressor(5, weights="distance").fit(at, shift).predict(grid)
near = KNeighborsClassifier(5).fit(at, shift > np.median(shift)).predict(grid)
fig, panels = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
panels[0].imshow(np.where(np.isfinite(disparity), disparity, np.nan), cmap="magma")
panels[1].imshow(depth.reshape(167, 247), cmap="magma")
panels[2].imshow(near.reshape(167, 247), cmap="gray")
for panel, title in zip(panels, ("measured disparity", "from the matches", "near and far"), strict=True):
    panel.set_axis_off()
    panel.set_title(title)
plt.show()
