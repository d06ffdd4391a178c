"""The pipelines of the four classical classifiers: which features, scaled how, into what.

Every pipeline has the steps ``features`` (learns nothing but the layout of the counts), perhaps ``scale``, and
``classifier`` (calibrated; its ``fit`` takes the patients as ``groups``). The choices were made by
cross-validation on public data; ``benchmarks/README.md`` has the figures.

With zones, features live on the lungs' own intensity scale, which loses nothing at home and travels to another
hospital; the share of the area that each zone takes is left out, because masks betray the class by their
shape. The histogram of the whole lungs has no such inner reference: there the raw scale adds what it can.
"""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from histcxr.exceptions import MissingDependencyError
from histcxr.features.histograms import Zones, zone_names
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.calibrated import CalibratedClassifier
from histcxr.models.level import IntensityLevel

__all__ = ["forest", "knn", "svm", "svm_gamma", "xgboost"]

# Per zone: levels of the quantile function, intervals of the shares, bins of the density on the own scale.
_QUANTILES = 16
_SHARES = 8
_OWN_BINS = 18
# Whole lungs: bins of the density on the own scale.
_WHOLE_OWN_BINS = 36


def knn(*, zones: Zones, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Nearest neighbours by the city-block distance of square-root densities."""
    estimator = KNeighborsClassifier(
        25, weights="distance", metric="manhattan", algorithm="brute", n_jobs=n_jobs
    )
    return Pipeline(
        [
            ("features", _features(zones, "sqrt", level=False)),
            ("classifier", _calibrated(estimator, random_state, class_weight)),
        ]
    )


def svm(*, zones: Zones, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Support vector machine with a Gaussian kernel on standardised quantiles and shares."""
    kinds = ("quantile", "share") if _many(zones) else "sqrt"
    estimator = SVC(C=3.0, gamma=svm_gamma(zones)[1], cache_size=500)
    return Pipeline(
        [
            ("features", _features(zones, kinds)),
            ("scale", StandardScaler()),
            ("classifier", _calibrated(estimator, random_state, class_weight, n_jobs)),
        ]
    )


def svm_gamma(zones: Zones) -> list[float]:
    """Return widths of the kernel worth trying, narrower and narrower; the second is the default."""
    parts = [name for name in zone_names(zones) if name != "lungs"]
    rows = len(zone_names(zones))
    if _many(zones):
        width = rows * _QUANTILES + len(parts) * _SHARES + 2
    else:
        width = 256 + _WHOLE_OWN_BINS + 2
    return [round(factor / width, 6) for factor in (0.3, 0.6, 1.0, 1.5)]


def forest(*, zones: Zones, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Random forest on square-root densities, quantiles and shares."""
    kinds = ("quantile", "sqrt", "share") if _many(zones) else "sqrt"
    estimator = RandomForestClassifier(
        200,
        criterion="entropy",
        min_samples_leaf=2,
        max_features="sqrt",
        random_state=random_state,
        n_jobs=n_jobs,
    )
    return Pipeline(
        [
            ("features", _features(zones, kinds)),
            ("classifier", _calibrated(estimator, random_state, class_weight)),
        ]
    )


def xgboost(*, zones: Zones, random_state: Any, n_jobs: int, class_weight: Any, device: str) -> Pipeline:
    """Boosted trees on quantiles and square-root densities."""
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise MissingDependencyError("xgboost is needed for this classifier: pip install xgboost") from error
    kinds = ("quantile", "sqrt") if _many(zones) else "sqrt"
    estimator = XGBClassifier(
        n_estimators=400,
        learning_rate=0.05,
        max_depth=4,
        min_child_weight=3,
        subsample=0.7,
        colsample_bytree=0.3,
        reg_lambda=3.0,
        max_bin=64,
        tree_method="hist",
        device=device,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    return Pipeline(
        [
            ("features", _features(zones, kinds)),
            ("classifier", _calibrated(estimator, random_state, class_weight)),
        ]
    )


def _features(zones: Zones, kinds: str | tuple[str, ...], *, level: bool = True) -> FeatureUnion:
    """Join features on the own scale, for the whole lungs also on the raw scale, and the level of intensity."""
    parts: list[tuple[str, Any]] = []
    if not _many(zones):
        parts.append(("raw", HistogramFeatures("sqrt", zones=zones)))
    own = HistogramFeatures(
        kinds,
        zones=zones,
        scale="own",
        n_quantiles=_QUANTILES,
        n_shares=_SHARES,
        own_bins=_OWN_BINS if _many(zones) else _WHOLE_OWN_BINS,
    )
    parts.append(("own", own))
    if level:
        parts.append(("level", IntensityLevel(zones)))
    return FeatureUnion(parts)


def _calibrated(
    estimator: Any, random_state: Any, class_weight: Any, n_jobs: int | None = None
) -> CalibratedClassifier:
    return CalibratedClassifier(
        estimator, class_weight=class_weight, random_state=random_state, n_jobs=n_jobs
    )


def _many(zones: Zones) -> bool:
    return len(zone_names(zones)) > 1
