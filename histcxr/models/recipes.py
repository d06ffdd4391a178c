"""The pipelines of the four classical classifiers: which features, scaled how, into what.

Every pipeline has the steps ``features`` (learns nothing but the layout of the counts), perhaps ``scale`` or
``reduce``, and ``classifier`` (calibrated; its ``fit`` takes the patients as ``groups``). The choices were made by
cross-validation on public data; ``benchmarks/README.md`` has the figures.

With zones, features live on the lungs' own intensity scale, which loses nothing at home and travels to another
hospital; the share of the area that each zone takes is left out, because masks betray the class by their
shape. The histogram of the whole lungs has no such inner reference: there the raw scale adds what it can.
"""

from __future__ import annotations

from typing import Any

from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from histcxr.exceptions import MissingDependencyError
from histcxr.features.band_features import BandFeatures
from histcxr.features.bands import TRAVEL_BANDS
from histcxr.features.histograms import Zones, zone_names
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.calibrated import CalibratedClassifier
from histcxr.models.level import IntensityLevel

__all__ = ["forest", "knn", "svm", "svm_gammas", "xgboost"]

# Per zone: levels of the quantile function, intervals of the shares, bins of the density on the own scale.
_QUANTILES = 16
_SHARES = 8
_OWN_BINS = 18
# Whole lungs: bins of the density on the own scale.
_WHOLE_OWN_BINS = 36
# Per zone of a channel, where there are bands.
_BAND_QUANTILES = 24

#: Names of bands, as a recipe keeps them.
Bands = tuple[str, ...]


def knn(*, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Nearest neighbours by square-root densities: by city-block distance, or by whitened components.

    A single histogram is dominated by its coarse shape; whitening lets the finer differences count.
    """
    steps: list[tuple[str, Any]] = [("features", _features(zones, bands, "sqrt", level=False))]
    if _many(zones, bands):
        neighbours, metric = 25, "manhattan"
    else:
        neighbours, metric = 35, "euclidean"
        steps.append(("reduce", PCA(15, whiten=True, random_state=random_state)))
    estimator = KNeighborsClassifier(
        neighbours, weights="distance", metric=metric, algorithm="brute", n_jobs=n_jobs
    )
    return Pipeline([*steps, ("classifier", _calibrated(estimator, random_state, class_weight))])


def svm(*, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Support vector machine with a Gaussian kernel.

    On standardised quantiles and shares; for the whole lungs on the main components of square-root densities,
    whose Euclidean distance is Hellinger's.
    """
    if _many(zones, bands):
        features = _features(zones, bands, ("quantile", "share"))
        middle: tuple[str, Any] = ("scale", StandardScaler())
        cost = 3.0
    else:
        features = _features(zones, bands, "sqrt", level=False)
        middle = ("reduce", PCA(40, random_state=random_state))
        cost = 10.0
    estimator = SVC(C=cost, gamma=svm_gammas(zones, bands)[1], cache_size=500)
    classifier = _calibrated(estimator, random_state, class_weight, n_jobs)
    return Pipeline([("features", features), middle, ("classifier", classifier)])


def svm_gammas(zones: Zones, bands: Bands = ()) -> list[float]:
    """Return widths of the kernel worth trying, narrower and narrower; the second is the default."""
    if not _many(zones, bands):
        return [1.5, 3.0, 6.0]
    names = zone_names(zones)
    if bands:
        width = len(_intensities(bands) + bands) * len(names) * _BAND_QUANTILES
    else:
        width = len(names) * _QUANTILES + sum(name != "lungs" for name in names) * _SHARES + 2
    return [round(factor / width, 6) for factor in (0.3, 0.6, 1.0)]


def forest(*, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Random forest on square-root densities and shares."""
    kinds = ("sqrt", "share") if _many(zones, bands) else "sqrt"
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
            ("features", _features(zones, bands, kinds)),
            ("classifier", _calibrated(estimator, random_state, class_weight)),
        ]
    )


def xgboost(
    *, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any, device: str
) -> Pipeline:
    """Boosted trees on quantiles, square-root densities and shares."""
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise MissingDependencyError("xgboost is needed for this classifier: pip install xgboost") from error
    kinds = ("quantile", "sqrt", "share") if _many(zones, bands) else "sqrt"
    estimator = XGBClassifier(
        n_estimators=600,
        learning_rate=0.05,
        max_depth=4,
        min_child_weight=3,
        subsample=0.7,
        colsample_bytree=0.1 if _many(zones, bands) else 0.3,
        reg_lambda=3.0,
        max_bin=64,
        tree_method="hist",
        device=device,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    return Pipeline(
        [
            ("features", _features(zones, bands, kinds)),
            ("classifier", _calibrated(estimator, random_state, class_weight)),
        ]
    )


def _features(
    zones: Zones, bands: Bands, kinds: str | tuple[str, ...], *, level: bool = True
) -> FeatureUnion | Pipeline:
    """Join features on the own scale, for the whole lungs also on the raw scale, and the level of intensity.

    With bands: quantiles of every channel, standardised, since each band has its own range.
    """
    if bands:
        quantiles = BandFeatures(
            zones=zones,
            bands=bands,
            intensity="both" if len(_intensities(bands)) == 2 else "own",
            n_quantiles=_BAND_QUANTILES,
            dtype="float32",
        )
        return Pipeline([("quantiles", quantiles), ("scale", StandardScaler())])
    parts: list[tuple[str, Any]] = []
    if not _many(zones, bands):
        parts.append(("raw", HistogramFeatures("sqrt", zones=zones)))
    own = HistogramFeatures(
        kinds,
        zones=zones,
        scale="own",
        n_quantiles=_QUANTILES,
        n_shares=_SHARES,
        own_bins=_OWN_BINS if _many(zones, bands) else _WHOLE_OWN_BINS,
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


def _many(zones: Zones, bands: Bands) -> bool:
    return bool(bands) or len(zone_names(zones)) > 1


def _intensities(bands: Bands) -> tuple[str, ...]:
    """Grey levels as they are lose the way to other hospitals, and so do all bands but those that travel."""
    return ("own",) if set(bands) <= set(TRAVEL_BANDS) else ("raw", "own")
