"""The rows of five reports again, on the data that are here: their published figure beside ours.

    python -m benchmarks.quality.reproduce_reports --data CHEST_XRAY --data RADIOGRAPHY -o rows --rows 'cnn*'

Each finished row is one JSON file in the output folder and is not run again; a row that was broken off starts anew.
With `--minutes` no row is started that will not fit: its time is estimated from a few steps of training. Rows without
data or weights are listed with the reason; weights are looked for in the folder that HISTCXR_WEIGHTS names. With
`--cache` the next row of the same backbone begins where its frozen layers end. Networks stop by the validation part of
the data (a fifth of the training patients where the data name none); the published test part is kept. `--epochs` and
`--size` bound what a row may cost and are said in the table. Our splits keep patients together, which the reports' did
not; the learning rate falls along a cosine, of which the reports say nothing; unfrozen backbones are trained in two
stages.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run, write_json
from benchmarks.quality.reference_rows import FOUR_CLASS, PAEDIATRIC, ROWS, Row
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrError, InputError, MissingDependencyError
from histcxr.reference.architectures import HeadOptions, build_architecture, find_architecture
from histcxr.reference.heads import frozen_features
from histcxr.reports.tables import markdown_table
from histcxr.study.cohort import Reading, select_rows
from histcxr.study.network_train import ReferenceSettings, train_reference
from histcxr.study.train import train

# Batches of the probe that tells what an epoch takes; the first epoch is not counted.
PROBE_BATCHES = 4
# What a row takes beside its epochs: reading, judging, building.
SLACK = 1.3


class NotRunError(Exception):
    """A row cannot be run here; the message says why."""


def kind_of(manifest: pd.DataFrame) -> str:
    """Tell which of the reports' data these are, by their labels."""
    labels = {label.strip().casefold() for label in manifest["label"].astype(str)}
    if labels == {"normal", "pneumonia"}:
        return PAEDIATRIC
    if len(labels) >= 3 and "normal" in labels:
        return FOUR_CLASS
    raise InputError(
        f"data must be labelled normal and pneumonia, or normal and several diseases; got {sorted(labels)}"
    )


def settings_of(row: Row, *, epochs: int | None, size: int | None) -> ReferenceSettings:
    """Return how a row is trained, within the bounds asked for."""
    values = dict(row.settings)
    if values.get("head"):
        values["head"] = HeadOptions(**values["head"])
    settings = ReferenceSettings(**values)
    architecture = find_architecture(settings.architecture)
    if epochs is not None:
        settings = replace(settings, epochs=min(epochs, settings.epochs or architecture.epochs))
    if size is not None:
        settings = replace(settings, size=min(size, settings.size or architecture.size))
    return settings


def estimate_seconds(settings: ReferenceSettings, images: int) -> float:
    """Return about how long training takes at most, from a few steps on noise.

    Raises
    ------
    NotRunError
        When the weights that it starts from are not here.
    """
    architecture = find_architecture(settings.architecture)
    try:
        build_architecture(settings.architecture, size=settings.inputs().size, weights=settings.weights)
    except InputError as error:
        raise NotRunError(str(error)) from error
    classifier = settings.classifier(0).set_params(epochs=2, validation_fraction=0.0)
    stages = 1
    if classifier.weights is not None and classifier.unfrozen != 0:
        stages = 2
    batch = settings.batch_size or architecture.batch_size
    count, side = PROBE_BATCHES * batch, settings.inputs().size
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    classifier.fit(noise, np.arange(count) % 2)
    seconds = classifier.history_["seconds"]
    # The last stage is the dearer one, and stands for both.
    epochs = settings.epochs or architecture.epochs
    return SLACK * images / count * (stages * epochs * min(seconds[-2:]) + frozen_seconds(settings, noise))


def frozen_seconds(settings: ReferenceSettings, noise: NDArray[np.uint8]) -> float:
    """Return how long the frozen layers of a backbone take, once for each stage, as if all of it were frozen."""
    if not find_architecture(settings.architecture).transfer:
        return 0.0
    started = time.perf_counter()
    frozen_features(settings.classifier(0), noise)
    return time.perf_counter() - started


def why_not(row: Row, manifests: Mapping[str, pd.DataFrame]) -> str | None:
    """Say why a row cannot be run on the data that are here; None where it can."""
    if row.data not in manifests:
        return f"no {row.data} data given"
    manifest = manifests[row.data]
    region = row.settings.get("region", "lungs")
    if region != "lungs" and "lungs_only" in manifest:
        said = manifest["lungs_only"].astype(str).str.casefold().isin(("true", "1"))
        if said.any():
            return f"the data hold lungs only, the row wants {region}"
    missing = set(row.labels or ()) - set(manifest["label"])
    return f"the data have no {', '.join(sorted(missing))}" if missing else None


def run_network(
    row: Row, manifest: pd.DataFrame, settings: ReferenceSettings, reading: Reading
) -> dict[str, Any]:
    """Train a row's network; return its report."""
    return train_reference(_rows_of(row, manifest), settings, reading=reading).report


def run_histogram(row: Row, classifier: str, manifest: pd.DataFrame, jobs: int) -> dict[str, Any]:
    """Train a classifier of one histogram of both lungs; return its figures."""
    report = train(_rows_of(row, manifest), classifiers=classifier, zones=1, trials=0, n_jobs=jobs).report[
        "classifiers"
    ][classifier]
    return {"test": report["test"], "fit_seconds": report["fit_seconds"]}


