"""Which histograms, written down how, for which classifier? How many radiographs does it take, and what breaks it?

    python -m benchmarks.studies.histogram_study --data DATA --json study.json > tables.md

Four parts on one split by patients (the data's own), fitted on ``train``, thresholds on ``val``, figures on ``test``:

- ``grid``: regions x representations x classifiers, with settings fixed beforehand (histogram_study_cells.py);
- ``learning``: the AUC over the number of training images, in nested subsets of whole patients;
- ``robustness``: histcxr's own XGBoost and SVM, trained on radiographs as they are, tested on altered ones;
- ``rivals``, only with ``--rivals``: aeon's MultiRocket-Hydra (histogram_study_rivals.py).

``--only 'grid/zones/*'`` takes a part of the keys ``grid/REGION/REPRESENTATION/CLASSIFIER``,
``learning/REGION/CLASSIFIER/IMAGES/REPEAT``, ``robustness/REGION/CLASSIFIER/ALTERATION`` and
``rivals/REGION/REPRESENTATION/NAME``. The LeNet takes the extra ``neural``; without it its cells stay empty.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from benchmarks.studies import histogram_study_cells as cells
from benchmarks.studies import histogram_study_report as report
from benchmarks.studies.altered import ALTERATIONS, count_altered
from benchmarks.studies.histogram_study_cells import Effort, Sample
from histcxr.decision.auc import compare_auc
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.models.registry import make_classifier
from histcxr.networks.backend import import_neural
from histcxr.study.cohort import Reading, read_cohort, split_cohort

GRID_REGIONS = ("whole", "lungs", "zones", "whole+zones", "whole+zones+bands")
LEARNING_REGIONS, LEARNERS = ("zones", "whole"), ("xgboost", "svm", "lenet", cells.AUGMENTED)
SIZES, REPEATS = (500, 1000, 2000, 3500), 3
ROBUST_REGIONS, ROBUST_CLASSIFIERS = ("zones", "zones+bands"), ("xgboost", "svm")
RIVAL = "multirocket-hydra"
RIVALS_SCRIPT = Path(__file__).with_name("histogram_study_rivals.py")
_REPRESENTATION = "sqrt"  # of learning curves and rivals


@dataclass(frozen=True)
class Study:
    """What every part works on: samples with the counts of the whole recipe, and the test part's manifest."""

    train: Sample
    val: Sample
    test: Sample
    table: pd.DataFrame
    effort: Effort
    seed: int
    n_jobs: int

    def region(self, name: str) -> tuple[Sample, Sample, Sample]:
        """Return train, val and test with the counts of one region."""
        region = cells.REGIONS[name]
        return self.train.region(region), self.val.region(region), self.test.region(region)


Records = Iterator[tuple[str, dict[str, Any]]]


def plan(n_train: int, rivals: bool) -> list[str]:
    """Return the keys of everything there is to do, in order."""
    sizes = [size for size in SIZES if size < n_train] + [n_train]
    keys = [
        f"grid/{'/'.join(cell)}" for cell in product(GRID_REGIONS, cells.REPRESENTATIONS, cells.CLASSIFIERS)
    ]
    for region, learner, size in product(LEARNING_REGIONS, LEARNERS, sizes):
        repeats = 1 if size == n_train else REPEATS
        keys += [f"learning/{region}/{learner}/{size}/{repeat}" for repeat in range(repeats)]
    robust = product(ALTERATIONS, ROBUST_REGIONS, ROBUST_CLASSIFIERS)
    keys += [f"robustness/{region}/{classifier}/{alteration}" for alteration, region, classifier in robust]
    if rivals:
        keys += [f"rivals/{region}/{_REPRESENTATION}/{RIVAL}" for region in LEARNING_REGIONS]
    return keys


