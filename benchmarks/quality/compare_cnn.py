"""What does a network that sees the whole image add to histograms, and what does it cost? Same patients, paired.

    python -m benchmarks.quality.compare_cnn --data DATA --histogram MODEL.histcxr --reference NAME.histcxr

Both options are repeatable and take saved models, so that it runs in minutes; differences are from the first histogram
model, all pairs are in the JSON. Where the data have a val part, a logistic regression weighs the logits of the first
histogram model and of each network on it: the rows FIRST + NAME. Specificity is where the test images themselves reach
the sensitivity, compared by a bootstrap over patients. `--elsewhere PATH [COLUMN=VALUE ...]` (repeatable) judges all
models on other data, too; `--where COLUMN=VALUE` keeps to some of DATA. All models share one process and its threads
and take turns; milliseconds are from decoded pixels with their mask to the score. A DenseNet121 with random weights at
224 pixels is the yardstick of cost. Memory is that of a process that does nothing else; energy is what the processor
counts, where it does. `--training NAME.json` (repeatable) takes the JSON of `histcxr train` of NAME.histcxr, for what
it took to train; `--picture FILE` draws specificity against cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from benchmarks.quality import reference_costs, reference_pairs
from histcxr.data.manifest import read_manifest
from histcxr.reports.drawing import (
    BLUE,
    GREEN,
    RED,
    check_picture,
    label_axes,
    legend_above,
    new_figure,
    save_figure,
)
from histcxr.reports.tables import interval_text, markdown_table
from histcxr.store import ReferenceModel, load_model
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import Reading, only_split, select_rows

FEW = 64  # images for the peak of memory
BOTH = " + "
KINDS = {"histogram": (BLUE, "o"), "reference": (RED, "s"), "both": (GREEN, "D")}


def rows_of(path: str, where: Sequence[str], split: str | None = None) -> Any:
    """Read a manifest, its rows whose columns have the values wanted (``COLUMN=VALUE``), and one part of it."""
    wanted: dict[str, list[str]] = {}
    for text in where:
        column, _, value = text.partition("=")
        wanted.setdefault(column, []).append(value)
    return only_split(select_rows(read_manifest(path, require_labels=True), wanted), split)


def stacks(models: Mapping[str, SavedModel], val: Any, reading: Reading) -> dict[str, tuple[str, str, Any]]:
    """Weigh the first model and each network on images that neither learnt from: by name, the two and their weights."""
    scores = reference_pairs.score_all(val, models, reading, certified=False)
    first = next(iter(models))
    found = {}
    for name, model in models.items():
        if isinstance(model, ReferenceModel):
            pair = scores.by_model[first], scores.by_model[name]
            weights = reference_pairs.stack(np.column_stack(pair), scores.sick)
            found[f"{first}{BOTH}{name}"] = (first, name, weights)
    return found


def pairs_of(
    models: Mapping[str, SavedModel], both: Mapping[str, tuple[str, str, Any]]
) -> list[tuple[str, str]]:
    """List who is compared with whom: each with the first, networks with all histograms, stacks with their network."""
    first = next(iter(models))
    networks = [name for name, model in models.items() if isinstance(model, ReferenceModel)]
    others = [name for name in models if name not in networks]
    pairs = [(name, first) for name in others if name != first]
    pairs += [(network, name) for network in networks for name in others]
    return pairs + [(name, member) for name, (*members, _) in both.items() for member in members]


def quality_columns(
    name: str,
    figures: Mapping[str, Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    first: str,
    sensitivity: float,
) -> dict[str, object]:
    """Return the columns of a model that say how good it is, beside the first; empty of one that was not judged."""
    own = figures.get(name)
    gap = next((one for one in differences if (one["model"], one["minus"]) == (name, first)), None)
    return {
        "model": name,
        "AUC": _text(own["auc"]) if own else "",
        f"specificity at {100 * sensitivity:g} %": _text(own["specificity"]) if own else "",
        "minus the first": _gap(gap["specificity"]["difference"]) if gap else "",
        "AUC minus the first": _gap(gap["auc"]["difference"]) if gap else "",
    }


def table_rows(
    figures: Mapping[str, Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, Any]],
    first: str,
    sensitivity: float,
) -> list[dict[str, object]]:
    """Return the table: one row a model, the yardstick last."""
    rows = []
    for name, cost in costs.items():
        rows.append(
            {
                **quality_columns(name, figures, differences, first, sensitivity),
                "ms an image": f"{cost['decoded_ms']:.3g}",
                "times cheaper": f"{cost['times_cheaper']:.3g}",
                "images/s from file": f"{cost['file_per_second']:.4g}",
                "parameters": _or_nothing(cost["parameters"], ","),
                "MB on disk": "" if cost["bytes"] is None else f"{cost['bytes'] / 1e6:.2f}",
                "peak MiB": "" if cost["peak_bytes"] is None else f"{cost['peak_bytes'] / 2**20:.0f}",
                "training s": _or_nothing(cost["training_seconds"], ".0f"),
                "mJ an image": _or_nothing(cost["millijoules"], ".3g"),
            }
        )
    if all(row["mJ an image"] == "" for row in rows):
        rows = [{key: value for key, value in row.items() if key != "mJ an image"} for row in rows]
    return rows


def _or_nothing(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _text(estimate: Mapping[str, float]) -> str:
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def _gap(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


def _folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def draw(rows: Sequence[Mapping[str, Any]], sensitivity: float, about: str, path: str) -> None:
    """Draw the specificity of each model against what an image costs."""
    figure = new_figure(5.2, 8)
    axis = figure.subplots()
    judged = sorted((row for row in rows if row["specificity"]), key=lambda row: row["decoded_ms"])
    for kind, (colour, marker) in KINDS.items():
        own = [row for row in judged if row["kind"] == kind]
        points = [row["specificity"] for row in own]
        axis.errorbar(
            [row["decoded_ms"] for row in own],
            [one["value"] for one in points],
            yerr=[
                [one["value"] - one["low"] for one in points],
                [one["high"] - one["value"] for one in points],
            ],
            fmt=marker,
            color=colour,
            capsize=3,
            label={"histogram": "histograms", "reference": "network", "both": "stack of both"}[kind],
        )
    for number, row in enumerate(judged):
        offset = (7, 5) if number % 2 else (7, -12)
        place = row["decoded_ms"], row["specificity"]["value"]
        axis.annotate(row["model"], place, xytext=offset, textcoords="offset points", fontsize="small")
    axis.set_xscale("log")
    axis.margins(x=0.25)
    legend_above(axis, 3)
    label_axes(
        axis,
        "milliseconds an image, one thread (log scale)",
        f"specificity at {100 * sensitivity:g} % sensitivity",
    )
    figure.suptitle(about, fontsize="medium")
    save_figure(figure, path)


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


def costs_of(
    models: Mapping[str, SavedModel],
    paths: Mapping[str, Path],
    both: Mapping[str, tuple[str, str, Any]],
    files: Sequence[tuple[str, str]],
    options: Any,
) -> dict[str, dict[str, Any]]:
    """Return what every model, every stack and the yardstick cost, by name."""
    stick_name, stick_size = options.yardstick.split("@")
    contenders = [reference_costs.contender(name, model) for name, model in models.items()]
    alone = {one.name: one for one in contenders}
    contenders += [
        reference_costs.together(name, alone[one], alone[two]) for name, (one, two, _) in both.items()
    ]
    contenders.append(reference_costs.yardstick(stick_name, int(stick_size)))
    times = reference_costs.take_times(contenders, files, rounds=options.rounds, seconds=options.seconds)
    took = training_seconds(options.training)
    costs: dict[str, dict[str, Any]] = {}
    for row in times:
        name = row["model"]
        about: dict[str, Any] = {
            "kind": "yardstick",
            "parameters": None,
            "bytes": None,
            "training_seconds": None,
        }
        if name in models:
            model, network = models[name], isinstance(models[name], ReferenceModel)
            about = {
                "kind": "reference" if network else "histogram",
                "parameters": model.training.get("parameters") if network else None,
                "bytes": _folder_bytes(paths[name]),
                "training_seconds": took.get((name, model.name), model.training.get("seconds")),
            }
        elif name in both:
            members = [costs[member] for member in both[name][:2]]
            about |= {"kind": "both", "parameters": members[1]["parameters"]}
            for key in ("bytes", "training_seconds"):
                values = [member[key] for member in members]
                about[key] = None if None in values else sum(values)
        else:
            from histcxr.reference.architectures import ARCHITECTURES

            about["parameters"] = ARCHITECTURES[stick_name].parameters
        peak = None
        if name not in both:
            kind, place = ("model", str(paths[name])) if name in models else ("yardstick", options.yardstick)
            peak = reference_costs.peak_memory(kind, place, files[:FEW])
        costs[name] = {**row, **about, "peak_bytes": peak}
    return costs


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV with labels and masks", jobs=None, seed=False)
    parser.add_argument("--histogram", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--reference", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument("--training", type=Path, action="append", default=[], help="JSON of histcxr train")
    parser.add_argument("--where", action="append", default=[], help="COLUMN=VALUE of the data; repeatable")
    parser.add_argument(
        "--elsewhere", action="append", default=[], nargs="+", help="other data: PATH [COLUMN=VALUE ...]"
    )
    parser.add_argument("--split", default="test", help="part of the data; all for every row")
    parser.add_argument("--sensitivity", type=float, default=0.95)
    parser.add_argument(
        "--lungs", choices=("given", "found", "either"), help="default: as the data have them"
    )
    parser.add_argument("--normal", help="label that means normal; default: the models'")
    parser.add_argument("--cache", help="folder of extracted histograms")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--no-costs", action="store_true", help="figures alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a model's turn, about")
    parser.add_argument("--images", type=int, default=256, help="files that are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", help="draw specificity against cost there (.png, .pdf, .svg)")
    parser.add_argument(
        "--yardstick", default=f"{reference_costs.YARDSTICK}@{reference_costs.YARDSTICK_SIZE}"
    )
    options = parser.parse_args(arguments)
    if options.picture:
        check_picture(options.picture)

    reference_costs.limit_threads(options.threads)
    paths = _unique_names([*options.histogram, *options.reference])
    models = {name: load_model(path) for name, path in paths.items()}
    reading = Reading(options.lungs, options.normal, options.cache, options.threads)
    manifest = rows_of(options.data, options.where)
    both: dict[str, tuple[str, str, Any]] = {}
    if options.reference and (manifest["split"].astype(str) == "val").any():
        both = stacks(models, only_split(manifest, "val"), reading)
    sets = {"here": only_split(manifest, options.split)}
    sets |= {" ".join(where): rows_of(where[0], where[1:]) for where in options.elsewhere}
    first, judged, text = next(iter(models)), {}, []
    for name, rows in sets.items():
        scores = reference_pairs.score_all(rows, models, reading)
        for row, pair in both.items():
            scores = scores.stacked(row, *pair)
        own, gaps = reference_pairs.judged(
            scores, pairs_of(models, both), sensitivity=options.sensitivity, draws=options.draws
        )
        costs = {}
        if name == "here" and not options.no_costs:
            with_masks = scores.table[scores.table["mask"].astype(str) != ""]
            if with_masks.empty:
                parser.error("costs are taken with given masks, and the data give none")
            sample = with_masks.sample(min(options.images, len(with_masks)), random_state=0)
            files = list(zip(sample["image"], sample["mask"], strict=True))
            costs = costs_of(models, paths, both, files, options)
        about = (
            f"{len(scores.sick)} images of {len(set(scores.patients))} patients, {int(scores.sick.sum())} sick. "
            f"Differences are from {first}, paired."
        )
        if costs:
            table = table_rows(own, gaps, costs, first, options.sensitivity)
            about += (
                f" Times with {options.threads} thread(s) of one process, models taking turns, {options.rounds} "
                f"rounds; times cheaper than {list(costs)[-1]}, decoded pixels to score."
            )
        else:
            table = [quality_columns(one, own, gaps, first, options.sensitivity) for one in own]
        text += [f"\n{name}:\n" if len(sets) > 1 else "", markdown_table(table), "\n" + about]
        text += [f"Note: {note}." for note in scores.notes]
        nothing = {"auc": None, "specificity": None, "accuracy": None}
        rows_found = [{"model": one, **costs.get(one, {}), **own.get(one, nothing)} for one in (costs or own)]
        judged[name] = {
            "models": rows_found,
            "differences": gaps,
            "notes": scores.notes,
            "images": len(scores.sick),
        }
        if costs and options.picture:
            draw(
                rows_found,
                options.sensitivity,
                f"{len(scores.sick)} test images, lines are 95 % intervals",
                options.picture,
            )
    weights = {name: one[2].coef_[0].tolist() for name, one in both.items()}
    if weights:
        shown = ", ".join(f"{name} {a:.2f} and {b:.2f}" for name, (a, b) in weights.items())
        text.append(f"Weights of the stacks' logits, from the val part: {shown}.")
    here = judged.pop("here")
    settings = {"sensitivity": options.sensitivity, "threads": options.threads, "weights": weights}
    publish("\n".join(text), {**settings, **here, "elsewhere": judged}, options.json)


if __name__ == "__main__":
    run(main)
