"""Does triage need the same memory for any number of files? Peak memory of worklists of two lengths.

A few made-up radiographs (or those of ``--data``) are repeated by hard link under many names, so that a folder of
100,000 images takes seconds to make. Each triage runs in a process of its own, which reports its peak resident
memory. A second run over the finished audit trail shows what going on costs.

    python -m benchmarks.speed.triage_memory --rows 5000 100000 --json memory.json

Prints a Markdown table. Exit status 1 when the longest worklist takes more than 1.3 times the memory of the
shortest, else 0.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.common import last_line, make_parser, publish, run, start
from histcxr.data.discovery import find_inputs
from histcxr.decision.thresholds import certify
from histcxr.exceptions import HistcxrError, InputError
from histcxr.features.histograms import masked_histogram
from histcxr.features.recipe import Recipe
from histcxr.models.registry import make_classifier
from histcxr.phantoms.studies import make_phantom, write_study
from histcxr.reports.tables import markdown_table
from histcxr.store import Model, save_model

LIMIT = 1.3  # of the shortest worklist's memory
FILES = 32  # repeated in turn; one file has room for some ten thousand hard links
TRAINING = 200  # phantoms that a model is trained on where none is given

RUN = """
import json, sys
from benchmarks.common import peak_bytes
from histcxr.worklist.engine import triage
folder, model, output, sort, jobs = sys.argv[1:]
summary = triage(folder, model, output, sort=sort, n_jobs=int(jobs))
print(json.dumps({**summary.to_dict(), "peak_bytes": peak_bytes()}))
"""


def phantom_model(folder: Path) -> Path:
    """Train and save a boosted model on phantoms of both classes."""
    sick = np.arange(TRAINING) % 2 == 1
    phantoms = (make_phantom(i, sick=bool(is_sick)) for i, is_sick in enumerate(sick))
    counts = np.stack([masked_histogram(phantom.image, phantom.mask, 1) for phantom in phantoms])
    train, rest = np.arange(TRAINING) < TRAINING // 4, np.arange(TRAINING) >= TRAINING // 4
    classifier = make_classifier("xgboost", zones=1).fit(counts[train], sick[train])
    scores = classifier.predict_proba(counts[rest])[:, 1]
    chosen = certify(scores, sick[rest], None)
    return save_model(
        Model("xgboost", classifier, Recipe(1), chosen.rule_out, chosen.rule_in), folder / "model"
    )


def source_pairs(data: Path) -> list[tuple[str, str]]:
    """Return the first images with masks below a folder."""
    found = (item for item in find_inputs(data) if item.mask and item.problem is None)
    pairs = [(item.path, item.mask) for item in islice(found, FILES)]
    if not pairs:
        raise InputError(f"no image with a mask in {data}")
    return pairs


def make_folder(folder: Path, pairs: Sequence[tuple[str, str]], rows: int) -> Path:
    """Repeat the files by link, a thousand in each folder, as archives keep them; go on from what is there."""
    for i in range(rows):
        place = folder / f"{i // 1000:05}"
        if i % 1000 == 0:
            (place / "masks").mkdir(parents=True, exist_ok=True)
        for source, home in zip(pairs[i % len(pairs)], (place, place / "masks"), strict=True):
            _link(source, home / f"{i:07}{Path(source).suffix}")
    return folder


def _link(source: str, name: Path) -> None:
    try:
        os.link(source, name)
    except FileExistsError:  # an earlier command made it
        pass
    except OSError:  # another disk, or too many links to one file
        os.symlink(source, name)


def run_triage(folder: Path, model: Path, output: Path, sort: str, jobs: int) -> dict[str, object]:
    """Triage in a process of its own and return its summary with ``peak_bytes``."""
    done = start(["-c", RUN, folder, model, output, sort, jobs])
    if done.returncode:
        raise HistcxrError(f"a triage of {folder} failed: {last_line(done.stderr)}")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say by the exit status whether memory stays within the limit."""
    parser = make_parser(__doc__, seed=False)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 100_000])
    parser.add_argument("--data", type=Path, help="a folder of radiographs with masks, instead of phantoms")
    parser.add_argument("--model", type=Path, help="a saved model, instead of one trained on phantoms")
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--sort", choices=("input", "urgency"), default="input")
    parser.add_argument(
        "--scratch", type=Path, help="where to make the folders; by default the temporary folder"
    )
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        model = options.model or phantom_model(scratch)
        data = options.data or write_study(scratch / "phantoms", n_patients=FILES)
        pairs = source_pairs(data.resolve())
        for rows in sorted(options.rows):
            folder = make_folder(scratch / f"rows{rows}", pairs, rows)
            for kind in ("first run", "again"):
                output = scratch / f"worklist{rows}.{options.format}"
                summary = run_triage(folder, model, output, options.sort, options.jobs)
                if summary["total"] != rows:
                    raise HistcxrError(f"{rows} inputs gave {summary['total']} rows")
                results.append({"rows": rows, "run": kind, **summary})
    shortest = {one["run"]: one["peak_bytes"] for one in reversed(results)}
    for one in results:
        one["ratio"] = one["peak_bytes"] / shortest[one["run"]]
    table = [
        {
            "rows": f"{one['rows']:,}",
            "run": one["run"],
            "peak memory": f"{one['peak_bytes'] / 2**20:.0f} MiB",
            "of the shortest": f"{one['ratio']:.2f}",
            "images per second": f"{one['images_per_second']:.0f}" if one["run"] == "first run" else "",
        }
        for one in results
    ]
    worst = max(one["ratio"] for one in results)
    text = f"{markdown_table(table)}\n\nLargest ratio {worst:.3f}, limit {LIMIT}."
    publish(text, {"limit": LIMIT, "worst": worst, "runs": results}, options.json)
    return int(worst > LIMIT)


if __name__ == "__main__":
    run(main)
