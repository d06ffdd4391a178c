"""One cell of the histogram study: where is counted, how it is written down, what learns from it.

Each classifier has one set of plain settings for all regions and representations, fixed beforehand, so that a cell
tells what region and representation are worth and not how long somebody searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from histcxr.decision.auc import auc
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.features import curves
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.out_of_fold import StackedClassifier

#: What is counted once; every region is a slice of it.
RECIPE = Recipe("1+6", "travel")
SIGMA = 2.0  # bins; the window of "smoothed"
REPRESENTATIONS = ("raw", "density", "cumulative", "sqrt", "smoothed", "quantile")
MEMBERS = ("knn", "svm", "random-forest", "xgboost")
CLASSIFIERS = (*MEMBERS, "lenet", "stack")
AUGMENTED = "lenet+augmentation"
# What LeNetClassifier computes by itself, and with how wide a window; the others are handed over as signals.
_LENET = {"density": ("density", 0.0), "cumulative": ("cumulative", 0.0), "sqrt": ("sqrt", 0.0)}
_LENET["smoothed"] = ("density", SIGMA)


@dataclass(frozen=True)
class Region:
    """Where is counted: the zones, and whether bands are counted beside the intensity."""

    zones: Zones
    bands: bool = False


REGIONS = {
    "whole": Region(1),
    "lungs": Region(2),
    "zones": Region(6),
    "whole+zones": Region("1+6"),
    "whole+zones+bands": Region("1+6", bands=True),
    "zones+bands": Region(6, bands=True),
}


@dataclass(frozen=True)
class Effort:
    """How long the classifiers may work: the same for every cell."""

    trees: int = 200
    rounds: int = 300
    components: int = 60
    folds: int = 2
    epochs: int = 12
    patience: int = 5


FULL = Effort()
QUICK = Effort(trees=20, rounds=20, components=8, folds=2, epochs=2, patience=2)


@dataclass(frozen=True)
class Sample:
    """Radiographs with their truth: counts (n, rows, 256), ``sick`` and ``patients`` (n,)."""

    counts: NDArray[Any]
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]

    def region(self, region: Region) -> Sample:
        """Return the counts of one region, from those of :data:`RECIPE`."""
        return Sample(slice_region(self.counts, region), self.sick, self.patients)

    def take(self, rows: NDArray[Any]) -> Sample:
        """Return some of the radiographs, by position or by a mask of bool."""
        return Sample(self.counts[rows], self.sick[rows], self.patients[rows])


def slice_region(counts: NDArray[Any], region: Region) -> NDArray[Any]:
    """Return what extraction would give for a region, from the counts of :data:`RECIPE`, (n, 28, 256)."""
    channels = counts.reshape(len(counts), -1, len(zone_names(RECIPE.zones)), BINS)
    if not region.bands:
        channels = channels[:, :1]
    whole, sixths = channels[:, :, :1], channels[:, :, 1:]
    if region.zones == 1:
        channels = whole
    elif region.zones == 2:
        channels = sixths.reshape(*sixths.shape[:2], 2, 3, BINS).sum(axis=3, dtype=counts.dtype)
    elif region.zones == 6:
        channels = sixths
    return channels.reshape(len(counts), -1, BINS)


def signals(counts: NDArray[Any], region: Region, representation: str) -> NDArray[np.float32]:
    """Write a region's counts (n, rows, 256) down in a representation, (n, rows, 256), or 32 for ``"quantile"``.

    ``"raw"`` is the counts themselves: they also tell how large the mask is.
    """
    if representation == "raw":
        return counts.astype(np.float32)
    features = HistogramFeatures(
        representation, zones=region.zones, sigma=SIGMA, n_quantiles=32, dtype="float32"
    )
    rows = len(zone_names(region.zones))
    # Channel by channel: a zone that is missing takes the whole lungs' distribution of the same channel.
    found = [
        features.fit_transform(counts[:, start : start + rows]).reshape(len(counts), rows, -1)
        for start in range(0, counts.shape[1], rows)
    ]
    return np.concatenate(found, axis=1)


def filled(counts: NDArray[Any], region: Region) -> NDArray[np.float64]:
    """Return counts in which a zone without a pixel has the whole lungs' counts of its channel."""
    channels = counts.reshape(len(counts), -1, len(zone_names(region.zones)), BINS)
    whole = channels[:, :, 0] if isinstance(region.zones, str) else channels.sum(axis=2)
    done = [curves.fill_empty(channels[:, i], whole[:, i]) for i in range(channels.shape[1])]
    return np.concatenate(done, axis=1).astype(np.float64)


class SignalNetwork(LeNetClassifier):
    """The LeNet on signals of any kind, where its parent wants counts.

    They are standardised by one mean and one standard deviation over all values of the training set.
    """

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> SignalNetwork:
        """Train on signals (n, rows, length), not negative."""
        self.mean_, self.spread_ = float(X.mean(dtype=np.float64)), float(X.std(dtype=np.float64))
        super().fit(X, y, groups=groups)
        return self

    def _tensor(self, flat: NDArray[Any]) -> NDArray[np.float32]:
        cube = flat.reshape(len(flat), self.n_zones_, -1)
        return ((cube - self.mean_) / self.spread_).astype(np.float32)


