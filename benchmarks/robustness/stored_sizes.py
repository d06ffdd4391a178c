"""One radiograph stored in many sizes and formats: does it land in the same drawer?

    python -m benchmarks.robustness.stored_sizes --data FOLDER [--files 500] [--model MODEL] [--json sizes.json]

Each radiograph of FOLDER is enlarged to what a scanner would have made: 2,800 pixels, with noise in each. Averaged to
several sizes, as archives do, and stored in several formats, it is judged, its lungs found. Drawer and score are
compared with those of the smallest size. A second table holds the working image that decoding gives, which leaves out
what is not needed, against one averaged from all pixels: distance of their histograms of 256 levels (L1, from 0 to 2)
and mean difference of their pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from histcxr.data.discovery import find_inputs
from histcxr.data.radiograph import (
    WORKING_SIDE,
    decode_radiograph,
    read_radiograph,
    working_image,
    working_shape,
)
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.reports.tables import markdown_table
from histcxr.store import load_model
from histcxr.worklist.engine import triage

SIDES = (224, 512, 1024, 2800)
NOISE = 4.0  # grey levels, of a pixel as the scanner made it
FORMAT_SIDE = 1024
TOGETHER = 25  # images held at a time

Store = Callable[[NDArray[np.uint8]], bytes]


def _by_opencv(suffix: str, *options: int) -> Store:
    return lambda pixels: cv2.imencode(suffix, pixels, options)[1].tobytes()


def _by_dicom(syntax: str) -> Store:
    return lambda pixels: encode_dicom(pixels.astype(np.uint16) << 4, bits=12, syntax=syntax)


PNG = _by_opencv(".png", cv2.IMWRITE_PNG_COMPRESSION, 1)
FORMATS: dict[str, Store] = {
    "JPEG, quality 95": _by_opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 95),
    "JPEG, quality 75": _by_opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 75),
    "JPEG, progressive": _by_opencv(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "TIFF": _by_opencv(".tif"),
    "BMP": _by_opencv(".bmp"),
    "DICOM, uncompressed": _by_dicom("explicit"),
    "DICOM, JPEG lossless": _by_dicom("jpeg lossless"),
    "DICOM, JPEG 2000": _by_dicom("jpeg 2000"),
    "DICOM, JPEG-LS": _by_dicom("jpeg-ls"),
    "DICOM, RLE": _by_dicom("rle"),
}


def master(pixels: NDArray[np.uint8], rng: np.random.Generator, side: int = SIDES[-1]) -> NDArray[np.uint8]:
    """Enlarge a radiograph to what a scanner would have made: so many pixels on the longer side, with noise."""
    scale = side / max(pixels.shape)
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    large = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    large += NOISE * rng.standard_normal(large.shape, np.float32)
    return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def judged(images: Sequence[NDArray[np.uint8]], model: Any, store: Store, jobs: int) -> pd.DataFrame:
    """Store images and judge them: one row each, in order."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = [place / f"{i:03d}" for i in range(len(images))]
        for file, pixels in zip(files, images, strict=True):
            file.write_bytes(store(pixels))
        pd.DataFrame({"image": map(str, files)}).to_csv(place / "list.csv", index=False)
        # Of each image its own drawer, not what the folder as a whole allows.
        triage(place / "list.csv", model, place / "w.csv", n_jobs=jobs, trust_site=True)
        return pd.read_csv(place / "w.csv", keep_default_na=False)


def compared(name: str, side: int, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Compare two worklists of the same radiographs, row by row."""
    scores = pd.to_numeric(before["score"]) - pd.to_numeric(after["score"])
    known = scores.abs().dropna()
    return {
        "stored as": name,
        "longer side": side,
        "same drawer": float((before["decision"] == after["decision"]).mean()),
        "same reason": float((before["reason_code"] == after["reason_code"]).mean()),
        "score, median difference": float(known.median()),
        "99 %": float(known.quantile(0.99)),
        "moved into rule_out": int(((after["decision"] == "rule_out") & (before["decision"] != "rule_out")).sum()),
    }  # fmt: skip


def distances(stored: NDArray[np.uint8], store: Store) -> tuple[float, float]:
    """Hold the working image as decoding gives it against one averaged from all pixels: histograms and pixels."""
    data = store(stored)
    found, whole = decode_radiograph(data, side=WORKING_SIDE).pixels, decode_radiograph(data).pixels
    expected = cv2.resize(whole, working_shape(stored.shape)[::-1], interpolation=cv2.INTER_AREA)
    one, other = (np.bincount(pixels.ravel(), minlength=256) / pixels.size for pixels in (found, expected))
    return float(np.abs(one - other).sum()), float(np.abs(found.astype(int) - expected).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV of radiographs")
    parser.add_argument("--model", default="boxed")
    parser.add_argument("--files", type=int, default=500)
    given = parser.parse_args(arguments)

    model, rng = load_model(given.model), np.random.default_rng(given.seed)
    paths = np.array([item.path for item in find_inputs(given.data) if item.problem is None], object)
    chosen = rng.permutation(paths)[: given.files]
    ways = {("PNG", side): (side, PNG) for side in SIDES}
    ways |= {(name, FORMAT_SIDE): (FORMAT_SIDE, store) for name, store in FORMATS.items()}
    found: dict[tuple[str, int], list[pd.DataFrame]] = {way: [] for way in ways}
    apart: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for start in range(0, len(chosen), TOGETHER):
        images = [master(read_radiograph(path).pixels, rng) for path in chosen[start : start + TOGETHER]]
        for way, (side, store) in ways.items():
            stored = [working_image(pixels, side) for pixels in images]
            found[way].append(judged(stored, model, store, given.jobs))
            apart.setdefault(way, []).append(distances(stored[0], store))
    tables = {way: pd.concat(parts, ignore_index=True) for way, parts in found.items()}
    before = tables.pop(("PNG", SIDES[0]))
    rows = [compared(*way, before, after) for way, after in tables.items()]
    shown = [
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    far = [
        {"stored as": name, "longer side": side, "files": len(parts)}
        | {"histograms, mean": f"{np.mean(parts, 0)[0]:.4f}", "largest": f"{np.max(parts, 0)[0]:.4f}"}
        | {"pixels, mean": f"{np.mean(parts, 0)[1]:.3f}"}
        for (name, side), parts in apart.items()
    ]
    text = f"{len(chosen)} radiographs\n\n{markdown_table(shown)}\n\n{markdown_table(far)}"
    publish(text, {"drawers": rows, "distances": far}, given.json)


if __name__ == "__main__":
    run(main)
