"""From pixels and a lung mask to counts: the one computation that everything else stands on.

A histogram here is int64 of shape ``(n_zones, 256)``; bin ``k`` counts the mask's pixels that equal ``k``,
nothing is normalised, clipped or interpolated. The zones are

=========  =======================================================================================
``1``      both lungs together
``2``      each lung: right, left
``6``      each lung in thirds of its own height: right upper, middle, lower, then left
``"1+2"``  the row of ``1``, then those of ``2``
``"1+6"``  the row of ``1``, then those of ``6``
=========  =======================================================================================

Right and left are the patient's, as radiologists name them: the right lung lies **left** in the image.
Every pixel of the mask belongs to exactly one zone, so the rows of ``2`` or ``6`` add up to that of ``1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError

#: Bins of a histogram: one for each value of an 8-bit pixel.
BINS: Final = 256

#: Raised whenever the same pixels and mask may give other counts than before: cached counts become invalid.
HISTOGRAM_VERSION: Final = 1

Zones: TypeAlias = int | str
_Mask: TypeAlias = NDArray[np.uint8]

_LUNGS = ("right", "left")
_SIXTHS = tuple(f"{lung}_{third}" for lung in _LUNGS for third in ("upper", "middle", "lower"))
_NAMES: dict[Zones, tuple[str, ...]] = {
    1: ("lungs",),
    2: _LUNGS,
    6: _SIXTHS,
    "1+2": ("lungs", *_LUNGS),
    "1+6": ("lungs", *_SIXTHS),
}

#: The zone settings there are.
ZONES: Final[tuple[Zones, ...]] = tuple(_NAMES)

# A part with less of the mask than this is no lung of its own but a speck of one.
_LUNG_SHARE = 0.10
# Rows cut off from the rest by empty rows, with less of their lung than this, do not stretch its height.
_SPECK_SHARE = 0.02
# A component with this much of itself on one side of the midline belongs to that side as a whole.
_WHOLE_SHARE = 0.85
# Two lungs side by side are about as wide as they are high; one lung is half as wide.
_ONE_LUNG_ASPECT = 0.75
# The midline is found from points; more than this many tell no more.
_MIDLINE_POINTS = 1024
# A mask of so many pixels has fewer components than 16 bits can number.
_SMALL_LABELS = 1 << 17
# cv2.calcHist returns float32, which is exact up to this count.
_EXACT_FLOAT32 = 1 << 24
# The histogram of a zone without a pixel.
_NOTHING = np.zeros(BINS, np.float32)

# One zone's place: its number from 0, rows and columns of the image, its mask there. No two share a pixel.
_Piece: TypeAlias = tuple[int, slice, slice, _Mask]
# One lung: 0 for the right and 1 for the left, columns of the image, and its mask there over all rows.
_Lung: TypeAlias = tuple[int, slice, _Mask]


def check_zones(zones: Any) -> Zones:
    """Return a zone setting, which may come as ``"6"`` or a NumPy integer, in its one spelling; else InputError."""
    found: Zones | None = None
    if isinstance(zones, str):
        found = int(zones) if zones in ("1", "2", "6") else zones
    elif isinstance(zones, int | np.integer) and not isinstance(zones, bool):
        found = int(zones)
    if found not in _NAMES:
        raise InputError(f"zones must be one of {', '.join(map(repr, ZONES))}; got {zones!r}")
    return found


def zone_names(zones: Zones) -> tuple[str, ...]:
    """Return the names of the histogram's rows, in order, e.g. ``("right", "left")`` for ``zones=2``."""
    return _NAMES[check_zones(zones)]


def masked_histogram(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], zones: Zones = 1
) -> NDArray[np.int64]:
    """Count the values of a radiograph, uint8 (height, width), inside its lung mask, bool: int64 (n_zones, 256).

    ``result[z, k]`` pixels of zone ``z`` equal ``k``; rows are named by :func:`zone_names`. One lung alone, lungs that
    touch, stray specks and a rotated patient are fine; an empty mask gives zeros. InputError: dtype, dimensions or
    shapes do not fit, or zones is unknown.
    """
    zones = check_zones(zones)
    check_pixels(image, mask, "image")
    bits = _bits(mask)
    parts = _parts(zones)
    rows: list[NDArray[Any]] = [_NOTHING] * parts
    for zone, across, along, lung in _pieces(bits, parts):
        rows[zone] = _count(image[across, along], lung)
    if parts == zones:
        return np.array(rows, dtype=np.int64)
    counts = np.array([_NOTHING, *rows], dtype=np.int64)
    counts[1:].sum(axis=0, out=counts[0])
    return counts


