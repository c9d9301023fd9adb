"""Classical learning with scikit-learn's interface: trees, forests, boosting, linear models, components."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullspan.estimators.saving import load as load

# Where each public name lives; a module is imported when its first name is used.
_MODULES = {
    "DecisionTreeClassifier": "tree.cart",
    "DecisionTreeRegressor": "tree.cart",
    "BaggingClassifier": "bagging",
    "BaggingRegressor": "bagging",
    "RandomForestClassifier": "forest",
    "RandomForestRegressor": "forest",
    "AdaBoostClassifier": "adaboost",
    "AdaBoostRegressor": "adaboost",
    "VotingClassifier": "voting",
    "VotingRegressor": "voting",
    "StackingClassifier": "stacking",
    "StackingRegressor": "stacking",
    "GradientBoostingClassifier": "gradient_boosting",
    "GradientBoostingRegressor": "gradient_boosting",
    "LogisticRegression": "linear.logistic",
    "PCA": "decomposition.pca",
    "IncrementalPCA": "decomposition.incremental_pca",
    "KernelPCA": "decomposition.kernel_pca",
    "biplot": "decomposition.plotting",
    "scree_plot": "decomposition.plotting",
    "XGBClassifier": "boosting.xgb",
    "XGBRegressor": "boosting.xgb",
    "XGBRanker": "boosting.xgb",
    "XGBModel": "boosting.xgb",
    "XGBRFClassifier": "boosting.xgb_forest",
    "XGBRFRegressor": "boosting.xgb_forest",
    "Booster": "boosting.booster",
    "SelfOrganizingMap": "som.map",
    "KDTree": "neighbors.kd_tree",
    "KNeighborsClassifier": "neighbors.knn",
    "KNeighborsRegressor": "neighbors.knn",
    "match": "neighbors.matching",
    "export_graphviz": "tree.export",
    "export_text": "tree.export",
    "plot_tree": "tree.plotting",
    "shap_interaction_values": "shap",
    "shap_values": "shap",
    "load": "saving",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
