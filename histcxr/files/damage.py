"""Damage that no decoder notices, found in the pixels: torn rows, missing parts, noise that is no picture.

Plain samples have no checksum and compressed ones seldom have; what was swapped, doubled or blanked decodes all the
same. Pixels are stored row by row, so a piece that does not belong begins somewhere within a row: right of that place
its upper edge lies one row higher than left of it, which nothing in a body does. Of 17,418 radiographs, with
collimators, labels and black bars, none is refused; they were looked at when the limits below were set, so the chance
of a false alarm is below 1 in 5,800 (95 %), for radiographs like these.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files.reading import refuse

COLUMNS = 250  # so many at least are looked at for steps
SMALLEST = 112  # pixels; the sides of smaller images hold too few to tell
STEP = 10  # grey levels from one row to the next that count as a step
SPECK = 24  # grey levels between a pixel and its neighbourhood that count as noise
AREAS, ROWS = 14, 16  # noise is counted in so many areas across and down, in so many rows of each
NOISY, NOISY_AREAS = 0.13, 10  # share of specks in an area that is noise; so many of them may be
MARGIN, DEEP = (
    0.05,
    0.2,
)  # shares of the height: edges of films and bars lie in the first, no black bar ends beyond
CORNER = 0.05  # share of the width: a seam that changes its row further inside is no edge of a film

WAVES_FROM, WAVES_TO = (
    112,
    224,
)  # pixels: the shorter side at least, the longer at most, for details of five sizes
WHITE = np.array([1.04, 1.04, 1.5])  # strength of noise in details across, down and both
TOO_NOISY = 4.5  # where noise is stronger, details cannot be told
# Limits of binary logarithms, from the finest details on: stronger than those of twice the size; in both directions
# stronger than in either; directions unlike those of twice the size; stronger than half and twice the size together.
FINER, SLANTED, SKEWED = (0.6, 0.6, 1.1), (0.2, 0.6, 0.6), (1.4, 2.0, 2.3)
STANDING_OUT = (3.4, 2.6, 3.2)

Grey = NDArray[np.uint8]


def check_pixels(
    pixels: NDArray[Any], path: str, *, noise: bool = True, table: Grey | None = None, shrunk: int = 1
) -> None:
    """Refuse grey levels, uint8 or uint16 (height, width), in the order in which they were stored, as ``damaged``.

    Without ``noise``, noise is let pass: a narrow window makes it of every picture. ``table``: the levels that the
    values stand for. ``shrunk``: how many times the image was higher before it was averaged. Of a large image, all rows
    are looked at, but whole only where some of their columns show a step.
    """
    height, width = pixels.shape
    if min(height, width) < SMALLEST:
        return
    if noise:
        _check_noise(pixels, table, path)
    steps = _steps(_grey(pixels[:, :: max(width // COLUMNS, 1)], table))
    shares = cv2.reduce(steps, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F)[:, 0] / steps.shape[1]
    middle = _middle(shares[:-2], shares[1:-1], shares[2:])  # of row k and the two after it
    around = np.maximum(middle[:-5], middle[5:])  # of the three rows before and after rows k + 3 and k + 4
    pairs = shares[3:-4] + shares[4:-3]
    for row in np.flatnonzero((pairs > np.maximum(0.4, around + 0.25)) & (around < 0.3)) + 3:
        near = _grey(pixels[row - 1 : row + 4], table)
        _check_seam(near, float(around[row - 3]), int(row), height, path)
    for size in {max(8 // shrunk, 1), max(16 // shrunk, 1)}:
        edges = shares[size - 1 : -2 : size]
        for row in (np.flatnonzero(edges[:-1] + edges[1:] > 0.5) + 1) * size:
            if row < 2:  # two rows above it are needed
                continue
            near = _grey(pixels[row - 2 : row + size + 2], table)
            _check_blocks(near, size, int(row), height, path)


def check_waves(grey: NDArray[Any], path: str) -> None:
    """Refuse grey levels, uint8 (height, width), that were put together from wavelets (JPEG 2000), some of them wrong.

    A spoilt piece of such a file is a pattern of one size and direction all over the image, and its decoder says
    nothing. In a radiograph, details get weaker steadily from size to size, alike in every direction, and noise is the
    same in all. Of 113 visibly damaged images 80 % are found; of 16,616 radiographs none is refused, and 2 of 7,600
    that were enlarged, sharpened, compressed or made noisy.
    """
    share = WAVES_TO / max(grey.shape)
    if share < 1:  # averaged, as it will be judged: noise of a large image would hide or be taken for damage
        grey = cv2.resize(grey, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    if min(grey.shape) < WAVES_FROM:
        return
    means, rest = [], grey.astype(np.float32)
    for _ in range(5):  # sizes of details, from the finest
        (rest, across), (down, both) = ((part.T for part in _split(half.T)) for half in _split(rest))
        means.append([float(np.abs(part).mean()) for part in (across, down, both)])
    found, noise = np.array(means), np.inf
    if (found[0] / WHITE).min() > TOO_NOISY:
        return
    for size in found:
        noise = min(0.85 * noise, float((size / WHITE).min()))  # as much as can be noise in every direction
        size[:] = np.sqrt(np.maximum(size**2 - (WHITE * noise) ** 2, 0))
    across, down, both = logs = np.log2(found + 1).T
    skew = across - down
    strange = (
        (logs[:, :3] - logs[:, 1:4]).max(axis=0) > FINER,
        (both - np.maximum(across, down))[:3] > SLANTED,
        np.abs(skew[:3] - skew[1:4]) > SKEWED,
        (2 * logs[:, 1:4] - logs[:, :3] - logs[:, 2:]).max(axis=0) > STANDING_OUT,
    )
    if np.any(strange):
        refuse(Reason.DAMAGED, path, "one size of detail covers the image, as of a damaged wavelet")


def _split(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows into smooth and detail, by the reversible wavelet of JPEG 2000 without its rounding (T.800, F.3)."""
    pixels = np.ascontiguousarray(pixels[: len(pixels) // 2 * 2])
    even, odd = pixels[::2], pixels[1::2]
    detail = odd - (even + np.concatenate((even[1:], even[-1:]))) / 2
    return even + (detail + np.concatenate((detail[:1], detail[:-1]))) / 4, detail


def _grey(pixels: NDArray[Any], table: Grey | None) -> Grey:
    """What values stand for in a table; without one, the upper bytes of 16 bits."""
    if table is not None:
        return table.take(pixels)
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else pixels >> 8, np.uint8)


def _steps(grey: Grey) -> Grey:
    """1 where a pixel and the one below are a step apart, else 0; one row less."""
    return np.asarray(
        cv2.threshold(cv2.absdiff(grey[1:], grey[:-1]), STEP, 1, cv2.THRESH_BINARY)[1], np.uint8
    )


def _middle(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """The median of three."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _corner(first: NDArray[Any], second: NDArray[Any]) -> tuple[int, float]:
    """Where to change from one row of steps to the other so that most are met, and which share that is."""
    sums = np.count_nonzero(second) + np.concatenate(
        ([0], np.cumsum(first.astype(np.int32) - second.astype(np.int32)))
    )
    column = int(sums.argmax())
    return column, float(sums[column]) / len(first)


def _check_noise(pixels: NDArray[Any], table: Grey | None, path: str) -> None:
    """Refuse an image of which many areas are noise; of a large one, a few rows of each are looked at."""
    height = len(pixels)
    if height >= 2 * AREAS * ROWS:
        starts = (np.arange(AREAS) * 2 + 1) * height // (2 * AREAS) - ROWS // 2
        pixels = np.concatenate([pixels[start : start + ROWS] for start in starts])
    grey = _grey(pixels, table)
    specks = cv2.threshold(cv2.absdiff(grey, cv2.medianBlur(grey, 3)), SPECK, 255, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(specks) < NOISY * NOISY_AREAS * specks.size / AREAS**2:
        return  # too few in all
    areas = cv2.resize(specks, (AREAS, AREAS), interpolation=cv2.INTER_AREA)
    if np.count_nonzero(areas > 255 * NOISY) > NOISY_AREAS:
        refuse(Reason.DAMAGED, path, "parts of the image are noise")


def _check_seam(near: Grey, around: float, row: int, height: int, path: str) -> None:
    """Refuse an edge that runs below ``row`` up to some column, and one row higher or lower from there on.

    ``near`` are five rows, of which that one is the second.
    """
    width, steps = near.shape[1], _steps(near[1:4])
    depth = min(row, height - 2 - row) / height
    for left, right in ((2, 1), (1, 2)):
        column, share = _corner(steps[left - 1], steps[right - 1])
        if share < max(0.4, around + 0.25):
            continue
        full = max(np.count_nonzero(steps[0]), np.count_nonzero(steps[1])) / width
        lines = np.concatenate((near[left - 1 : left + 3, :column], near[right - 1 : right + 3, column:]), 1)
        waves = lines - lines.mean(axis=1, dtype=np.float32, keepdims=True)
        spreads = np.sqrt(np.mean(waves * waves, axis=1))
        low, high = sorted(spreads[1:3])
        alike = np.mean(waves[:-1] * waves[1:], axis=1) / np.maximum(spreads[:-1] * spreads[1:], 1e-3)
        within = CORNER < column / width < 1 - CORNER and share - full > (0.1 if depth >= MARGIN else 0.15)
        torn = within and alike[1] < 0.5 and around < 0.2 and share > 0.45
        uneven = np.mean(lines[1:3, 1:] != lines[1:3, :-1], axis=1).min()  # bars and labels are even
        strange = depth >= MARGIN and uneven > 0.3 and low > 10 and alike[1] < min(alike[0], alike[2]) - 0.35
        if torn or (strange and share - around > 0.25):
            refuse(Reason.DAMAGED, path, f"the image is torn at row {row + 1} of {height}")
        level = lines[1 if spreads[1] < spreads[2] else 2].mean()
        bar = level < STEP or level > 255 - STEP  # such as black out what is not to be seen
        if low < 1 and high > 15 and share > 0.45 and around < 0.25 and depth >= (DEEP if bar else MARGIN):
            detail = f"one grey level stands for a part of the image, from row {row + 1} of {height}"
            refuse(Reason.DAMAGED, path, detail)


def _check_blocks(near: Grey, size: int, row: int, height: int, path: str) -> None:
    """Refuse an image that is brighter or darker from one block of a JPEG on, which all later ones take over.

    ``near`` are the rows of blocks from ``row`` on, and two before and after.
    """
    blocks = near.shape[1] // size
    jumps = []
    for edge in (2, 2 + size):
        two, one, zero, next_ = near[edge - 2 : edge + 2, : blocks * size].astype(np.int16)
        jumps.append(np.median((zero - one - (one - two + next_ - zero) // 2).reshape(blocks, size), 1))
    upper, lower = (np.abs(jump) > STEP for jump in jumps)
    column, share = _corner(lower, upper)
    if not CORNER < column / blocks < 1 - CORNER or share <= max(
        0.75, upper.mean() + 0.08, lower.mean() + 0.08
    ):
        return
    along = np.concatenate((jumps[1][:column], jumps[0][column:]))
    beside = np.concatenate((jumps[0][:column], jumps[1][column:]))
    jump = np.median(along)
    same, quiet = np.abs(along - jump) < abs(jump) / 2, np.abs(beside) < abs(jump) / 3
    if same.mean() > 0.7 and quiet.mean() > 0.8:
        refuse(Reason.DAMAGED, path, f"the brightness jumps within row {row + 1} of {height}")