def our_figures(report: Mapping[str, Any], part: str) -> dict[str, float]:
    """Return our figures under the names that published ones have.

    Of two classes at a score of 0.5: ``accuracy, loss, sensitivity, specificity, precision, weighted_precision, tp,
    tn``; of more ``accuracy, balanced_accuracy, macro_f1, loss``.
    """
    figures = report[part].get("classes")
    if figures is None:  # a classifier of histograms
        counts, found = report["test"]["confusion"], {"accuracy": report["test"]["accuracy"]}
    else:
        found = {name: figures[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss")}
        if len(figures["names"]) > 2:
            return found
        (tn, fp), (fn, tp) = figures["matrix"]
        counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
        weights = [one["images"] for one in figures["classes"]]
        values = [one["precision"] for one in figures["classes"]]
        found["weighted_precision"] = float(np.average(values, weights=weights))
    tp, fp, fn, tn = (counts[name] for name in ("tp", "fp", "fn", "tn"))
    return found | {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / max(1, tp + fp),
        "tp": tp,
        "tn": tn,
    }


def table_row(row: Row, result: Mapping[str, Any] | None, reason: str | None) -> dict[str, object]:
    """Return a row of the table: published beside ours."""
    cells: dict[str, object] = {
        "row": row.name,
        "report": row.report,
        "setting": row.setting,
        "published": _figures_text(row.published),
        "ours": f"not run: {reason}" if result is None else "",
        "our test accuracy": "",
        "images, size, epochs": "",
        "minutes": "",
        "note": row.note,
    }
    if result is None:
        return cells
    report = result["report"]
    ours = our_figures(report, row.part)
    names = row.published or [name for name in ("balanced_accuracy", "accuracy") if name in ours][:1]
    cells["ours"] = _figures_text({name: ours[name] for name in names})
    test = our_figures(report, "test")
    cells["our test accuracy"] = f"{test['accuracy']:.3f}"
    cells["minutes"] = f"{report['fit_seconds'] / 60:.1f}"
    if "epochs" in report:
        learnt = sum(report["learnt_from"].values())
        cells["images, size, epochs"] = f"{learnt}, {report['inputs']['size']} px, {report['epochs']}"
    return cells


def _figures_text(figures: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, int) else f'{value:.3f}'}"
        for name, value in figures.items()
    )


def _rows_of(row: Row, manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest if row.labels is None else select_rows(manifest, {"label": list(row.labels)})


def _finished(file: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a row that is done with the same settings."""
    if not file.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return result if result.get("asked") == json.loads(json.dumps(asked)) else None


def run_row(
    row: Row, manifest: pd.DataFrame, options: argparse.Namespace, left: float | None
) -> dict[str, Any]:
    """Run one row.

    Raises
    ------
    NotRunError
        When something that it takes is not here, or it will not fit into the ``left`` seconds.
    """
    started = time.monotonic()
    try:
        if row.histogram is not None:
            return run_histogram(row, row.histogram, manifest, options.jobs)
        settings = settings_of(row, epochs=options.epochs, size=options.size)
        train_rows = _rows_of(row, manifest)
        images = int((train_rows["split"] != "test").sum())
        if settings.undersample is True:
            images = int(train_rows["label"].value_counts().min()) * train_rows["label"].nunique()
        elif settings.undersample:
            images = int(settings.undersample) * train_rows["label"].nunique()
        estimate = estimate_seconds(settings, images)
        if left is not None and estimate > left - (time.monotonic() - started):
            raise NotRunError(f"takes up to {estimate / 60:.1f} minutes, {max(0.0, left) / 60:.1f} were left")
        return run_network(row, manifest, settings, Reading(cache=options.cache, n_jobs=options.jobs))
    except (InputError, MissingDependencyError) as error:
        raise NotRunError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows that are not done and print the table of all that were asked for."""
    parser = make_parser(__doc__, data="folder or CSV; repeatable", many=True, seed=False)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of finished rows")
    parser.add_argument("--rows", action="append", help="names, * and ? allowed; repeatable; default: all")
    parser.add_argument("--cache", help="folder that keeps what frozen layers make of the images")
    parser.add_argument("--minutes", type=float, help="start no row that will not fit")
    parser.add_argument("--epochs", type=int, help="at most, for every row")
    parser.add_argument("--size", type=int, help="side of the images at most, for every row")
    options = parser.parse_args(arguments)
    end = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    patterns = options.rows or ["*"]
    chosen = [row for row in ROWS.values() if any(fnmatchcase(row.name, p) for p in patterns)]
    if not chosen:
        parser.error(f"no row is named {' or '.join(patterns)}; there are {', '.join(ROWS)}")
    manifests: dict[str, pd.DataFrame] = {}
    for path in options.data:
        manifest = read_manifest(path, require_labels=True)
        manifests[kind_of(manifest)] = manifest
    options.output.mkdir(parents=True, exist_ok=True)
    table, found = [], {}
    for row in chosen:
        file = options.output / f"{row.name}.json"
        asked = {"row": row.to_dict(), "epochs": options.epochs, "size": options.size}
        result, reason = _finished(file, asked), why_not(row, manifests)
        if result is None and reason is None:
            left = None if end is None else end - time.monotonic()
            try:
                if left is not None and left <= 0:
                    raise NotRunError("no time was left")
                report = run_row(row, manifests[row.data], options, left)
                result = {"asked": asked, "report": report}
                write_json(result, file)
            except NotRunError as error:
                reason = str(error)
            except HistcxrError as error:
                reason = f"failed: {error}"
        table.append(table_row(row, result, reason))
        found[row.name] = {"result": result, "reason": reason}
    publish(markdown_table(table), found, options.json)


if __name__ == "__main__":
    run(main)
