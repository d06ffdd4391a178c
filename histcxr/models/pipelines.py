"""The pipelines of the classifiers that learn by themselves: which features, scaled how, into what.

Steps: ``features`` (learns only the layout of the counts), perhaps ``scale`` or ``reduce``, and ``classifier``
(calibrated; its ``fit`` takes patients as ``groups``). ``benchmarks/README.md`` has the figures behind the choices.
Zones live on the lungs' own intensity scale, which travels, without their areas, by which masks betray the class; the
whole lungs have no such inner reference, so there the raw scale is added.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from histcxr.checks import positive_number, whole_number
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.band_features import BandDensities, BandFeatures, BothSides
from histcxr.features.filters import TRAVEL_BANDS
from histcxr.features.histograms import zone_names
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures, LungIntensity
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.out_of_fold import CalibratedClassifier, TwoClassClassifier, two_classes
from histcxr.models.scoring import gaussian_margins, reduced

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

# Bytes of a kernel matrix that is kept whole; beyond, libsvm computes its own, entry by entry.
_LARGEST_KERNEL = 2 << 30


@dataclass(frozen=True)
class Settings:
    """What a pipeline is built from; see :func:`~histcxr.models.registry.make_classifier`."""

    recipe: Recipe
    random_state: Any = 0
    n_jobs: int = 1
    class_weight: Any = None
    device: str = "cpu"


def knn(settings: Settings) -> Pipeline:
    """Nearest neighbours by square-root densities: by city-block distance, or by whitened components.

    A single histogram is dominated by its coarse shape; whitening lets the finer differences count.
    """
    many = _many(settings.recipe)
    estimator = KNeighborsClassifier(
        25 if many else 35,
        weights="distance",
        metric="manhattan" if many else "euclidean",
        algorithm="brute",
        n_jobs=settings.n_jobs,
    )
    reduce = () if many else (("reduce", PCA(15, whiten=True, random_state=settings.random_state)),)
    return pipeline(estimator, settings, count_features(settings.recipe, "sqrt", intensity=False), *reduce)


def svm(settings: Settings) -> Pipeline:
    """Support vector machine with a Gaussian kernel: of standardised quantiles and shares, or whole lungs' components.

    With bands for the home's sake, coarse densities join the quantiles, and the kernel is the product of one on each.
    """
    recipe = settings.recipe
    gamma, n_jobs = svm_gammas(recipe)[1], settings.n_jobs
    if not _many(recipe):
        features = count_features(recipe, "sqrt", intensity=False)
        reduce = PCA(40, random_state=settings.random_state)
        return pipeline(GaussianSVC(10.0, gamma), settings, features, ("reduce", reduce), n_jobs=n_jobs)
    estimator = GaussianSVC(3.0, gamma)
    features = count_features(recipe, ("quantile", "share"))
    if not recipe.bands:
        return pipeline(estimator, settings, features, ("scale", StandardScaler()), n_jobs=n_jobs)
    if not sees_both_sides(recipe):
        densities = BandDensities(zones=recipe.zones, bands=recipe.bands, weight=_DENSITY_WEIGHT)
        features = FeatureUnion([("quantiles", features), ("densities", densities)])
    return pipeline(estimator, settings, features, n_jobs=n_jobs)


def svm_gammas(recipe: Recipe) -> list[float]:
    """Return widths of the kernel worth trying, narrower and narrower; the second is the default."""
    if not _many(recipe):
        return [1.5, 3.0, 6.0]
    names = zone_names(recipe.zones)
    if recipe.bands:
        width = (1 + (not _travels(recipe)) + len(recipe.bands)) * len(names) * _BAND_QUANTILES
    else:
        width = len(names) * _QUANTILES + sum(name != "lungs" for name in names) * _SHARES + 2
    return [round(factor / width, 6) for factor in (0.3, 0.6, 1.0)]


def forest(settings: Settings) -> Pipeline:
    """Random forest on square-root densities and shares."""
    kinds = ("sqrt", "share") if _many(settings.recipe) else "sqrt"
    estimator = RandomForestClassifier(
        200,
        criterion="entropy",
        min_samples_leaf=2,
        max_features="sqrt",
        random_state=settings.random_state,
        n_jobs=settings.n_jobs,
    )
    return pipeline(estimator, settings, count_features(settings.recipe, kinds))


def xgboost(settings: Settings) -> Pipeline:
    """Boosted trees on quantiles, square-root densities and shares."""
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise MissingDependencyError("xgboost is needed for this classifier: pip install xgboost") from error
    _check_device(settings.device)
    many, both = _many(settings.recipe), sees_both_sides(settings.recipe)
    estimator = XGBClassifier(
        n_estimators=600,
        max_bin=64,
        tree_method="hist",
        # For both sides shallow and strongly regularised: a little worse at home, better in another hospital.
        learning_rate=0.04 if both else 0.05,
        max_depth=3 if both else 4,
        min_child_weight=8 if both else 3,
        subsample=0.5 if both else 0.7,
        colsample_bytree=0.05 if both else 0.1 if many else 0.3,
        reg_lambda=10.0 if both else 3.0,
        device=settings.device,
        random_state=settings.random_state,
        n_jobs=settings.n_jobs,
    )
    kinds = ("quantile", "sqrt", "share") if many else "sqrt"
    return pipeline(estimator, settings, count_features(settings.recipe, kinds))


def lenet(settings: Settings) -> Pipeline:
    """1-D LeNet on the histograms themselves: one step, since the network lays out its own input."""
    weights = settings.class_weight
    if isinstance(weights, Mapping):
        if len(weights) != 2:
            raise InputError(f"class_weight must name both classes for the LeNet; got {dict(weights)}")
        # Inside, the classes are 0 and 1, in sorted order.
        weights = {code: weights[value] for code, value in enumerate(sorted(weights))}
    network = LeNetClassifier(
        zones=len(settings.recipe.names), class_weight=weights, random_state=settings.random_state
    )
    if settings.recipe.bands:
        network.set_params(bin_width=4, kernel_size=(7, 5), pool_size=2, dense_dropout=0.4)
        # Bands already lie on an axis of their own spread: nothing there moves with the exposure.
        network.set_params(shift=0.0, gamma=0.0, contrast=0.0)
    classifier = CalibratedClassifier(
        network, class_weight=settings.class_weight, random_state=settings.random_state
    )
    return Pipeline([("classifier", classifier)])


def count_features(
    recipe: Recipe, kinds: str | tuple[str, ...], *, intensity: bool = True
) -> FeatureUnion | Pipeline | BothSides:
    """Return the usual step ``features``: where there are bands, standardised quantiles of every channel.

    Otherwise features of the ``kinds`` of :class:`~histcxr.features.transformers.HistogramFeatures` on the own scale,
    for the whole lungs also on the raw scale, and with ``intensity`` the lungs' own median and range.
    """
    zones, bands = recipe
    if bands:
        quantiles = BandFeatures(
            zones=zones,
            bands=bands,
            intensity="own" if _travels(recipe) else "both",
            n_quantiles=_BAND_QUANTILES,
            dtype="float32",
        )
        # Each band has its own range.
        scaled = Pipeline([("quantiles", quantiles), ("scale", StandardScaler())])
        return BothSides(scaled, zones=zones, bands=bands) if sees_both_sides(recipe) else scaled
    parts: list[tuple[str, Any]] = []
    if not _many(recipe):
        parts.append(("raw", HistogramFeatures("sqrt", zones=zones)))
    own = HistogramFeatures(
        kinds,
        zones=zones,
        scale="own",
        n_quantiles=_QUANTILES,
        n_shares=_SHARES,
        own_bins=_OWN_BINS if _many(recipe) else _WHOLE_OWN_BINS,
    )
    parts.append(("own", own))
    if intensity:
        parts.append(("intensity", LungIntensity(zones)))
    return FeatureUnion(parts)


def pipeline(
    estimator: Any, settings: Settings, features: Any, *between: tuple[str, Any], n_jobs: int | None = None
) -> Pipeline:
    """Return the usual pipeline: features, the steps in between, and the estimator, calibrated across patients.

    ``n_jobs`` folds are fitted at a time, for estimators that use one thread themselves.
    """
    classifier = CalibratedClassifier(
        estimator,
        views=2 if sees_both_sides(settings.recipe) else 1,
        class_weight=settings.class_weight,
        random_state=settings.random_state,
        n_jobs=n_jobs,
    )
    return Pipeline([("features", features), *between, ("classifier", classifier)])


def sees_both_sides(recipe: Recipe) -> bool:
    """Tell whether the mirror image is scored, too: with the bands that travel, since hospitals differ by the side."""
    return bool(recipe.bands) and _travels(recipe) and recipe.zones != 1


def _many(recipe: Recipe) -> bool:
    return len(recipe.names) > 1


def _travels(recipe: Recipe) -> bool:
    """Tell whether all bands keep their worth in other hospitals; grey levels as they are do not."""
    return set(recipe.bands) <= set(TRAVEL_BANDS)


def _check_device(device: str) -> None:
    """Refuse a device that is not there: XGBoost itself would go on without it, on the processor."""
    if device == "cpu":
        return
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d+)?", device):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N'; got {device!r}")
    from xgboost import DMatrix, train
    from xgboost.core import XGBoostError

    advice = "install XGBoost with CUDA and check the driver with nvidia-smi, or use device='cpu'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it would say follows as an error
            tiny = DMatrix(np.array([[0.0], [1.0]]), label=np.array([0, 1]))
            booster = train({"device": device, "tree_method": "hist", "verbosity": 0}, tiny, 1)
    except XGBoostError as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"device {device!r} cannot be used ({problem}); {advice}") from error
    used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not used.startswith("cuda"):
        raise InputError(f"device {device!r} was asked for, but XGBoost finds no GPU; {advice}")


@dataclass(eq=False, repr=False)
class GaussianSVC(TwoClassClassifier):
    """What scikit-learn's ``SVC(kernel="rbf")`` learns, many times as fast where features are many.

    ``C``: cost of an image on the wrong side; ``gamma``: the kernel is ``exp(-gamma * ||x - y||**2)``;
    ``n_components``: main components that it sees, None for all features. Fitted: ``classes_`` (2,);
    ``support_vectors_``, float32 (n_support, n_features or n_components); ``dual_coef_``, float64 (n_support,);
    ``intercept_``; with components float32 ``mean_`` (n_features,) and ``components_`` (n_components, n_features), no
    more than there are images or features.
    """

    C: float = 1.0
    gamma: float = 1.0
    n_components: int | None = None

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GaussianSVC:
        """Find the support vectors; ``sample_weight`` is a factor on ``C`` for each image.

        ValueError is raised when shapes, classes or parameters do not fit. The class that sorts last is positive.
        """
        for name in ("C", "gamma"):
            positive_number(getattr(self, name), name)
        images, target = validate_data(self, X, y, dtype=np.float32)
        self.classes_, encoded = two_classes(target)
        weight = _check_sample_weight(sample_weight, images)
        # libsvm drops images without weight, but not their columns of a given kernel.
        images, encoded, weight = images[weight > 0], encoded[weight > 0], weight[weight > 0]
        if self.n_components is not None:
            most = min(whole_number(self.n_components, "n_components", least=1), *images.shape)
            found = PCA(most, svd_solver="covariance_eigh").fit(images)
            self.mean_, self.components_ = found.mean_, np.ascontiguousarray(found.components_)
            images = reduced(self, images)
        if 8 * len(images) ** 2 <= _LARGEST_KERNEL:
            machine = SVC(C=self.C, kernel="precomputed", cache_size=500)
            machine.fit(rbf_kernel(images, gamma=self.gamma).astype(np.float64), encoded, weight)
        else:
            machine = SVC(C=self.C, gamma=self.gamma, cache_size=500).fit(images, encoded, weight)
        self.support_vectors_ = np.ascontiguousarray(images[machine.support_])
        self.dual_coef_ = np.asarray(machine.dual_coef_[0], dtype=np.float64)
        self.intercept_ = float(machine.intercept_[0])
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the distance of each image from the border, shape (n,); above 0 on the positive side."""
        check_is_fitted(self)
        return gaussian_margins(self, validate_data(self, X, dtype=np.float32, reset=False))
