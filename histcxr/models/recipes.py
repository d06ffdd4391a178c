"""The pipelines of the four classical classifiers: which features, scaled how, into what.

Every pipeline has the steps ``features`` (learns nothing but the layout of the counts), perhaps ``scale`` or
``reduce``, and ``classifier`` (calibrated; its ``fit`` takes the patients as ``groups``). The choices were made by
cross-validation on public data; ``benchmarks/README.md`` has the figures.

With zones, features live on the lungs' own intensity scale, which loses nothing at home and travels to another
hospital; the share of the area that each zone takes is left out, because masks betray the class by their
shape. The histogram of the whole lungs has no such inner reference: there the raw scale adds what it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.band_densities import BandDensities
from histcxr.features.band_features import BandFeatures
from histcxr.features.bands import TRAVEL_BANDS
from histcxr.features.both_sides import BothSides
from histcxr.features.histograms import Zones, zone_names
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.calibrated import CalibratedClassifier
from histcxr.models.gaussian_svc import GaussianSVC
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.level import IntensityLevel

__all__ = ["forest", "knn", "lenet", "sees_both_sides", "svm", "svm_gammas", "xgboost"]

# Per zone: levels of the quantile function, intervals of the shares, bins of the density on the own scale.
_QUANTILES = 16
_SHARES = 8
_OWN_BINS = 18
# Whole lungs: bins of the density on the own scale.
_WHOLE_OWN_BINS = 36
# Per zone of a channel, where there are bands.
_BAND_QUANTILES = 24

# Of a square-root density's distance beside that of standardised quantiles: both kernels are equally wide then.
_DENSITY_WEIGHT = 17.0

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
    return Pipeline(
        [*steps, ("classifier", _calibrated(estimator, zones, bands, random_state, class_weight))]
    )


def svm(*, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """Support vector machine with a Gaussian kernel.

    Where bands are there for the home's sake, coarse densities join the quantiles: one tells what a distribution
    looks like, the other where it lies, and the kernel is the product of one on each.

    On standardised quantiles and shares; for the whole lungs on the main components of square-root densities,
    whose Euclidean distance is Hellinger's.
    """
    if _many(zones, bands):
        features = _features(zones, bands, ("quantile", "share"))
        if bands and not sees_both_sides(zones, bands):
            densities = BandDensities(zones=zones, bands=bands, weight=_DENSITY_WEIGHT)
            features = FeatureUnion([("quantiles", features), ("densities", densities)])
        steps: list[tuple[str, Any]] = [("features", features)]
        if not bands:
            steps.append(("scale", StandardScaler()))
        cost = 3.0
    else:
        steps = [
            ("features", _features(zones, bands, "sqrt", level=False)),
            ("reduce", PCA(40, random_state=random_state)),
        ]
        cost = 10.0
    estimator = GaussianSVC(C=cost, gamma=svm_gammas(zones, bands)[1])
    classifier = _calibrated(estimator, zones, bands, random_state, class_weight, n_jobs)
    return Pipeline([*steps, ("classifier", classifier)])


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
            ("classifier", _calibrated(estimator, zones, bands, random_state, class_weight)),
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
    if sees_both_sides(zones, bands):
        # Shallow and strongly regularised: a little worse at home, better in another hospital.
        settings = {
            "learning_rate": 0.04,
            "max_depth": 3,
            "min_child_weight": 8,
            "subsample": 0.5,
            "colsample_bytree": 0.05,
            "reg_lambda": 10.0,
        }
    else:
        settings = {
            "learning_rate": 0.05,
            "max_depth": 4,
            "min_child_weight": 3,
            "subsample": 0.7,
            "colsample_bytree": 0.1 if _many(zones, bands) else 0.3,
            "reg_lambda": 3.0,
        }
    estimator = XGBClassifier(
        n_estimators=600,
        max_bin=64,
        tree_method="hist",
        device=device,
        random_state=random_state,
        n_jobs=n_jobs,
        **settings,
    )
    return Pipeline(
        [
            ("features", _features(zones, bands, kinds)),
            ("classifier", _calibrated(estimator, zones, bands, random_state, class_weight)),
        ]
    )


def lenet(*, zones: Zones, bands: Bands, random_state: Any, n_jobs: int, class_weight: Any) -> Pipeline:
    """1-D LeNet on the histograms themselves: one step, since the network lays out its own input."""
    if isinstance(class_weight, Mapping):
        if len(class_weight) != 2:
            raise InputError(f"class_weight must name both classes for the LeNet; got {dict(class_weight)}")
        # Inside, the classes are 0 and 1, in sorted order.
        weights: Any = {code: class_weight[value] for code, value in enumerate(sorted(class_weight))}
    else:
        weights = class_weight
    network = LeNetClassifier(
        zones=len(Recipe(zones, bands).names), class_weight=weights, random_state=random_state
    )
    if bands:
        # Bands already lie on an axis of their own spread: nothing there moves with the exposure.
        network.set_params(
            bin_width=4,
            kernel_size=(7, 5),
            pool_size=2,
            dense_dropout=0.4,
            shift=0.0,
            gamma=0.0,
            contrast=0.0,
        )
    classifier = CalibratedClassifier(network, class_weight=class_weight, random_state=random_state)
    return Pipeline([("classifier", classifier)])


def _features(
    zones: Zones, bands: Bands, kinds: str | tuple[str, ...], *, level: bool = True
) -> FeatureUnion | Pipeline | BothSides:
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
        scaled = Pipeline([("quantiles", quantiles), ("scale", StandardScaler())])
        return BothSides(scaled, zones=zones, bands=bands) if sees_both_sides(zones, bands) else scaled
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
    estimator: Any,
    zones: Zones,
    bands: Bands,
    random_state: Any,
    class_weight: Any,
    n_jobs: int | None = None,
) -> CalibratedClassifier:
    return CalibratedClassifier(
        estimator,
        views=2 if sees_both_sides(zones, bands) else 1,
        class_weight=class_weight,
        random_state=random_state,
        n_jobs=n_jobs,
    )


def sees_both_sides(zones: Zones, bands: Bands) -> bool:
    """Tell whether an image's score is the mean of its own and its mirror image's.

    With the bands that travel: which lung is sick, and which way hearts are turned, differs between hospitals
    more than sickness does. It costs a little at home and gains more elsewhere.
    """
    return bool(bands) and set(bands) <= set(TRAVEL_BANDS) and zones != 1


def _many(zones: Zones, bands: Bands) -> bool:
    return bool(bands) or len(zone_names(zones)) > 1


def _intensities(bands: Bands) -> tuple[str, ...]:
    """Grey levels as they are lose the way to other hospitals, and so do all bands but those that travel."""
    return ("own",) if set(bands) <= set(TRAVEL_BANDS) else ("raw", "own")
