"""From file to drawer without a mask: how many images a second, and where the time goes.

    python -m benchmarks.speed.triage_stages --data FOLDER [--files 2000] [--dicom 100] [--json stages.json]

Radiographs of FOLDER are triaged with the model in the box and their lungs found, first as they are, then enlarged to
2,000 x 2,000 pixels of 12 bits as uncompressed DICOM. The rate is that of whole runs; the split is measured on one
thread, stage by stage, on the same files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from benchmarks.common import make_parser, publish, run
from histcxr.data.discovery import find_inputs
from histcxr.data.radiograph import decode_radiograph, read_radiograph
from histcxr.exceptions import UnjudgeableError
from histcxr.features.histograms import BINS, masked_histogram
from histcxr.features.recipe import Recipe, band_histograms
from histcxr.files.reading import read_file
from histcxr.lungs.segmenter import load_segmenter
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.reports.text import markdown_table
from histcxr.store import load_model
from histcxr.worklist.engine import triage

SIDE = 2000


def listed(paths: Sequence[str], place: Path) -> Path:
    """Write a list of images without masks."""
    pd.DataFrame({"image": list(paths)}).to_csv(place, index=False)
    return place


def write_dicoms(paths: Sequence[str], folder: Path) -> list[str]:
    """Enlarge radiographs and write them as DICOM of 12 bits."""
    folder.mkdir()
    written = []
    for i, path in enumerate(paths):
        pixels = read_radiograph(path).pixels.astype(np.float32) * 16
        large = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        place = folder / f"{i:04d}.dcm"
        place.write_bytes(encode_dicom(np.clip(large, 0, 4095).astype(np.uint16), bits=12))
        written.append(str(place))
    return written


def whole_runs(paths: Sequence[str], scratch: Path, n_jobs: int, rounds: int) -> dict[str, Any]:
    """Triage a list several times; return the median rate and the drawers."""
    source = listed(paths, scratch / "list.csv")
    rates = []
    for _ in range(rounds):
        summary = triage(source, load_model(), scratch / "worklist.csv", n_jobs=n_jobs, overwrite=True)
        rates.append(summary.images_per_second)
    return {"images": len(paths), "images a second": float(np.median(rates)), "unjudged": summary.unjudged}


def counts_of(pixels: np.ndarray, mask: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Count one image in zones and bands, as triage does."""
    bands = band_histograms(pixels, mask, recipe.zones, recipe.bands)
    return np.concatenate([masked_histogram(pixels, mask, recipe.zones), bands.reshape(-1, BINS)])


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def stages(paths: Sequence[str]) -> dict[str, float]:
    """Milliseconds an image and stage, on one thread."""
    model, segmenter = load_model(), load_segmenter()
    spent = dict.fromkeys(("read and decode", "find lungs", "count", "score"), 0.0)
    counted = []
    for start in range(0, len(paths), 16):
        batch = paths[start : start + 16]
        seconds, images = timed(
            lambda batch=batch: [decode_radiograph(read_file(path)).pixels for path in batch]
        )
        spent["read and decode"] += seconds
        seconds, found = timed(lambda images=images: segmenter.segment(images))
        spent["find lungs"] += seconds
        pairs = [
            (pixels, one.mask)
            for pixels, one in zip(images, found, strict=True)
            if not isinstance(one, UnjudgeableError)
        ]
        started = time.perf_counter()
        counted += [counts_of(pixels, mask, model.recipe) for pixels, mask in pairs]
        spent["count"] += time.perf_counter() - started
    seconds, _ = timed(lambda: model.score(np.stack(counted)))
    spent["score"] = seconds
    return {name: 1000 * value / len(paths) for name, value in spent.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV of radiographs", seed=False)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--dicom", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)

    paths = [item.path for item in find_inputs(given.data) if item.problem is None][: given.files]
    results = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sets = {
            "as they are": paths,
            f"{SIDE} x {SIDE} DICOM": write_dicoms(paths[: given.dicom], scratch / "d"),
        }
        for label, files in sets.items():
            results[label] = whole_runs(files, scratch, given.jobs, given.rounds)
            results[label] |= {f"ms: {stage}": ms for stage, ms in stages(files[:400]).items()}
    rows = [
        {"files": label, **{k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()}}
        for label, row in results.items()
    ]
    publish(markdown_table(rows), results, given.json)


if __name__ == "__main__":
    run(main)
