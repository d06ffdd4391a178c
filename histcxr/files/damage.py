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

SMALLEST = 112  # pixels; the sides of smaller images hold too few to tell
STEP = 10  # grey levels from one row to the next that count as a step
SPECK = 24  # grey levels between a pixel and its neighbourhood that count as noise
AREAS = 14  # noise is counted in so many areas across and down
NOISY, NOISY_AREAS = 0.13, 10  # share of specks in an area that is noise; so many of them may be
MARGIN, DEEP = (
    0.05,
    0.2,
)  # shares of the height: edges of films and bars lie in the first, no black bar ends beyond
CORNER = 0.05  # share of the width: a seam that changes its row further inside is no edge of a film

Grey = NDArray[np.uint8]


def check_pixels(pixels: NDArray[Any], path: str) -> None:
    """Refuse grey levels, uint8 or uint16 (height, width), in the order in which they were stored, as ``damaged``."""
    if min(pixels.shape) < SMALLEST:
        return
    grey = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    steps = cv2.threshold(cv2.absdiff(grey[1:], grey[:-1]), STEP, 1, cv2.THRESH_BINARY)[1]
    shares = cv2.reduce(steps, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F)[:, 0] / grey.shape[1]
    for row in np.flatnonzero(shares[2:-5] + shares[3:-4] > 0.4) + 2:
        around = float(max(np.median(shares[max(row - 3, 0) : row]), np.median(shares[row + 2 : row + 5])))
        if around < 0.3:
            _check_seam(grey, steps, int(row), around, path)
    for size in (8, 16):
        _check_blocks(grey, size, path)
    specks = cv2.threshold(cv2.absdiff(grey, cv2.medianBlur(grey, 3)), SPECK, 255, cv2.THRESH_BINARY)[1]
    noise = cv2.resize(specks, (AREAS, AREAS), interpolation=cv2.INTER_AREA) > 255 * NOISY
    if np.count_nonzero(noise) > NOISY_AREAS:
        refuse(Reason.DAMAGED, path, "parts of the image are noise")


def _corner(first: NDArray[Any], second: NDArray[Any]) -> tuple[int, float]:
    """Where to change from one row of steps to the other so that most are met, and which share that is."""
    sums = second.sum() + np.concatenate(([0], np.cumsum(first.astype(np.int32) - second)))
    column = int(sums.argmax())
    return column, float(sums[column]) / len(first)


def _check_seam(grey: Grey, steps: Grey, row: int, around: float, path: str) -> None:
    """Refuse an edge that runs below ``row`` up to some column, and one row higher or lower from there on."""
    height, width = grey.shape
    depth = min(row, height - 2 - row) / height
    full = float(max(steps[row].sum(), steps[row + 1].sum())) / width
    for left, right in ((row + 1, row), (row, row + 1)):
        column, share = _corner(steps[left], steps[right])
        lines = np.stack(
            [np.concatenate((grey[left + k, :column], grey[right + k, column:])) for k in (-1, 0, 1, 2)]
        )
        spreads = lines.std(axis=1)
        low, high = sorted(spreads[1:3])
        alike = [np.corrcoef(lines[k : k + 2])[0, 1] if spreads[k : k + 2].all() else 0.0 for k in range(3)]
        within = CORNER < column / width < 1 - CORNER and share - full > (0.1 if depth >= MARGIN else 0.15)
        torn = within and alike[1] < 0.5 and around < 0.2 and share > 0.45
        strange = depth >= MARGIN and low > 10 and alike[1] < min(alike[0], alike[2]) - 0.35
        if torn or (strange and share - around > 0.25):
            refuse(Reason.DAMAGED, path, f"the image is torn at row {row + 1} of {height}")
        level = lines[1 if spreads[1] < spreads[2] else 2].mean()
        bar = level < STEP or level > 255 - STEP  # such as black out what is not to be seen
        if low < 1 and high > 15 and share > 0.45 and around < 0.25 and depth >= (DEEP if bar else MARGIN):
            detail = f"one grey level stands for a part of the image, from row {row + 1} of {height}"
            refuse(Reason.DAMAGED, path, detail)


def _check_blocks(grey: Grey, size: int, path: str) -> None:
    """Refuse an image that is brighter or darker from one block of a JPEG on, which all later ones take over."""
    height, width = grey.shape
    rows, blocks = np.arange(size, height - 2, size), width // size
    near = [grey[rows + k, : blocks * size].astype(np.int16) for k in (-2, -1, 0, 1)]
    jumps = np.median(
        (near[2] - near[1] - (near[1] - near[0] + near[3] - near[2]) // 2).reshape(-1, blocks, size), 2
    )
    steps = np.abs(jumps) > STEP
    shares = steps.mean(axis=1)
    for k in np.flatnonzero(shares[:-1] + shares[1:] > 0.7):
        column, share = _corner(steps[k + 1], steps[k])
        within = CORNER < column / blocks < 1 - CORNER and share > max(
            0.75, shares[k] + 0.08, shares[k + 1] + 0.08
        )
        if not within:
            continue
        along = np.concatenate((jumps[k + 1, :column], jumps[k, column:]))
        beside = np.concatenate((jumps[k, :column], jumps[k + 1, column:]))
        jump = np.median(along)
        same, quiet = np.abs(along - jump) < abs(jump) / 2, np.abs(beside) < abs(jump) / 3
        if same.mean() > 0.7 and quiet.mean() > 0.8:
            refuse(Reason.DAMAGED, path, f"the brightness jumps within row {rows[k] + 1} of {height}")
