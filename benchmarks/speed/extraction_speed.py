"""How fast do image and mask become histograms, beside OpenCV that only decodes them, and beside PyRadiomics?

    python -m benchmarks.speed.extraction_speed --data DATA --json speed.json
    python -m benchmarks.speed.extraction_speed --data DATA --peers-python /tmp/peers/bin/python

All candidates read the same files, turn by turn, so that a busy machine slows them alike: look at the ratios.
Where other programs run beside, the ratio by processor time is the steadier one. PyRadiomics runs in an
environment of its own::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install numpy setuptools cython
    /tmp/peers/bin/pip install --no-build-isolation pyradiomics
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import cv2
import pandas as pd

from benchmarks.common import last_line, make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrError
from histcxr.features.extraction import extract_features
from histcxr.reports.text import markdown_table

PEERS = Path(__file__).with_name("first_order_peers.py")
PEER_IMAGES = 60
OPENCV = "OpenCV decodes only"
SLICE = 500  # images a turn: candidates follow each other quickly, so the machine is equally busy for all
CHUNK = 64

Rates = tuple[float, float]


def decode(pairs: Sequence[tuple[str, str]]) -> None:
    """Decode images and masks with OpenCV and do nothing with them."""
    for image, mask in pairs:
        cv2.imread(image, cv2.IMREAD_GRAYSCALE)
        cv2.imread(mask, cv2.IMREAD_GRAYSCALE)


def decode_in_threads(pairs: Sequence[tuple[str, str]], threads: int) -> None:
    """Decode in as many threads as the extraction gets, in chunks of the same size."""
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    if threads == 1:
        for chunk in chunks:
            decode(chunk)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, chunks))


def rates(work: Callable[[], object], n: int) -> Rates:
    """Return images a second by the clock, and by the processor time of all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return n / (time.perf_counter() - clock), n / (time.process_time() - processor)


def peer_rates(python: str, pairs: Sequence[tuple[str, str]]) -> Rates:
    """Return the rates of PyRadiomics in the other environment."""
    command = [python, str(PEERS)]
    done = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, check=False)
    if done.returncode:
        raise HistcxrError(f"{python} {PEERS.name} failed: {last_line(done.stderr)}")
    clock, processor = json.loads(done.stdout)
    return clock, processor


def measure(
    manifest: pd.DataFrame, threads: Sequence[int], zones: Sequence[str], repeats: int
) -> list[dict[str, Any]]:
    """Run OpenCV and the extraction turn by turn; one dict for each candidate and number of threads."""
    found: dict[tuple[str, int], list[Rates]] = {}
    slices = [manifest.iloc[start : start + SLICE] for start in range(0, len(manifest), SLICE)]
    with tempfile.TemporaryDirectory() as cache:
        extract_features(manifest, zones[-1], cache=cache)  # also brings all files into the system's memory
        for _, part, count in product(range(repeats), slices, threads):
            pairs = list(zip(part["image"], part["mask"], strict=True))
            turn: dict[str, Callable[[], object]] = {OPENCV: partial(decode_in_threads, pairs, count)}
            for zone in zones:
                turn[f"extraction, zones {zone}"] = partial(extract_features, part, zone, count)
            turn[f"extraction, zones {zones[-1]}, from the cache"] = partial(
                extract_features, part, zones[-1], count, cache=cache
            )
            for name, work in turn.items():
                found.setdefault((name, count), []).append(rates(work, len(part)))
    rows = []
    for (name, count), values in found.items():
        turns = list(zip(values, found[OPENCV, count], strict=True))
        clock, processor = ([ours[k] / opencv[k] for ours, opencv in turns] for k in (0, 1))
        low, _, high = quantiles(clock, n=4) if len(clock) > 1 else clock * 3
        rows.append(
            {
                "candidate": name,
                "threads": count,
                "images_per_second": median(value[0] for value in values),
                "of_opencv": median(clock),
                "of_opencv_middle_half": [low, high],
                "of_opencv_by_processor_time": median(processor),
            }
        )
    return rows


def measure_peers(manifest: pd.DataFrame, zones: str, repeats: int, python: str) -> dict[str, Any]:
    """Run the extraction and PyRadiomics turn by turn, in one thread; how much faster the extraction is."""
    part = manifest.iloc[:SLICE]
    few = list(zip(manifest["image"], manifest["mask"], strict=True))[:PEER_IMAGES]
    faster: list[Rates] = []
    for _ in range(repeats):
        ours, theirs = rates(partial(extract_features, part, zones), len(part)), peer_rates(python, few)
        faster.append((ours[0] / theirs[0], ours[1] / theirs[1]))
    clock, processor = (median(values) for values in zip(*faster, strict=True))
    return {"beside": "PyRadiomics first order", "faster by": clock, "by processor time": processor}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison with OpenCV as Markdown."""
    return markdown_table(
        [
            {
                "candidate": row["candidate"],
                "threads": row["threads"],
                "images/s": round(row["images_per_second"]),
                "of OpenCV's rate": row["of_opencv"],
                "middle half of turns": "{:.3f} to {:.3f}".format(*row["of_opencv_middle_half"]),
                "by processor time": row["of_opencv_by_processor_time"],
            }
            for row in rows
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV of images with masks", jobs=None, seed=False)
    parser.add_argument("--images", type=int, default=1500, help="how many to draw (default: 1500)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--zones", nargs="+", default=["1", "6"])
    parser.add_argument("--peers-python", help="interpreter of an environment with PyRadiomics")
    options = parser.parse_args(arguments)

    cv2.setNumThreads(1)  # for both sides: the threads counted here are the callers'
    manifest = read_manifest(options.data)
    manifest = manifest[manifest["mask"] != ""]
    if manifest.empty:
        parser.error(f"no image with a mask in {options.data}")
    manifest = manifest.sample(min(options.images, len(manifest)), random_state=0).reset_index(drop=True)

    rows = measure(manifest, options.threads, options.zones, options.repeats)
    text = (
        f"{len(manifest)} images with masks, {options.repeats} repeats; medians, ratios within each turn.\n\n"
        + table(rows)
    )
    peers: dict[str, Any] = {}
    if options.peers_python:
        peers = measure_peers(manifest, options.zones[0], options.repeats, options.peers_python)
        text += f"\n\nExtraction, zones {options.zones[0]}, one thread:\n\n{markdown_table([peers])}"
    result = {"images": len(manifest), "repeats": options.repeats, "opencv": rows, "peers": peers}
    publish(text, result, options.json)


if __name__ == "__main__":
    run(main)
