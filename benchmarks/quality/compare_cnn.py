"""What does a network that sees the whole image add to histograms, and what does it cost? Same patients, paired.

    python -m benchmarks.quality.compare_cnn --data DATA --histogram MODEL.histcxr --reference NAME.histcxr

Both options are repeatable; differences in the table are from the first histogram model, all pairs are in the JSON.
Specificity is where the test images themselves reach the sensitivity, compared by a bootstrap over patients. All models
share one process and its threads and take turns; milliseconds are from decoded pixels with their mask to the score. A
DenseNet121 with random weights at 224 pixels is the yardstick of cost. Memory is that of a process that does nothing
else. `--training NAME.json` (repeatable) takes the JSON of `histcxr train` of NAME.histcxr, for what it took to train.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, publish, run
from benchmarks.quality import reference_costs, reference_pairs
from histcxr.data.manifest import read_manifest
from histcxr.reports.text import interval_text, markdown_table
from histcxr.store import Model, load_model
from histcxr.store.model import ReferenceModel
from histcxr.study.cohort import only_split

FEW = 64  # images for the peak of memory


def compare(
    data: str,
    histograms: Mapping[str, Model],
    references: Mapping[str, ReferenceModel],
    *,
    split: str | None = "test",
    sensitivity: float = 0.95,
    lungs: str = "given",
    normal: str = "Normal",
    draws: int = 2000,
    cache: str | None = None,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]], reference_pairs.Scores]:
    """Return each model's figures, all paired differences of networks and histogram models, and the scores."""
    manifest = only_split(read_manifest(data, require_labels=True), split)
    scores = reference_pairs.score_all(
        manifest, histograms, references, lungs=lungs, normal=normal, cache=cache
    )
    figures = {
        name: reference_pairs.figures(scores, name, sensitivity=sensitivity, draws=draws)
        for name in scores.by_model
    }
    first = next(iter(histograms))
    pairs = [(name, first) for name in histograms if name != first]
    pairs += [(network, name) for network in references for name in histograms]
    differences = [
        reference_pairs.paired_difference(scores, *pair, sensitivity=sensitivity, draws=draws)
        for pair in pairs
    ]
    return figures, differences, scores


def table_rows(
    figures: Mapping[str, Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, Any]],
    first: str,
    sensitivity: float,
) -> list[dict[str, object]]:
    """Return the table: one row a model, the yardstick last."""
    from_first = {one["model"]: one for one in differences if one["minus"] == first}
    rows = []
    for name, cost in costs.items():
        own, gap = figures.get(name), from_first.get(name)
        rows.append(
            {
                "model": name,
                "AUC": _text(own["auc"]) if own else "",
                f"specificity at {100 * sensitivity:g} %": _text(own["specificity"]) if own else "",
                "minus the first": _gap(gap["specificity"]["difference"]) if gap else "",
                "AUC minus the first": _gap(gap["auc"]["difference"]) if gap else "",
                "ms an image": f"{cost['decoded_ms']:.3g}",
                "times cheaper": f"{cost['times_cheaper']:.3g}",
                "images/s from file": f"{cost['file_per_second']:.4g}",
                "parameters": "" if cost["parameters"] is None else f"{cost['parameters']:,}",
                "MB on disk": "" if cost["bytes"] is None else f"{cost['bytes'] / 1e6:.2f}",
                "peak MiB": "" if cost["peak_bytes"] is None else f"{cost['peak_bytes'] / 2**20:.0f}",
                "training s": "" if cost["training_seconds"] is None else f"{cost['training_seconds']:.0f}",
            }
        )
    return rows