def zone_labels(mask: NDArray[np.bool_], zones: Zones = 6) -> NDArray[np.uint8]:
    """Say for every pixel which zone it belongs to.

    The lungs are told apart by an empty column between them where there is one with at least a tenth of the
    mask on either side. Elsewhere a midline is fitted to the pixels (two-means, so that it follows a rotated
    patient); a connected part that lies on one side, or nearly, goes there as a whole, and lungs that touch
    are cut along it. A mask that is narrow for its height, or lies in one half of the image, is one lung,
    named by the half it lies in; the other lung's rows are then zero. A lung's height reaches from its first
    to its last row; specks cut off by empty rows do not stretch it, and belong to the nearest third.

    Labels are uint8 ``(height, width)``: 0 outside the mask, else 1 up to the number of zones, in the order of
    :func:`zone_names` of 1, 2 or 6; with ``"1+2"`` and ``"1+6"`` those of ``2`` and ``6``. InputError is raised when
    the mask is no 2-D bool array or zones is unknown.
    """
    parts = _parts(check_zones(zones))
    _check_array(mask, np.bool_, "mask")
    bits = _bits(mask)
    labels = np.zeros(bits.shape, np.uint8)
    for zone, rows, columns, lung in _pieces(bits, parts):
        labels[rows, columns] += lung * np.uint8(zone + 1)
    return labels


def _parts(zones: Zones) -> int:
    return int(zones[-1]) if isinstance(zones, str) else zones


def check_pixels(pixels: Any, mask: Any, name: str = "pixels") -> None:
    """Raise InputError unless both are 2-D, uint8 and bool, of one shape."""
    _check_array(pixels, np.uint8, name)
    _check_array(mask, np.bool_, "mask")
    if pixels.shape != mask.shape:
        raise InputError(f"{name} and mask must have one shape; got {pixels.shape} and {mask.shape}")


