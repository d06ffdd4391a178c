"""Which histograms, written down how, for which classifier? How many radiographs does it take, and what breaks it?

    python benchmarks/histogram_study.py --data DATA --json study.json --markdown study.md --plots PLOTS

Four parts on one split by patients (the data's own), fitted on ``train``, thresholds on ``val``, figures on ``test``:

- ``grid``: regions x representations x classifiers (:mod:`histogram_study_regions`,
  :mod:`histogram_study_models`), with plain settings that were fixed beforehand and are the same in every cell;
- ``learning``: the AUC over the number of training images, in nested subsets of whole patients;
- ``robustness``: histcxr's own XGBoost and SVM, trained on radiographs as they are, tested on altered ones
  (:mod:`histogram_study_robustness`);
- ``rivals``, only with ``--rivals``: aeon's classifiers of series (:mod:`histogram_study_rivals`).

Each result is in the JSON file as soon as it is known, and a second run with the same file goes on where the first was
stopped. ``--only 'grid/zones/*'`` takes a part of the keys ``grid/REGION/REPRESENTATION/CLASSIFIER``,
``learning/REGION/CLASSIFIER/IMAGES/REPEAT``, ``robustness/REGION/CLASSIFIER/ALTERATION`` and
``rivals/REGION/REPRESENTATION/NAME``. Plots take matplotlib (``pip install matplotlib``), the LeNet
``histcxr[neural]``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import histogram_study_models as models
import histogram_study_regions as regions
import histogram_study_report as report
import histogram_study_robustness as robustness
import numpy as np
import pandas as pd
from histogram_study_models import Effort
from histogram_study_regions import Region, Sample
from histogram_study_results import Results, describe

from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.models.registry import make_classifier
from histcxr.networks.backend import import_neural
from histcxr.study.cohort import Reading, read_cohort, split_cohort

LEARNING_REGIONS = ("zones", "whole")
LEARNERS = ("xgboost", "svm", "lenet", report.AUGMENTED)
SIZES = (500, 1000, 2000, 3500)
REPEATS = 3
ROBUST_REGIONS = {"zones": Region(6), "zones+bands": Region(6, bands=True)}
ROBUST_CLASSIFIERS = ("xgboost", "svm")
RIVALS = ("multirocket-hydra", "inception-time")
RIVALS_SCRIPT = Path(__file__).with_name("histogram_study_rivals.py")
_REPRESENTATION = "sqrt"  # of learning curves and rivals


@dataclass(frozen=True)
class Study:
    """What every part works on.

    Attributes
    ----------
    train, val, test : Sample
        Counts of :data:`histogram_study_regions.RECIPE`.
    table : DataFrame
        The test part's rows of the manifest.
    """

    train: Sample
    val: Sample
    test: Sample
    table: pd.DataFrame
    effort: Effort
    seed: int
    n_jobs: int

    def region(self, region: Region) -> tuple[Sample, Sample, Sample]:
        """Return train, val and test with the counts of one region."""
        return self.train.region(region), self.val.region(region), self.test.region(region)


def plan(n_train: int, rivals: bool) -> list[str]:
    """Return the keys of everything there is to do, in order."""
    sizes = [size for size in SIZES if size < n_train] + [n_train]
    keys = [
        f"grid/{region}/{representation}/{classifier}"
        for region in regions.REGIONS
        for representation in regions.REPRESENTATIONS
        for classifier in models.CLASSIFIERS
    ]
    keys += [
        f"learning/{region}/{learner}/{size}/{repeat}"
        for region in LEARNING_REGIONS
        for learner in LEARNERS
        for size in sizes
        for repeat in range(1 if size == n_train else REPEATS)
    ]
    keys += [
        f"robustness/{region}/{classifier}/{alteration}"
        for alteration in robustness.ALTERATIONS
        for region in ROBUST_REGIONS
        for classifier in ROBUST_CLASSIFIERS
    ]
    if rivals:
        keys += [
            f"rivals/{region}/{_REPRESENTATION}/{name}" for region in LEARNING_REGIONS for name in RIVALS
        ]
    return keys


def chosen(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Keep the keys that match one of the patterns; none: all.

    Raises
    ------
    InputError
        When a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise InputError(
                f"--only must match keys such as {keys[0]!r}; {pattern!r} matches none of {len(keys)}"
            )
    return [key for key in keys if not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)]


def run_grid(study: Study, keys: Iterable[str], results: Results) -> None:
    """Fill cells; the classical ones of a region and representation share their features and members."""
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for key in keys:
        _, name, representation, classifier = key.split("/")
        groups.setdefault((name, representation, classifier == "lenet"), []).append(classifier)
    for (name, representation, _), classifiers in groups.items():
        region = regions.REGIONS[name]
        train, val, test = study.region(region)
        scores = models.fit_scores(
            classifiers, region, representation, train, [val, test],
            effort=study.effort, seed=study.seed, n_jobs=study.n_jobs,
        )  # fmt: skip
        found = {
            f"grid/{name}/{representation}/{classifier}": models.figures(val, on_val, test, on_test)
            for classifier, (on_val, on_test) in scores.items()
        }
        results.add(found)


def run_learning(study: Study, keys: Iterable[str], results: Results) -> None:
    """Fit on subsets of the training part."""
    for key in keys:
        _, name, learner, size, repeat = key.split("/")
        region = regions.REGIONS[name]
        train, val, test = study.region(region)
        seed = study.seed + int(repeat)
        [rows] = regions.nested_subsets(train.patients, [int(size)], seed)
        augment = learner == report.AUGMENTED
        classifier = "lenet" if augment else learner
        scores = models.fit_scores(
            [classifier], region, _REPRESENTATION, train.take(rows), [val, test],
            effort=study.effort, seed=seed, n_jobs=study.n_jobs, augment=augment,
        )  # fmt: skip
        results.add(
            {
                key: {
                    "images": len(rows),
                    **models.figures(val, scores[classifier][0], test, scores[classifier][1]),
                }
            }
        )


def run_robustness(study: Study, keys: Sequence[str], results: Results) -> None:
    """Train histcxr's own classifiers once, then alter the test images and score them."""
    wanted = [key.split("/")[1:] for key in keys]
    trained = {}
    for name, classifier in dict.fromkeys((where, what) for where, what, _ in wanted):
        region = ROBUST_REGIONS[name]
        train, val, test = study.region(region)
        model = make_classifier(
            classifier, zones=region.zones, bands=region.recipe.bands,
            random_state=study.seed, n_jobs=study.n_jobs,
        )  # fmt: skip
        model.fit(train.counts, train.sick, classifier__groups=train.patients)
        clean = models.probability(model, test.counts)
        threshold = models.figures(val, models.probability(model, val.counts), test, clean)["threshold"]
        trained[name, classifier] = (model, clean, threshold)
    for alteration in dict.fromkeys(alteration for _, _, alteration in wanted):
        counts, usable = robustness.altered_counts(
            study.table, robustness.ALTERATIONS[alteration], regions.RECIPE, n_jobs=study.n_jobs
        )
        test = Sample(counts, study.test.sick, study.test.patients).take(usable)
        for name, classifier, of in wanted:
            if of != alteration:
                continue
            model, clean, threshold = trained[name, classifier]
            altered = models.probability(model, test.region(ROBUST_REGIONS[name]).counts)
            found = robustness.losses(clean[usable], altered, test.sick, test.patients, threshold)
            found["refused"] = int((~usable).sum())
            results.add({f"robustness/{name}/{classifier}/{alteration}": found})


