"""How fast are image and mask turned into histograms, beside OpenCV that only decodes them, and beside PyRadiomics?

    python benchmarks/extraction_speed.py --data DATA --json speed.json
    python benchmarks/extraction_speed.py --data DATA --peers-python /tmp/peers/bin/python

All candidates read the same files, turn by turn, so that a busy machine slows them alike: look at the
ratios. The peers run in an environment of their own, which must have PyRadiomics, or else scikit-image::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install numpy setuptools cython
    /tmp/peers/bin/pip install --no-build-isolation pyradiomics    # or: pip install scikit-image
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import pandas as pd

from histcxr.data.manifest import read_manifest
from histcxr.features.extraction import extract_features
from histcxr.reports.tables import markdown_table

PEERS = Path(__file__).with_name("first_order_peers.py")
CHUNK = 64
OPENCV = "OpenCV decodes only"


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


def rate(work: Callable[[], object], n: int) -> float:
    """Return images a second."""
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


def peer_rates(python: str, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return images a second of each peer that the other environment has."""
    done = subprocess.run(
        [python, str(PEERS)], input=json.dumps(pairs), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{python} {PEERS.name} failed:\n{done.stderr}")
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def measure(
    manifest: pd.DataFrame,
    threads: Sequence[int],
    zones: Sequence[int | str],
    repeats: int,
    peers: str | None,
) -> list[dict[str, Any]]:
    """Run all candidates turn by turn; one dict each with its rates and its ratios within each turn."""
    pairs = list(zip(manifest["image"], manifest["mask"], strict=True))
    few = pairs[: min(len(pairs), 60)]
    n = len(pairs)
    decode(pairs)  # so that all files are in the system's memory
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        extract_features(manifest, zones[-1], cache=cache)
        for _ in range(repeats):
            for count in threads:
                turn = {OPENCV: partial(decode_in_threads, pairs, count)}
                for zone in zones:
                    turn[f"extraction, zones {zone}"] = partial(extract_features, manifest, zone, count)
                turn[f"extraction, zones {zones[-1]}, from the cache"] = partial(
                    extract_features, manifest, zones[-1], count, cache=cache
                )
                for name, work in turn.items():
                    rates.setdefault((name, count), []).append(rate(work, n))
            for name, found in (peer_rates(peers, few) if peers else {}).items():
                rates.setdefault((name, 1), []).append(found)
    rows = []
    for (name, count), found in rates.items():
        alone = rates[OPENCV, count]
        ours = rates[f"extraction, zones {zones[0]}", count]
        rows.append(
            {
                "candidate": name,
                "threads": count,
                "images_per_second": median(found),
                "of_opencv": median(a / b for a, b in zip(found, alone, strict=True)),
                "of_opencv_lowest": min(a / b for a, b in zip(found, alone, strict=True)),
                "of_opencv_highest": max(a / b for a, b in zip(found, alone, strict=True)),
                "extraction_is_faster": median(b / a for a, b in zip(found, ours, strict=True)),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
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
    manifest = manifest.sample(min(options.images, len(manifest)), random_state=0).reset_index(drop=True)
    if manifest.empty:
        parser.error(f"no image with a mask in {options.data}")
    rows = measure(manifest, options.threads, options.zones, options.repeats, options.peers_python)
    print(
        f"{len(manifest)} images with masks; medians of {options.repeats} turns, ratios within each turn.\n"
    )
    print(
        markdown_table(
            [
                {
                    "candidate": row["candidate"],
                    "threads": row["threads"],
                    "images/s": f"{row['images_per_second']:.0f}",
                    "of OpenCV's rate": f"{row['of_opencv']:.2f}",
                    "lowest to highest": f"{row['of_opencv_lowest']:.2f} to {row['of_opencv_highest']:.2f}",
                    "extraction is faster": f"{row['extraction_is_faster']:.1f} times",
                }
                for row in rows
            ]
        )
    )
    if options.json:
        result = {"images": len(manifest), "repeats": options.repeats, "rows": rows, "python": sys.version}
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