def chosen(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Keep the keys that match one of the patterns, each of which must match one; no pattern: all."""
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise InputError(
                f"--only must match keys such as {keys[0]!r}; {pattern!r} matches none of {len(keys)}"
            )
    return [key for key in keys if not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)]


def nested_subset(patients: NDArray[np.object_], size: int, seed: int) -> NDArray[np.intp]:
    """Draw rows of whole patients, at least ``size`` images; a larger size holds the smaller ones of its seed."""
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[codes]
    order = np.argsort(place, kind="stable")
    last_of_patient = np.flatnonzero(np.diff(place[order], append=-1))
    end = last_of_patient[np.searchsorted(last_of_patient, size - 1)]
    return np.sort(order[: end + 1])


def run_grid(study: Study, keys: Sequence[str]) -> Records:
    """Fill cells; the classical ones of a region and representation share their features and members."""
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for key in keys:
        _, name, representation, classifier = key.split("/")
        groups.setdefault((name, representation, classifier == "lenet"), []).append(classifier)
    for (name, representation, _), classifiers in groups.items():
        train, val, test = study.region(name)
        how = (
            cells.REGIONS[name],
            representation,
            train,
            (val, test),
            study.effort,
            study.seed,
            study.n_jobs,
        )
        for classifier, (on_val, on_test) in cells.fit_scores(classifiers, *how).items():
            yield f"grid/{name}/{representation}/{classifier}", cells.figures(val, on_val, test, on_test)


def run_learning(study: Study, keys: Sequence[str]) -> Records:
    """Fit on subsets of the training part."""
    for key in keys:
        _, name, learner, size, repeat = key.split("/")
        train, val, test = study.region(name)
        seed = study.seed + int(repeat)
        subset = train.take(nested_subset(train.patients, int(size), seed))
        how = (cells.REGIONS[name], _REPRESENTATION, subset, (val, test), study.effort, seed, study.n_jobs)
        on_val, on_test = cells.fit_scores([learner], *how)[learner]
        yield key, {"images": len(subset.sick), **cells.figures(val, on_val, test, on_test)}


def run_robustness(study: Study, keys: Sequence[str]) -> Records:
    """Train histcxr's own classifiers once, then alter the test images and score them."""
    wanted = [key.split("/")[1:] for key in keys]
    trained = {}
    for name, classifier in dict.fromkeys((where, what) for where, what, _ in wanted):
        region = cells.REGIONS[name]
        train, val, test = study.region(name)
        bands = cells.RECIPE.bands if region.bands else ()
        model = make_classifier(
            classifier, zones=region.zones, bands=bands, random_state=study.seed, n_jobs=study.n_jobs
        )
        model.fit(train.counts, train.sick, classifier__groups=train.patients)
        clean = cells.probability(model, test.counts)
        threshold = cells.figures(val, cells.probability(model, val.counts), test, clean)["threshold"]
        trained[name, classifier] = (model, clean, threshold)
    for alteration in dict.fromkeys(alteration for _, _, alteration in wanted):
        counts, reasons = count_altered(study.table, ALTERATIONS[alteration], cells.RECIPE, study.n_jobs)
        usable = np.array([not reason for reason in reasons])
        everything = Sample(counts.astype(np.int32), study.test.sick, study.test.patients).take(usable)
        for name, classifier in (pair[:2] for pair in wanted if pair[2] == alteration):
            model, clean, threshold = trained[name, classifier]
            test = everything.region(cells.REGIONS[name])
            found = losses(clean[usable], cells.probability(model, test.counts), test, threshold)
            yield f"robustness/{name}/{classifier}/{alteration}", found | {"refused": int((~usable).sum())}


def losses(
    clean: NDArray[np.float64], altered: NDArray[np.float64], test: Sample, threshold: float
) -> dict[str, Any]:
    """Compare the scores of altered images with those of the same images as they were.

    ``auc_lost`` has a paired interval that keeps patients together; ``lost_method`` says how it was made. Sensitivity
    and specificity are those of altered images at a threshold from clean ones.
    """
    compared = compare_auc(clean, altered, test.sick, patient_ids=test.patients)
    called = altered >= threshold
    return {
        "images": len(test.sick),
        "auc": compared.second,
        "auc_lost": compared.difference.value,
        "lost_low": compared.difference.low,
        "lost_high": compared.difference.high,
        "lost_method": compared.difference.method,
        "sensitivity": float(called[test.sick].mean()),
        "specificity": float((~called[~test.sick]).mean()),
    }


def run_rivals(study: Study, keys: Sequence[str], python: str) -> Records:
    """Have another interpreter fit aeon's classifier; MissingDependencyError says why it cannot."""
    for key in keys:
        name = key.split("/")[1]
        train, val, test = study.region(name)
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "signals.npz"), Path(folder, "scores.npz")
            arrays: dict[str, Any] = {
                label: cells.signals(part.counts, cells.REGIONS[name], _REPRESENTATION)
                for label, part in {"train": train, "val": val, "test": test}.items()
            }
            np.savez(given, sick=train.sick, **arrays)
            groups = 4 if study.effort == cells.QUICK else 64
            command = [python, RIVALS_SCRIPT, given, made, study.seed, groups]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            if done.returncode:
                raise MissingDependencyError(done.stderr.strip() or f"{RIVAL} failed without a word")
            with np.load(made) as scores:
                yield key, cells.figures(val, scores["val"], test, scores["test"])


def read_study(data: str, cache: str | None, effort: Effort, seed: int, n_jobs: int) -> Study:
    """Count the radiographs and split them."""
    cohort = read_cohort(data, cells.RECIPE, Reading(cache=cache, n_jobs=n_jobs))
    parts, _ = split_cohort(cohort, seed=seed)
    samples = []
    for name in ("train", "val", "test"):
        part = parts[name]
        part.require_both_classes(f"the {name} part of {data}")
        samples.append(Sample(part.values.astype(np.int32), part.sick, part.patients))
    return Study(*samples, parts["test"].table, effort, seed, n_jobs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV with labels, masks and patients", jobs=1)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="repeatable")
    parser.add_argument("--quick", action="store_true", help="little effort, to try the benchmark out")
    parser.add_argument(
        "--rivals",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help="run aeon by that interpreter, too",
    )
    parser.add_argument("--cache", help="folder that keeps the counts of images")
    options = parser.parse_args(arguments)
    effort = cells.QUICK if options.quick else cells.FULL
    study = read_study(options.data, options.cache, effort, options.seed, options.jobs)
    keys = chosen(plan(len(study.train.sick), options.rivals is not None), options.only)
    if any("lenet" in key for key in keys):
        try:
            import_neural("keras", "for the LeNet's cells")
        except MissingDependencyError as error:
            print(f"the LeNet's cells stay empty: {error}", file=sys.stderr)
            keys = [key for key in keys if "lenet" not in key]
    grid, learning, robustness, rivals = (
        [key for key in keys if key.startswith(part)]
        for part in ("grid/", "learning/", "robustness/", "rivals/")
    )
    records = {}
    for key, record in chain(
        run_grid(study, grid),
        run_learning(study, learning),
        run_robustness(study, robustness),
        run_rivals(study, rivals, str(options.rivals)),
    ):
        records[key] = record
        print(f"{key}: {record['auc']:.4f}", file=sys.stderr, flush=True)
    parts = {"train": study.train, "val": study.val, "test": study.test}
    data = {name: {"images": len(part.sick), "sick": int(part.sick.sum())} for name, part in parts.items()}
    content = {"data": data, "effort": asdict(effort), "seed": options.seed, "results": records}
    publish(report.markdown(records), content, options.json)


if __name__ == "__main__":
    run(main)
