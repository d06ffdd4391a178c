"""Images per second of triage, from file to drawer, with one model and another on the same files.

    python -m benchmarks.speed.triage_speed --data FOLDER --model xgboost.histcxr --model lenet.histcxr

Models take turns, so that a busy machine slows all of them alike; the first one is what the others are compared with.
The time is that of the whole run: reading, counting, scoring, worklist and audit trail. Loading is done before.
Prints a Markdown table.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, publish, run
from histcxr.reports.text import markdown_table
from histcxr.store import load_model
from histcxr.worklist.engine import triage


def compare_models(data: str, models: Sequence[Path], *, repeats: int, jobs: int) -> list[dict[str, Any]]:
    """Run a triage of the same files with each model in turn.

    Parameters
    ----------
    data : str
        A folder or CSV of radiographs.
    models : sequence of Path
        Saved models; the first is the one to compare with.
    repeats : int
        Rounds, after one that is not counted.
    jobs : int

    Returns
    -------
    list of dict
        Per model ``model, images, images_per_second`` (the median round's) and ``ratio``, the median over the
        rounds of its rate divided by the first model's.
    """
    loaded = [load_model(path) for path in models]
    seconds: list[list[float]] = [[] for _ in models]
    images = 0
    with tempfile.TemporaryDirectory() as temporary:
        for round_ in range(repeats + 1):
            for place, model in enumerate(loaded):
                output = Path(temporary) / f"{round_}-{place}.csv"
                start = time.perf_counter()
                images = triage(data, model, output, n_jobs=jobs).to_dict()["total"]
                if round_:
                    seconds[place].append(time.perf_counter() - start)
    return [
        {
            "model": str(path),
            "classifier": model.name,
            "images": images,
            "images_per_second": images / statistics.median(times),
            "ratio": statistics.median(first / own for first, own in zip(seconds[0], times, strict=True)),
        }
        for path, model, times in zip(models, loaded, seconds, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV of radiographs with masks", seed=False)
    parser.add_argument("--model", type=Path, action="append", required=True, help="saved model; repeatable")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = compare_models(options.data, options.model, repeats=options.repeats, jobs=options.jobs)
    installed = {name: find_spec(name) is not None for name in ("tensorflow", "keras", "onnxruntime")}
    said = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in installed.items())
    text = f"{markdown_table(rows)}\n\nInstalled here: {said}"
    publish(text, {"models": rows, "installed": installed}, options.json)


if __name__ == "__main__":
    run(main)
