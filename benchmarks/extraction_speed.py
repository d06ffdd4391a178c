"""How fast do image and mask become histograms, beside OpenCV that only decodes them, and beside PyRadiomics?

    python benchmarks/extraction_speed.py --data DATA --json speed.json
    python benchmarks/extraction_speed.py --data DATA --peers-python /tmp/peers/bin/python

All candidates read the same files, turn by turn, so that a busy machine slows them alike: look at the ratios.
Where other programs run beside, the ratio by processor time is the steadier one. The peers run in an
environment of their own, which must have PyRadiomics, or else scikit-image::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install numpy setuptools cython
    /tmp/peers/bin/pip install --no-build-isolation pyradiomics    # or: pip install scikit-image
"""

from __future__ import annotations

import argparse
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

from histcxr.data.manifest import read_manifest
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


def peer_rates(python: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Rates]:
    """Return the rates of each peer that the other environment has."""
    done = subprocess.run(
        [python, str(PEERS)], input=json.dumps(pairs), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{python} {PEERS.name} failed:\n{done.stderr}")
    return {name: (clock, processor) for name, (clock, processor) in json.loads(done.stdout).items()}


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


def measure_peers(manifest: pd.DataFrame, zones: str, repeats: int, python: str) -> list[dict[str, Any]]:
    """Run the extraction and the peers turn by turn, in one thread; one dict for each peer."""
    part = manifest.iloc[:SLICE]
    few = list(zip(manifest["image"], manifest["mask"], strict=True))[:PEER_IMAGES]
    faster: dict[str, list[Rates]] = {}
    for _ in range(repeats):
        ours = rates(partial(extract_features, part, zones), len(part))
        for name, theirs in peer_rates(python, few).items():
            faster.setdefault(name, []).append((ours[0] / theirs[0], ours[1] / theirs[1]))
    return [
        {
            "beside": name,
            "faster_by": median(value[0] for value in values),
            "faster_by_processor_time": median(value[1] for value in values),
        }
        for name, values in faster.items()
    ]


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


def peer_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison with other libraries as Markdown."""
    return markdown_table(
        [
            {
                "beside": row["beside"],
                "extraction is faster by": row["faster_by"],
                "by processor time": row["faster_by_processor_time"],
            }
            for row in rows
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder or CSV of images with masks")
    parser.add_argument("--images", type=int, default=1500, help="how many to draw (default: 1500)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--zones", nargs="+", default=["1", "6"])
    parser.add_argument(
        "--peers-python", help="interpreter of an environment with PyRadiomics or scikit-image"
    )
    parser.add_argument("--json")
    options = parser.parse_args(arguments)

    cv2.setNumThreads(1)  # for both sides: the threads counted here are the callers'
    manifest = read_manifest(options.data)
    manifest = manifest[manifest["mask"] != ""]
    if manifest.empty:
        parser.error(f"no image with a mask in {options.data}")
    manifest = manifest.sample(min(options.images, len(manifest)), random_state=0).reset_index(drop=True)

    rows = measure(manifest, options.threads, options.zones, options.repeats)
    print(
        f"{len(manifest)} images with masks, {options.repeats} repeats; medians, ratios within each turn.\n"
    )
    print(table(rows))
    peers: list[dict[str, Any]] = []
    if options.peers_python:
        peers = measure_peers(manifest, options.zones[0], options.repeats, options.peers_python)
        print(f"\nExtraction, zones {options.zones[0]}, one thread, beside other libraries:\n")
        print(peer_table(peers))
    if options.json:
        result = {"images": len(manifest), "repeats": options.repeats, "opencv": rows, "peers": peers}
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