def run_rivals(study: Study, keys: Iterable[str], results: Results, python: str) -> None:
    """Have another interpreter fit aeon's classifiers.

    Raises
    ------
    MissingDependencyError
        When it cannot, with what it said.
    """
    for key in keys:
        _, name, representation, rival = key.split("/")
        region = regions.REGIONS[name]
        train, val, test = study.region(region)
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "signals.npz"), Path(folder, "scores.npz")
            arrays: dict[str, Any] = {
                label: regions.signals(part.counts, region, representation)
                for label, part in {"train": train, "other0": val, "other1": test}.items()
            }
            np.savez(given, sick=train.sick, **arrays)
            command = [python, str(RIVALS_SCRIPT), rival, str(given), str(made), "--seed", str(study.seed)]
            command += ["--quick"] if study.effort == models.QUICK else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MissingDependencyError(done.stderr.strip() or f"{rival} failed without a word")
            with np.load(made) as scores:
                results.add({key: models.figures(val, scores["other0"], test, scores["other1"])})


def without_lenet(keys: Iterable[str]) -> list[str]:
    """Leave out what needs the neural extra."""
    return [key for key in keys if "lenet" not in key]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder or CSV with labels, masks and patients")
    parser.add_argument(
        "--json", required=True, type=Path, metavar="FILE", help="results; resumed when it is there"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write tables there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write PNG files there")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="repeatable; see above"
    )
    parser.add_argument("--quick", action="store_true", help="little effort, to try the benchmark out")
    parser.add_argument("--rivals", nargs="?", const=sys.executable, metavar="PYTHON",
                        help="also aeon's classifiers, run by that interpreter (default: this one)")  # fmt: skip
    parser.add_argument("--cache", help="folder that keeps the counts of images")
    parser.add_argument("--jobs", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (InputError, MissingDependencyError) as error:
        parser.error(str(error))


def run(options: argparse.Namespace) -> None:
    """Do what is still to be done, then write the report from everything that is known."""
    if options.plots:
        report.import_matplotlib()  # before the work, not after it
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, options.jobs)))
    effort = models.QUICK if options.quick else models.FULL
    cohort = read_cohort(options.data, regions.RECIPE, Reading(cache=options.cache, n_jobs=options.jobs))
    parts, _ = split_cohort(cohort, seed=options.seed)
    for name, part in parts.items():
        part.require_both_classes(f"the {name} part of {options.data}", "Normal")
    results = Results(options.json, describe(options.data, parts, effort, options.seed))
    train, val, test = (Sample.of(parts[name]) for name in ("train", "val", "test"))
    study = Study(train, val, test, parts["test"].table, effort, options.seed, options.jobs)
    del cohort, parts

    keys = chosen(plan(len(study.train.sick), options.rivals is not None), options.only)
    missing = [key for key in keys if key not in results.records]
    if any("lenet" in key for key in missing):
        try:
            import_neural("keras", "for the LeNet's cells")
        except MissingDependencyError as error:
            print(f"the LeNet's cells stay empty: {error}", file=sys.stderr)
            missing = without_lenet(missing)
    steps: dict[str, Callable[[list[str]], None]] = {
        "grid": lambda part: run_grid(study, part, results),
        "learning": lambda part: run_learning(study, part, results),
        "robustness": lambda part: run_robustness(study, part, results),
        "rivals": lambda part: run_rivals(study, part, results, str(options.rivals)),
    }
    for section, step in steps.items():
        todo = [key for key in missing if key.startswith(f"{section}/")]
        if todo:
            step(todo)
    if options.markdown:
        options.markdown.write_text(report.markdown(results.study, results.records), encoding="utf-8")
    if options.plots:
        report.write_plots(results.records, options.plots)


if __name__ == "__main__":
    main()
