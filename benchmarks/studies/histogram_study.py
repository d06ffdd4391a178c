"""Which histograms, written down how, for which classifier?

    python -m benchmarks.studies.histogram_study --data DATA --json study.json > tables.md

Regions x representations x classifiers on one split by patients (the data's own), fitted on ``train``, thresholds on
``val``, figures on ``test``. Each classifier has one set of plain settings for all regions and representations, fixed
beforehand, so that a cell tells what region and representation are worth and not how long somebody searched.

``--only 'zones/*'`` takes a part of the keys ``REGION/REPRESENTATION/CLASSIFIER``. The LeNet takes the extra
``neural``; without it its cells stay empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import combinations, product
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from benchmarks.common import make_parser, publish, run
from histcxr.decision.auc import auc
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features import curves
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.out_of_fold import StackedClassifier
from histcxr.networks.backend import import_neural
from histcxr.reports.tables import interval_text, markdown_table
from histcxr.study.cohort import Reading, read_cohort, split_cohort

CELL = ("region", "representation", "classifier")

#: What is counted once; every region is a slice of it.
RECIPE = Recipe("1+6", "travel")
SIGMA = 2.0  # bins; the window of "smoothed"
REPRESENTATIONS = ("raw", "density", "cumulative", "sqrt", "smoothed", "quantile")
MEMBERS = ("knn", "svm", "random-forest", "xgboost")
CLASSIFIERS = (*MEMBERS, "lenet", "stack")
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
    samples: Sequence[Sample],
    effort: Effort,
    seed: int,
    n_jobs: int,
) -> dict[str, list[NDArray[np.float64]]]:
    """Fit classifiers on the first sample of the region's counts; return their scores of each of the others.

    The stack fits its members on everything anyway, so where it is wanted they are taken from it.
    """
    train = samples[0]
    scores = {}
    if "lenet" in classifiers:
        scores["lenet"] = _lenet_scores(region, representation, samples, effort, seed)
    classical = [name for name in classifiers if name != "lenet"]
    if classical:
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
    region: Region, representation: str, samples: Sequence[Sample], effort: Effort, seed: int
) -> list[NDArray[np.float64]]:
    """Fit the LeNet without augmentation, which only means something for densities of intensities."""
    options: dict[str, Any] = {
        "epochs": effort.epochs,
        "patience": effort.patience,
        "random_state": seed,
        "validation_fraction": 0.2,
        **dict.fromkeys(("shift", "gamma", "contrast"), 0.0),
    }
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


def chosen(patterns: Sequence[str]) -> list[str]:
    """Return the keys that match one of the patterns, each of which must match one; no pattern: all."""
    keys = ["/".join(cell) for cell in product(REGIONS, REPRESENTATIONS, CLASSIFIERS)]
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise InputError(
                f"--only must match keys such as {keys[0]!r}; {pattern!r} matches none of {len(keys)}"
            )
    return [key for key in keys if not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)]


def fill(
    keys: Sequence[str], samples: Sequence[Sample], effort: Effort, seed: int, n_jobs: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fill cells from train, val and test; the classical ones of a region and representation share their features."""
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for key in keys:
        name, representation, classifier = key.split("/")
        groups.setdefault((name, representation, classifier == "lenet"), []).append(classifier)
    for (name, representation, _), classifiers in groups.items():
        region = REGIONS[name]
        parts = [sample.region(region) for sample in samples]
        found = fit_scores(classifiers, region, representation, parts, effort, seed, n_jobs)
        for classifier, (on_val, on_test) in found.items():
            yield f"{name}/{representation}/{classifier}", figures(parts[1], on_val, parts[2], on_test)


def read_samples(data: str, cache: str | None, seed: int, n_jobs: int) -> dict[str, Sample]:
    """Count the radiographs by the whole recipe, and split them: train, val and test."""
    cohort = read_cohort(data, RECIPE, Reading(cache=cache, n_jobs=n_jobs))
    samples = {}
    for name, part in split_cohort(cohort, seed=seed)[0].items():
        part.require_both_classes(f"the {name} part of {data}")
        samples[name] = Sample(part.values.astype(np.int32), part.sick, part.patients)
    return samples


def markdown(records: dict[str, dict[str, Any]]) -> str:
    """Lay out the cells, key to figures."""
    found = pd.DataFrame(
        [{**dict(zip(CELL, key.split("/"), strict=True)), **record} for key, record in records.items()]
    )
    return "\n\n".join(
        [
            "## Regions, representations, classifiers",
            *_grid(found),
            "## What each choice is worth",
            *_means(found),
            "## Chosen on the validation part",
            *_chosen(found),
        ]
    )


def _grid(found: pd.DataFrame) -> list[str]:
    widths = (found["auc_high"] - found["auc_low"]) / 2
    parts = [
        f"Test AUC. Half-width of the intervals: {median(widths):.3f} (median), {max(widths):.3f} (largest)."
    ]
    for region, own in found.groupby("region", sort=False):
        rows = [
            {"representation": name, **dict(zip(cells["classifier"], cells["auc"], strict=True))}
            for name, cells in own.groupby("representation", sort=False)
        ]
        parts += [f"### {region}", markdown_table(rows)]
    return parts


def _means(found: pd.DataFrame) -> list[str]:
    """Mean AUC by region, representation and classifier, over the cells that all values of the axis share."""
    parts = []
    for others in reversed(list(combinations(CELL, 2))):
        [axis] = set(CELL) - set(others)
        shared = found.pivot(index=others, columns=axis, values="auc").dropna()
        if len(shared):
            rows = [{axis: value, "mean AUC": float(shared[value].mean())} for value in found[axis].unique()]
            parts += [markdown_table(rows), f"Over {len(shared)} cells each."]
    return parts


def _chosen(found: pd.DataFrame) -> list[str]:
    best = found.loc[found.groupby("classifier", sort=False)["val_auc"].idxmax()]
    rows = [
        {
            **{name: getattr(row, name) for name in ("classifier", "region", "representation")},
            "AUC on val": row.val_auc,
            "AUC on test": interval_text(row.auc, row.auc_low, row.auc_high),
            **{name: getattr(row, name) for name in ("accuracy", "sensitivity", "specificity")},
        }
        for row in best.itertuples()
    ]
    return ["For each classifier the cell with the highest AUC on val.", markdown_table(rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV with labels, masks and patients", jobs=1)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="repeatable")
    parser.add_argument("--quick", action="store_true", help="little effort, to try the benchmark out")
    parser.add_argument("--cache", help="folder that keeps the counts of images")
    options = parser.parse_args(arguments)
    effort, keys = QUICK if options.quick else FULL, chosen(options.only)
    if any("lenet" in key for key in keys):
        try:
            import_neural("keras", "for the LeNet's cells")
        except MissingDependencyError as error:
            print(f"the LeNet's cells stay empty: {error}", file=sys.stderr)
            keys = [key for key in keys if "lenet" not in key]
    samples = read_samples(options.data, options.cache, options.seed, options.jobs)
    records = {}
    for key, record in fill(keys, list(samples.values()), effort, options.seed, options.jobs):
        records[key] = record
        print(f"{key}: {record['auc']:.4f}", file=sys.stderr, flush=True)
    data = {name: {"images": len(one.sick), "sick": int(one.sick.sum())} for name, one in samples.items()}
    content = {"data": data, "effort": asdict(effort), "seed": options.seed, "results": records}
    publish(markdown(records), content, options.json)


if __name__ == "__main__":
    run(main)
