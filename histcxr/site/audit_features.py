"""What an audit reads of a radiograph beside its lungs: its file, its mask's outline, and all that lies around them.

Disease changes pixels inside the lungs. So every number here, but those of the lungs and of their outline, is taken
where disease does not reach: from headers, and from pixels outside the convex hull of both lungs, widened by a margin.
The number of bytes is left out, because it tells how much the lungs compress. Each file is read once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.fingerprints import fine_copy, fingerprint, near_duplicates
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.features.curves import site_names, site_numbers
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe
from histcxr.files.reading import Header
from histcxr.study.cohort import Reading, whose_lungs
from histcxr.study.exploring.looking import declared, read_once

_Numbers = dict[str, float]
_Pixels = NDArray[np.uint8]

_MARGIN: Final = 0.04  # of the longer side, around the hull of the lungs
_CORNER: Final = 0.15  # of each side: markers lie there, lungs do not
_BLUR: Final = 1.5  # pixels: what is finer is sharpness or noise
_TINY: Final = 1e-6
_LETTER: Final = 0.025  # of the shorter side: half of a marker's letter
_FRAME: Final = 0.02  # of each side
_FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "DICOM")
_LEVELS: Final = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_OUTLINE: Final = 6  # cells a side of the outline's small copy


@dataclass(frozen=True)
class Probes:
    """What was read of the usable radiographs, ``table``.

    ``numbers`` maps a probe to a table of numbers with named columns, one row an image; ``twins`` are pairs of
    near-duplicates, positions (m, 2); ``unusable`` counts the images left out by reason code.
    """

    table: pd.DataFrame
    numbers: Mapping[str, pd.DataFrame]
    twins: NDArray[np.intp]
    unusable: Mapping[str, int]


def read_probes(manifest: pd.DataFrame, recipe: Recipe, reading: Reading) -> Probes:
    """Read each radiograph of a manifest once. InputError: not one is usable."""

    def measure(pixels: _Pixels, lungs: NDArray[np.bool_], name: str) -> Any:
        counts = count_lungs(pixels, lungs, name, recipe=recipe)[None]
        inside = dict(zip(site_names(recipe), site_numbers(counts, recipe)[0].tolist(), strict=True))
        return fingerprint(pixels), fine_copy(pixels), {"lungs": inside, **around_lungs(pixels, lungs)}

    whose = whose_lungs(manifest, reading.lungs)
    how: dict[str, Any] = {"n_jobs": reading.n_jobs, "progress": reading.progress}
    images, masks, found = zip(*read_once(manifest, whose, measure, _file_numbers, **how), strict=True)
    usable = np.array([not isinstance(one, UnjudgeableError) for one in found], bool)
    reasons = pd.Series([one.reason.value for one in found if isinstance(one, UnjudgeableError)], dtype=str)
    unusable = {str(code): int(count) for code, count in reasons.value_counts().items()}
    if not usable.any():
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(found)}: {unusable}"
        )
    prints, copies, probes = zip(*itertools.compress(found, usable), strict=True)
    files = {"file properties": images, "mask files": masks}
    numbers = {name: pd.DataFrame(list(itertools.compress(rows, usable))) for name, rows in files.items()}
    numbers |= {name: pd.DataFrame([one[name] for one in probes]) for name in probes[0]}
    table = manifest.loc[usable].reset_index(drop=True)
    return Probes(table, numbers, near_duplicates(np.stack(prints), np.stack(copies)), unusable)


def _file_numbers(content: bytes | None) -> _Numbers:
    """Return what a file is, whatever it shows; of no file zeros."""
    header = declared(content) or Header("", 0, 0, 0, 0)
    numbers = {f"{name} files": float(header.format == name) for name in _FORMATS}
    quantisation, notes = _annexes(content or b"", header.format)
    return {
        **numbers,
        "width": header.width,
        "height": header.height,
        "width by height": header.width / max(1, header.height),
        "bits": header.bits,
        "channels": header.channels,
        "palette": float(header.palette),
        "JPEG quantisation": quantisation,
        "bytes of notes": notes,
    }


def _annexes(data: bytes, kind: str) -> tuple[int, int]:
    """Return the sum of a JPEG file's quantisation tables, and how many bytes of a JPEG or PNG file are notes."""
    quantisation = notes = 0
    place = 2 if kind == "JPEG" else 8
    while kind in ("JPEG", "PNG") and place + 8 <= len(data):
        if kind == "PNG":
            size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
            notes += size * name[:1].islower()  # chunks that a decoder may pass over
            place += 12 + size
            continue
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place] != 0xFF or marker == 0xDA:  # the picture begins
            break
        quantisation += sum(data[place + 4 : place + 2 + size]) * (marker == 0xDB)
        notes += size * (0xE0 <= marker <= 0xEF or marker == 0xFE)
        place += 2 + size
    return quantisation, notes


def around_lungs(pixels: _Pixels, lungs: NDArray[np.bool_]) -> dict[str, _Numbers]:
    """Return the numbers of a working image, uint8 (height, width), and its lungs, bool, by probe.

    ``mask shape``, ``outside the lungs`` (brightness and sharpness), ``borders`` and ``corners``.
    """
    mask = np.ascontiguousarray(lungs).view(np.uint8)
    hull = np.zeros_like(mask)
    cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(mask)), 1)
    reach = 2 * max(1, round(_MARGIN * max(mask.shape))) + 1
    outside = cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) == 0
    grey, weight = pixels.astype(np.float32), outside.astype(np.float32)
    # Of what lies outside alone: a plain blur would carry the lungs there.
    smooth, share_seen = (cv2.GaussianBlur(one, (0, 0), _BLUR) for one in (grey * weight, weight))
    fine = np.abs(grey - smooth / np.maximum(share_seen, _TINY))
    return {
        "mask shape": _shape_numbers(mask, hull),
        "outside the lungs": _outside_numbers(grey, fine, outside),
        "borders": _border_numbers(grey, outside),
        "corners": _corner_numbers(grey, outside),
    }


