"""After `fullspan warmup` a first fit compiles nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: here other tests have loaded kernels already. A kernel that gets another signature
# would be compiled if the cache on disk were empty, whether it is or not.
PROGRAM = """
import gc

import numpy as np
from numba.core.dispatcher import Dispatcher

from fullspan import estimators
from fullspan.core.kernels import _KernelCache
from fullspan.estimators.warmup import warm_up


def compiled():
    found = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    kernels = [each for each in found if isinstance(each._cache, _KernelCache)]
    return {(each.py_func.__name__, str(signature)) for each in kernels for signature in each.signatures}


warm_up()
before = compiled()
print(len(before), "kernels")
NAMES = ("DecisionTree", "RandomForest", "Bagging", "AdaBoost", "GradientBoosting", "XGB", "XGBRF")
NAMES += ("KNeighbors",)
rng = np.random.default_rng(0)
for n in (500, 3_000, 20_000):
    whole = rng.normal(size=(n, 5))
    gaps = np.where(rng.random(whole.shape) < 0.1, np.nan, whole)
    value = whole[:, 0] + whole[:, 1] ** 2
    classes = [(value > 1, "Classifier"), (np.digitize(value, [0, 1]), "Classifier")]
    for y, kind in [*classes, (value, "Regressor")]:
        for name in NAMES:
            few = {"DecisionTree": {"max_depth": 6}, "KNeighbors": {}}.get(name, {"n_estimators": 6})
            takes_gaps = name not in ("AdaBoost", "GradientBoosting", "KNeighbors")
            for X in (whole, np.asfortranarray(whole), *([gaps] if takes_gaps else [])):
                model = getattr(estimators, name + kind)(**few).fit(X, y)
                model.predict(X)
            if name + kind != "AdaBoostRegressor" and name != "KNeighbors":
                estimators.shap_values(model, X[:2])
            for kernel in compiled() - before:
                print("compiled by", name + kind, "of", n, "rows:", *kernel)
            before = compiled()
    for X in (whole, gaps[~np.isnan(gaps).all(axis=1)], whole.astype(np.float32)):
        for algorithm in ("batch", "online"):
            som = estimators.SelfOrganizingMap(4, 3, algorithm=algorithm, max_iter=1).fit(X)
            som.partial_fit(X[:9]).topographic_error(X)
        for kernel in compiled() - before:
            print("compiled by SelfOrganizingMap of", n, "rows:", *kernel)
        before = compiled()
"""


@pytest.mark.slow
def test_after_a_warm_up_a_first_fit_compiles_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counted, *compiled = done.stdout.splitlines()
    assert int(counted.split()[0]) > 40
    assert compiled == []