def make_members(effort: Effort, shape: tuple[int, int], seed: int, n_jobs: int) -> dict[str, Any]:
    """Build the :data:`MEMBERS`, unfitted, for flat features of a shape: training images and features.

    Nearest neighbours take the representation's own Euclidean distance (Hellinger's for ``sqrt``); trees need no
    scale; the support vector machine gets standardised features, reduced to their main components.
    """
    quarter = shape[0] // 4  # folds of the stack hold half of the rows at least
    components = min(effort.components, quarter, shape[1])
    return {
        "knn": KNeighborsClassifier(min(25, quarter), weights="distance", algorithm="brute", n_jobs=n_jobs),
        "svm": make_pipeline(StandardScaler(), PCA(components, random_state=seed), SVC()),
        "random-forest": RandomForestClassifier(
            effort.trees, min_samples_leaf=2, max_samples=0.5, random_state=seed, n_jobs=n_jobs
        ),
        "xgboost": XGBClassifier(
            n_estimators=effort.rounds,
            max_depth=4,
            learning_rate=0.1,
            subsample=0.8,
            colsample_bytree=0.1,
            max_bin=64,
            tree_method="hist",
            random_state=seed,
            n_jobs=n_jobs,
        ),
    }


def probability(model: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return a score in [0, 1]; a decision function enters the logistic curve, so that its zero is 0.5."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X), dtype=np.float64)[:, 1]
    return np.asarray(expit(model.decision_function(X)), dtype=np.float64)


def fit_scores(
    classifiers: Sequence[str],
    region: Region,
    representation: str,
    train: Sample,
    others: Sequence[Sample],
    effort: Effort,
    seed: int,
    n_jobs: int,
) -> dict[str, list[NDArray[np.float64]]]:
    """Fit classifiers on one sample of the region's counts; return their scores of each of the others.

    The stack fits its members on everything anyway, so where it is wanted they are taken from it. The augmented LeNet
    varies brightness, gamma and contrast in training, which only means something for a histogram of intensities.
    """
    scores = {
        name: _lenet_scores(region, representation, [train, *others], effort, seed, name == AUGMENTED)
        for name in classifiers
        if name.startswith("lenet")
    }
    classical = [name for name in classifiers if name not in scores]
    if classical:
        samples = (train, *others)
        flat = [signals(one.counts, region, representation).reshape(len(one.sick), -1) for one in samples]
        fitted = make_members(effort, flat[0].shape, seed, n_jobs)
        if "stack" in classical:
            stack = StackedClassifier(list(fitted.items()), cv=effort.folds, random_state=seed)
            stack.fit(flat[0], train.sick, groups=train.patients)
            fitted = dict(zip(fitted, stack.estimators_, strict=True)) | {"stack": stack}
        else:
            for name in classical:
                fitted[name].fit(flat[0], train.sick.astype(int))
        scores |= {name: [probability(fitted[name], X) for X in flat[1:]] for name in classical}
    return scores


def _lenet_scores(
    region: Region, representation: str, samples: Sequence[Sample], effort: Effort, seed: int, augment: bool
) -> list[NDArray[np.float64]]:
    options: dict[str, Any] = {"epochs": effort.epochs, "patience": effort.patience, "random_state": seed}
    options["validation_fraction"] = 0.2
    if not augment:
        options |= {"shift": 0.0, "gamma": 0.0, "contrast": 0.0}
    if representation in _LENET:
        kind, smoothing = _LENET[representation]
        network = LeNetClassifier(representation=kind, smoothing=smoothing, **options)
        inputs = [filled(sample.counts, region) for sample in samples]
    else:
        network = SignalNetwork(**options)
        inputs = [signals(sample.counts, region, representation) for sample in samples]
    network.fit(inputs[0], samples[0].sick, groups=samples[0].patients)
    return [probability(network, X) for X in inputs[1:]]


def figures(
    val: Sample, val_scores: NDArray[np.float64], test: Sample, test_scores: NDArray[np.float64]
) -> dict[str, Any]:
    """Return what is reported of a fitted classifier, ready for JSON.

    The threshold is the highest that reaches 95 % sensitivity on the validation part; sensitivity and specificity
    are those of the test part under it. The AUC's interval keeps the images of a patient together.
    """
    area = auc(test_scores, test.sick, patient_ids=test.patients)
    threshold = specificity_at_sensitivity(val_scores, val.sick, sensitivity=0.95, draws=100).threshold
    called = test_scores >= threshold
    return {
        "auc": area.value,
        "auc_low": area.low,
        "auc_high": area.high,
        "val_auc": auc(val_scores, val.sick, patient_ids=val.patients).value,
        "accuracy": float(((test_scores >= 0.5) == test.sick).mean()),
        "threshold": threshold,
        "sensitivity": float(called[test.sick].mean()),
        "specificity": float((~called[~test.sick]).mean()),
    }