def _shape_numbers(mask: _Pixels, hull: _Pixels) -> _Numbers:
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask)
    area = float(np.count_nonzero(mask))
    rows, columns = np.nonzero(mask)
    middle = x + w // 2
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    length = sum(cv2.arcLength(line, True) for line in outlines)
    small = cv2.resize(
        mask[y : y + h, x : x + w].astype(np.float32), (_OUTLINE, _OUTLINE), interpolation=cv2.INTER_AREA
    )
    edge = sum(int(np.count_nonzero(side)) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    numbers = {
        "area": area / mask.size,
        "left edge": x / width,
        "upper edge": y / height,
        "breadth": w / width,
        "tallness": h / height,
        "breadth by height": w / h,
        "centre across": float(columns.mean()) / width,
        "centre down": float(rows.mean()) / height,
        "share of the right lung": float(np.count_nonzero(mask[:, :middle])) / area,
        "share of the hull": area / max(1.0, float(np.count_nonzero(hull))),
        "roughness": length / np.sqrt(area),
        "on the image's edge": edge / (2 * (height + width)),
    }
    cells = {
        f"outline at {row + 1}, {column + 1}": float(small[row, column])
        for row, column in np.ndindex(small.shape)
    }
    return numbers | cells


def _outside_numbers(grey: NDArray[Any], fine: NDArray[Any], outside: NDArray[np.bool_]) -> _Numbers:
    levels, detail = (one[outside] if outside.any() else np.zeros(1, np.float32) for one in (grey, fine))
    quantiles = np.quantile(levels, _LEVELS).tolist()
    numbers = {f"brightness at {at:.0%}": value for at, value in zip(_LEVELS, quantiles, strict=True)}
    rows, columns = np.arange(len(grey)), np.arange(grey.shape[1])
    parts = {
        "upper": rows[:, None] < len(grey) // 3,
        "lower": rows[:, None] >= 2 * len(grey) // 3,
        "left": columns[None, :] < grey.shape[1] // 3,
        "right": columns[None, :] >= 2 * grey.shape[1] // 3,
    }
    for name, part in parts.items():
        where = outside & part
        numbers[f"brightness of the {name} third"] = float(grey[where].mean()) if where.any() else 0.0
    return numbers | {
        "mean brightness": float(levels.mean()),
        "spread of brightness": float(levels.std()),
        "pure black": float((levels <= 0).mean()),
        "pure white": float((levels >= 255).mean()),
        "sharpness": float(detail.mean()),
        "sharpness at 90%": float(np.quantile(detail, 0.9)),
    }


def _border_numbers(grey: NDArray[Any], outside: NDArray[np.bool_]) -> _Numbers:
    numbers: _Numbers = {}
    for name, turn in _SIDES.items():
        side, free = turn(grey), turn(outside)
        depth = max(1, round(_FRAME * len(side)))
        levels = side[:depth][free[:depth]] if free[:depth].any() else np.zeros(1, np.float32)
        even = np.ptp(side[: max(1, len(side) // 5)], axis=1) <= 2
        bar = int(np.argmin(even))
        if even.all() or not free[: bar + 1].all():  # it ends at the lungs: they were cut out
            bar = 0
        numbers |= {
            f"brightness of the {name} border": float(levels.mean()),
            f"spread of the {name} border": float(levels.std()),
            f"black in the {name} border": float((levels <= 2).mean()),
            f"white in the {name} border": float((levels >= 253).mean()),
            f"bar at the {name} border": bar / len(side),
        }
    return numbers


def _corner_numbers(grey: NDArray[Any], outside: NDArray[np.bool_]) -> _Numbers:
    """Small bright or dark things, such as markers; how bright the corner is, borders tell."""
    numbers: _Numbers = {}
    height, width = (max(4, round(_CORNER * side)) for side in grey.shape)
    reach = 2 * max(1, round(_LETTER * min(grey.shape))) + 1
    letter = np.ones((reach, reach), np.uint8)
    for name, (down, across) in _CORNERS.items():
        corner, free = grey[::down, ::across][:height, :width], outside[::down, ::across][:height, :width]
        usual = float(np.median(corner[free])) if free.any() else 0.0
        corner = np.where(free, corner, np.float32(usual))
        fine = corner - cv2.GaussianBlur(corner, (0, 0), max(1.0, height / 8))
        bright, dark = (
            cv2.morphologyEx(corner, kind, letter) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
        )
        numbers |= {
            f"brightest spot in the {name} corner": float(bright.max()),
            f"bright spots in the {name} corner": float(bright.mean()),
            f"dark spots in the {name} corner": float(dark.mean()),
            f"sharp detail in the {name} corner": float(fine.std()),
            f"sharpest spot in the {name} corner": float(fine.max()),
        }
    return numbers


_SIDES: Final[Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "upper": lambda grid: grid,
    "lower": lambda grid: grid[::-1],
    "left": lambda grid: grid.T,
    "right": lambda grid: grid.T[::-1],
}
# A step of -1 begins at the other end.
_CORNERS: Final = {
    "upper left": (1, 1),
    "upper right": (1, -1),
    "lower left": (-1, 1),
    "lower right": (-1, -1),
}
