"""Triage from an S3 server on this machine: the same rows as from files, also where it fails and where it stalls.

    python -m benchmarks.robustness.remote_faults --data FOLDER

Some hundred radiographs of FOLDER (with their masks, where it has any) are copied into a temporary folder and put into
a bucket of moto's server, a process of its own on the loopback interface. Both are triaged with the model in the box.
Then a proxy stands before the server: one that makes every request wait, one that fails one request in ten (status
500, connections that end, bodies that end too early), and one of which one answer in ten never comes. For each run:
rows, rows that differ from the local ones, rows whose object could not be fetched, requests that failed, images a
second. Rates are medians of alternating runs; ``fetched alone`` is the store without any judging: what it can give at
most.

Needs the extra remote, and moto[s3], flask and flask-cors for the server.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from benchmarks.loopback import Proxy, environment, fill, s3_server
from histcxr.data.discovery import find_inputs
from histcxr.exceptions import InputError
from histcxr.files import remote
from histcxr.files.reading import read_file
from histcxr.reports.tables import markdown_table
from histcxr.store import load_model
from histcxr.worklist.engine import triage


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__, data="a folder of radiographs")
    parser.add_argument("--images", type=int, default=300, help="radiographs (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed runs of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--delay", type=float, default=0.02, help="seconds a far store takes (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="when a stalled answer is given up (default: 2)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server() as port:
        top = Path(folder)
        count = _copy(options.data, top / "in", options.images, options.seed)
        fill(port, "bucket", top / "in", "in")
        figures = _compare(top, port, options)
    figures = {"images": count, "threads": options.jobs, "load": os.getloadavg()[0], **figures}
    table = markdown_table(figures["runs"])
    ratio = figures["s3 over local"]
    text = (
        f"{count} radiographs, {options.jobs} threads, load {figures['load']:.1f}\n\n{table}\n\n"
        f"S3 over local: {ratio:.2f}; fetched alone: {figures['fetched alone']:.0f} images a second"
    )
    publish(text, figures, options.json)
    wrong = any(one["rows"] != count or one["differences"] or one["unreachable"] for one in figures["runs"])
    return int(wrong)


def _copy(data: str, place: Path, n: int, seed: int) -> int:
    """Copy some images and their masks side by side."""
    found = [one for one in find_inputs(data) if one.problem is None]
    if not found:
        raise InputError(f"--data must be a folder of radiographs; {data!r} holds none")
    chosen = sorted(np.random.default_rng(seed).permutation(len(found))[:n].tolist())
    for number, index in enumerate(chosen):
        for part, path in (("images", found[index].path), ("masks", found[index].mask)):
            if path:
                (place / part).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / part / f"{number:06d}{Path(path).suffix}")
    return len(chosen)


def _compare(top: Path, port: int, options: Any) -> dict[str, Any]:
    os.environ.update(environment(port))
    model = load_model()
    url, target = "s3://bucket/in", top / "worklist.csv"

    def judged(inputs: str | Path) -> tuple[list[list[str]], float]:
        start = time.perf_counter()
        triage(inputs, model, target, n_jobs=options.jobs, overwrite=True)
        taken = time.perf_counter() - start
        with open(target, newline="") as file:
            return list(csv.reader(file))[1:], taken

    due, _ = judged(top / "in")
    judged(url)  # both are warm now
    times: dict[str, list[float]] = {"local": [], "S3": []}
    rows = {"local": due}
    for _ in range(options.repeats):
        for name, inputs in (("local", top / "in"), ("S3", url)):
            rows[name], taken = judged(inputs)
            times[name].append(taken)
    alone = _fetched_alone(url)
    runs = [_figures(name, found, due, statistics.median(times[name]), 0) for name, found in rows.items()]
    with Proxy(port) as proxy:
        os.environ.update(environment(proxy.port))
        usual = remote.SECONDS
        for name, how in (
            ("S3 through a proxy", {}),
            (f"{1000 * options.delay:.0f} ms away", {"delay": options.delay}),
            ("one in ten fails", {"every": 10}),
            ("one in ten stalls", {"every": 10, "faults": ("stalled",), "stall": 4 * options.seconds}),
        ):
            proxy.set(**how)
            remote.SECONDS = options.seconds if "stall" in how else usual  # type: ignore[misc]
            remote._system.cache_clear()
            found, taken = judged(url)
            runs.append(_figures(name, found, due, taken, proxy.failed.total()))
    ratio = statistics.median(times["local"]) / statistics.median(times["S3"])
    return {"runs": runs, "s3 over local": ratio, "fetched alone": alone}


def _fetched_alone(url: str) -> float:
    """Return how many images a second come where nothing else is done, their masks with them."""
    start, files = time.perf_counter(), list(find_inputs(url))
    names = [name for one in files for name in (one.path, one.mask) if name]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read_file, names))
    return len(files) / (time.perf_counter() - start)


def _figures(
    name: str, rows: list[list[str]], due: list[list[str]], seconds: float, failed: int
) -> dict[str, Any]:
    return {
        "run": name,
        "rows": len(rows),
        "differences": sum(one != other for one, other in zip(rows, due, strict=False)),
        "unreachable": sum(row[5] == "unreachable" for row in rows),
        "requests failed": failed,
        "images a second": len(rows) / seconds,
    }


if __name__ == "__main__":
    run(main)