def _text(estimate: Mapping[str, float]) -> str:
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def _gap(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


def _folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def training_seconds(files: Sequence[Path]) -> dict[tuple[str, str], float]:
    """Return fit seconds by name of the file and classifier from the JSON files of ``histcxr train``."""
    seconds: dict[tuple[str, str], float] = {}
    for file in files:
        for name, about in json.loads(file.read_text(encoding="utf-8"))["classifiers"].items():
            seconds[file.stem, name] = float(about["fit_seconds"])
    return seconds


def _unique_names(paths: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in paths:
        name = path.stem if path.stem not in named else str(path)
        named[name] = path
    return named


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV with labels and masks", jobs=None, seed=False)
    parser.add_argument("--histogram", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--reference", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument("--training", type=Path, action="append", default=[], help="JSON of histcxr train")
    parser.add_argument("--split", default="test", help="part of the data; all for every row")
    parser.add_argument("--sensitivity", type=float, default=0.95)
    parser.add_argument("--lungs", choices=("given", "found", "either"), default="given")
    parser.add_argument("--normal", default="Normal")
    parser.add_argument("--cache", help="folder of extracted histograms")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a model's turn, about")
    parser.add_argument("--images", type=int, default=256, help="files that are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--yardstick", default=f"{reference_costs.YARDSTICK}@{reference_costs.YARDSTICK_SIZE}"
    )
    options = parser.parse_args(arguments)

    reference_costs.limit_threads(options.threads)
    histogram_paths, reference_paths = (
        _unique_names(paths) for paths in (options.histogram, options.reference)
    )
    histograms = {name: load_model(path) for name, path in histogram_paths.items()}
    references = {name: load_model(path) for name, path in reference_paths.items()}
    figures, differences, scores = compare(
        options.data,
        histograms,
        references,
        split=None if options.split == "all" else options.split,
        sensitivity=options.sensitivity,
        lungs=options.lungs,
        normal=options.normal,
        draws=options.draws,
        cache=options.cache,
    )
    with_masks = scores.table[scores.table["mask"].astype(str) != ""]
    if with_masks.empty:
        parser.error("costs are taken with given masks, and the data give none")
    sample = with_masks.sample(min(options.images, len(with_masks)), random_state=0)
    files = list(zip(sample["image"], sample["mask"], strict=True))
    stick_name, stick_size = options.yardstick.split("@")
    contenders = [
        *(reference_costs.contender(name, model) for name, model in histograms.items()),
        *(reference_costs.contender(name, model) for name, model in references.items()),
        reference_costs.yardstick(stick_name, int(stick_size)),
    ]
    times = reference_costs.take_times(contenders, files, rounds=options.rounds, seconds=options.seconds)
    took = training_seconds(options.training)
    costs: dict[str, dict[str, Any]] = {}
    for row in times:
        name = row["model"]
        about: dict[str, Any] = {"kind": "yardstick", "parameters": None, "bytes": None}
        about |= {"training_seconds": None}
        place = ("yardstick", options.yardstick)
        if name in histograms:
            about["kind"], about["bytes"] = "histogram", _folder_bytes(histogram_paths[name])
            about["training_seconds"] = took.get((name, histograms[name].name))
            place = ("histogram", str(histogram_paths[name]))
        elif name in references:
            training = references[name].training
            about["kind"], about["bytes"] = "reference", _folder_bytes(reference_paths[name])
            about["parameters"] = training.get("parameters")
            about["training_seconds"] = training.get("seconds")
            place = ("reference", str(reference_paths[name]))
        else:
            from histcxr.reference.architectures import ARCHITECTURES

            about["parameters"] = ARCHITECTURES[stick_name].parameters
        costs[name] = {**row, **about, "peak_bytes": reference_costs.peak_memory(*place, files[:FEW])}
    first = next(iter(histograms))
    text = [
        markdown_table(table_rows(figures, differences, costs, first, options.sensitivity)),
        f"\n{len(scores.sick)} images of {len(set(scores.patients))} patients, {int(scores.sick.sum())} sick. "
        f"Differences are from {first}. Times with {options.threads} thread(s) of one process, models taking turns, "
        f"{options.rounds} rounds; times cheaper than {times[-1]['model']}, decoded pixels to score.",
        *(f"Note: {note}." for note in scores.notes),
    ]
    rows = [
        {"model": name, **cost, **figures.get(name, {"auc": None, "specificity": None})}
        for name, cost in costs.items()
    ]
    content = {
        "sensitivity": options.sensitivity,
        "threads": options.threads,
        "models": rows,
        "differences": differences,
        "notes": scores.notes,
    }
    publish("\n".join(text), content, options.json)


if __name__ == "__main__":
    run(main)