def _check_array(array: Any, dtype: Any, name: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 2:
        known = isinstance(array, np.ndarray)
        came = f"{array.dtype} of shape {array.shape}" if known else type(array).__name__
        raise InputError(f"{name} must be a 2-D array of {np.dtype(dtype).name}; got {came}")


def _bits(mask: NDArray[np.bool_]) -> _Mask:
    if mask.size == 0:
        raise InputError(f"mask must have at least one pixel; got shape {mask.shape}")
    # The kernels read plain rows: a flipped or strided view is copied once here, not once in each call.
    return np.ascontiguousarray(mask).view(np.uint8) if mask.strides[1] != 1 else mask.view(np.uint8)


def _count(image: NDArray[np.uint8], mask: _Mask) -> NDArray[Any]:
    """Count a rectangle's masked values, whole numbers of shape (256,); the kernel releases the lock."""
    if image.size > _EXACT_FLOAT32:
        return np.bincount(image[mask.view(np.bool_)], minlength=BINS)
    # OpenCV 4 returns a column, OpenCV 5 a vector.
    return cv2.calcHist([image], [0], mask, [BINS], [0, BINS]).ravel()


def _pieces(mask: _Mask, parts: int) -> Iterator[_Piece]:
    """Yield the zones of 1, 2 or 6 as rectangles with their mask; empty ones are left out."""
    if parts == 1:
        x, y, width, height = cv2.boundingRect(mask)
        if width:
            rows, columns = slice(y, y + height), slice(x, x + width)
            yield 0, rows, columns, mask[rows, columns]
        return
    for side, columns, lung in _split_lungs(mask):
        sums = cv2.reduce(lung, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
        filled = (sums > 0).tobytes()  # one byte a row: searching bytes is quicker than asking NumPy
        first, stop = filled.find(1), filled.rfind(1) + 1
        if parts == 2:
            rows = slice(first, stop)
            yield side, rows, columns, lung[rows]
            continue
        start, end = (first, stop) if filled.find(0, first, stop) < 0 else _height(sums)
        # Rounded so that an image upside down is cut at the same places.
        upper, lower = start + (end - start + 1) // 3, start + (2 * (end - start) + 1) // 3
        for third, rows in enumerate((slice(first, upper), slice(upper, lower), slice(lower, stop))):
            if rows.start < rows.stop:
                yield 3 * side + third, rows, columns, lung[rows]


def _height(sums: NDArray[Any]) -> tuple[int, int]:
    """Return first row and stop of a lung in pieces: from the first to the last run of rows that counts."""
    edges = np.diff(sums > 0, prepend=False, append=False).nonzero()[0]
    starts, stops = edges[::2], edges[1::2]
    held = np.add.reduceat(sums, starts, dtype=np.int64)
    counting = np.flatnonzero(held >= _SPECK_SHARE * held.sum())
    if not counting.size:
        return int(starts[0]), int(stops[-1])
    return int(starts[counting[0]]), int(stops[counting[-1]])


def _split_lungs(mask: _Mask) -> list[_Lung]:
    """Tell the lungs apart; a lung without a pixel is left out."""
    sums = cv2.reduce(mask, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    filled = (sums > 0).tobytes()
    first, stop = filled.find(1), filled.rfind(1) + 1
    if not stop:
        return []
    total = int(sums.sum(dtype=np.int64))
    best, gap = 0, slice(0)
    start = filled.find(0, first, stop)
    while start >= 0:
        end = filled.find(1, start)
        left = int(sums[first:start].sum(dtype=np.int64))
        if min(left, total - left) > best:
            best, gap = min(left, total - left), slice(start, end)
        start = filled.find(0, end, stop)
    if best < _LUNG_SHARE * total:
        return _split_without_gap(mask, total)
    right, other = slice(first, gap.start), slice(gap.stop, stop)
    return [(0, right, mask[:, right]), (1, other, mask[:, other])]


def _cropped(side: int, mask: _Mask) -> list[_Lung]:
    """Crop a lung to its columns: a list of one, or of none where there is no pixel."""
    x, _, width, _ = cv2.boundingRect(mask)
    columns = slice(x, x + width)
    return [(side, columns, mask[:, columns])] if width else []


def _split_without_gap(mask: _Mask, total: int) -> list[_Lung]:
    """Split where no empty column helps, as in one image of 200: one lung, lungs that touch, a rotated patient."""
    kind = cv2.CV_16U if mask.size <= _SMALL_LABELS else cv2.CV_32S
    n, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=kind)
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _LUNG_SHARE * total) + 1
    if not large.size:
        large = np.arange(1, n)  # nothing but specks: they all count
    left, top = stats[large, cv2.CC_STAT_LEFT], stats[large, cv2.CC_STAT_TOP]
    x0, x1 = int(left.min()), int((left + stats[large, cv2.CC_STAT_WIDTH]).max())
    y0, y1 = int(top.min()), int((top + stats[large, cv2.CC_STAT_HEIGHT]).max())
    middle = mask.shape[1] / 2
    aspect = (x1 - x0) / (y1 - y0)
    if aspect < _ONE_LUNG_ASPECT or (aspect < 1 and (x1 <= middle or x0 >= middle)):
        # One lung: a speck beyond both it and the image's middle is what is left of the other.
        on_the_left = (x0 + x1) / 2 <= middle
        cut = max(x1, int(middle)) if on_the_left else min(x0, int(np.ceil(middle)))
        other = mask.copy()
        other[:, :cut] = 0
        return _cropped(0, mask ^ other) + _cropped(1, other)

    first = _first_centres(stats[large, cv2.CC_STAT_AREA], centres[large], (x0, x1, y0, y1))
    along_x, along_y, offset = _midline(mask, first)
    beyond = np.arange(mask.shape[1]) * along_x + np.arange(mask.shape[0])[:, None] * along_y > offset
    whole = (centres @ (along_x, along_y) > offset).astype(np.uint8)
    whole[0] = 0
    across = []
    for label in large:
        share = np.count_nonzero(beyond[labels == label]) / stats[label, cv2.CC_STAT_AREA]
        whole[label] = share >= _WHOLE_SHARE
        if 1 - _WHOLE_SHARE < share < _WHOLE_SHARE:
            across.append(label)
    other = whole[labels]
    for label in across:
        other |= (labels == label) & beyond
    return _cropped(0, mask ^ other) + _cropped(1, other)


def _first_centres(
    areas: NDArray[Any], centres: NDArray[Any], box: tuple[int, int, int, int]
) -> NDArray[np.float64]:
    """Guess the centres (x, y) of both lungs: from components that lie apart, else from the mask's box."""
    x0, x1, y0, y1 = box
    order = np.argsort(centres[:, 0], kind="stable")
    areas, centres = areas[order].astype(np.float64), centres[order]
    best, spread = None, 0.0
    for cut in range(1, len(areas)):
        left = np.average(centres[:cut], axis=0, weights=areas[:cut])
        right = np.average(centres[cut:], axis=0, weights=areas[cut:])
        # The cut that leaves the least variance within is the one with the most between.
        between = areas[:cut].sum() * areas[cut:].sum() * (right[0] - left[0]) ** 2
        if between > spread and right[0] - left[0] >= 0.25 * (x1 - x0):
            best, spread = np.array([left, right]), between
    if best is None:
        height = (y0 + y1 - 1) / 2
        best = np.array([[(3 * x0 + x1 - 1) / 4, height], [(x0 + 3 * (x1 - 1)) / 4, height]])
    return best


def _midline(mask: _Mask, centres: NDArray[np.float64]) -> tuple[float, float, float]:
    """Find the line between the lungs by two-means: a pixel lies beyond it, to the right, where a*x + b*y > c."""
    step = max(1, math.isqrt(np.count_nonzero(mask) // _MIDLINE_POINTS))
    y, x = mask[::step, ::step].nonzero()
    # Height counts half, so that two tall lungs are never divided into upper and lower.
    scale = np.array([1.0, 0.5])
    points = np.column_stack([x, y]) * (step * scale)
    ends = centres * scale
    for _ in range(20):
        beyond = points @ (ends[1] - ends[0]) > ends.mean(axis=0) @ (ends[1] - ends[0])
        if beyond.all() or not beyond.any():
            break
        moved = np.array([points[~beyond].mean(axis=0), points[beyond].mean(axis=0)])
        if np.abs(moved - ends).max() < 0.1:
            break
        ends = moved
    normal = ends[1] - ends[0]
    along = normal * scale
    return float(along[0]), float(along[1]), float(ends.mean(axis=0) @ normal)
