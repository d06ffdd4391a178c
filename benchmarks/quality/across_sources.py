"""Does it travel? Train on one hospital, test on the other, beside training and testing at home.

    python -m benchmarks.quality.across_sources --data DATA --zones 6 --json across.json

DATA needs a column (``source`` by default) and labels. For every source with enough sick and normal patients, a
classifier is trained on its training part and measured on the test part of every source. A source of one class
only (COVID, say) is measured as its sick against the normals of each other source.

``--sides 112 160`` shrinks every radiograph to these longer sides first, in a temporary folder: how large must the
working image be?
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from benchmarks.common import make_parser, publish, run, zones
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.radiograph import WORKING_SIDE, read_radiograph
from histcxr.reports.tables import auc_text, markdown_table
from histcxr.study.cohort import select_rows
from histcxr.study.evaluate import evaluate
from histcxr.study.train import train

MIN_CLASS = 59  # sick or normal validation patients below this certify nothing at 95 % / 95 %


def sources_with_both_classes(manifest: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column within which sick can be told from normal and certified."""
    table = manifest.assign(sick=is_sick(manifest["label"]))
    if (manifest["split"] != "").any():
        table = table[table["split"] == "val"]
    counts = table.groupby(column)["sick"].agg(["sum", "count"])
    enough = (counts["sum"] >= MIN_CLASS) & (counts["count"] - counts["sum"] >= MIN_CLASS)
    return [str(value) for value in counts.index[enough]]


def sets_to_test(manifest: pd.DataFrame, column: str, homes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return what to test on: each home, and each one-class source against the normals of each home."""
    sets = {home: select_rows(manifest, {column: [home]}) for home in homes}
    sick = pd.Series(is_sick(manifest["label"]), index=manifest.index)
    for other in sorted(set(manifest[column].astype(str)) - set(homes) - {""}):
        only_sick = sick & (manifest[column] == other)
        for home in homes:
            if only_sick.any():
                sets[f"{other} against {home} normals"] = manifest[
                    only_sick | (~sick & (manifest[column] == home))
                ].reset_index(drop=True)
    return sets


def shrunk(manifest: pd.DataFrame, side: int, folder: Path) -> pd.DataFrame:
    """Write every radiograph with this longer side into the folder; return the manifest of the copies."""
    places = [str(folder / f"{number}.png") for number in range(len(manifest))]
    for image, place in zip(manifest["image"], places, strict=True):
        cv2.imwrite(place, read_radiograph(image, side=side).pixels)
    return manifest.assign(image=places)


def _share(estimate: dict[str, float] | None) -> float | None:
    return None if estimate is None else estimate["value"]


def _across(
    manifest: pd.DataFrame, homes: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train on each home and measure on every set."""
    rows = []
    for home in homes:
        result = train(
            select_rows(manifest, {options.column: [home]}),
            classifiers=options.classifier or "all",
            zones=options.zones,
            bands=options.bands,
            trials=options.trials,
            cache=options.cache,
            seed=options.seed,
            n_jobs=options.jobs,
        )
        for tested, members in sets_to_test(manifest, options.column, homes).items():
            for name, model in result.models.items():
                figures = evaluate(model, members, cache=options.cache, n_jobs=options.jobs)["overall"]
                rows.append({"trained on": home, "tested on": tested, "classifier": name, **figures})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV with labels and sources")
    parser.add_argument("--column", default="source")
    parser.add_argument("--zones", type=zones, default=6)
    parser.add_argument("--bands", default="", help="travel, full, or names of bands")
    parser.add_argument("--classifier", action="append", help="repeatable; default: all")
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--cache")
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[WORKING_SIDE],
        help="longer sides in pixels (default: as stored)",
    )
    options = parser.parse_args(arguments)

    manifest = read_manifest(options.data, require_labels=True)
    homes = sources_with_both_classes(manifest, options.column)
    if not homes:
        parser.error(
            f"no value of {options.column!r} holds {MIN_CLASS} sick and {MIN_CLASS} normal validation images"
        )
    rows: list[dict[str, Any]] = []
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            images = manifest if side >= WORKING_SIDE else shrunk(manifest, side, Path(folder))
            rows += [{"side": side, **row} for row in _across(images, homes, options)]
    table = [
        {
            **({"side": row["side"]} if len(options.sides) > 1 else {}),
            **{key: row[key] for key in ("classifier", "trained on", "tested on", "images", "sick")},
            "AUC (95 % interval)": auc_text(row),
            "sensitivity": row["sensitivity"],
            "specificity": row["specificity"],
            "at 95 % sensitivity": _share(row["specificity_at_95"]),
        }
        for row in sorted(rows, key=lambda row: row["classifier"])
    ]
    content = {"zones": options.zones, "bands": options.bands, "rows": rows}
    publish(markdown_table(table), content, options.json)


if __name__ == "__main__":
    run(main)
