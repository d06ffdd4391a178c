"""Radiographs that something is done to before they are counted, for both studies; what breaks a histogram.

Intensities change inside the lungs only, so that in images of lungs alone the outside stays zero. Masks change by whole
pixels. A dilated mask reaches into what lies beyond the lungs: in images of lungs alone those are zeros, which no
radiograph would have there, so dilation is harder on such data than on full radiographs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray

from histcxr.data.masks import check_mask, read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import UnjudgeableError
from histcxr.features.histograms import BINS
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe

Pixels = NDArray[np.uint8]
Lungs = NDArray[np.bool_]
Alteration = Callable[[Pixels, Lungs], tuple[Pixels, Lungs]]
_GREY = np.arange(256.0)


def levels(pixels: Pixels, lungs: Lungs, *, to: NDArray[np.float64]) -> tuple[Pixels, Lungs]:
    """Give each grey level of the lungs a new one, (256,): rounded, and cut off at 0 and 255."""
    table = np.clip(np.rint(to), 0, 255).astype(np.uint8)
    return np.where(lungs, table[pixels], pixels), lungs


def equalised(pixels: Pixels, lungs: Lungs) -> tuple[Pixels, Lungs]:
    """Equalise the histogram of the lungs: as many pixels at each grey level as can be."""
    below = np.cumsum(np.bincount(pixels[lungs], minlength=BINS))
    darkest = below[np.flatnonzero(below)[0]]
    return levels(pixels, lungs, to=255 * (below - darkest) / max(1, below[-1] - darkest))


def blurred(pixels: Pixels, lungs: Lungs, *, sigma: float) -> tuple[Pixels, Lungs]:
    """Blur with a Gaussian window of ``sigma`` pixels, weighing only the lungs: what lies beyond stays out."""
    inside = lungs.astype(np.float64)
    weight = cv2.GaussianBlur(inside, (0, 0), sigma)
    total = cv2.GaussianBlur(pixels * inside, (0, 0), sigma)
    smooth = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return np.where(lungs, np.rint(smooth).astype(np.uint8), pixels), lungs


def resized_mask(pixels: Pixels, lungs: Lungs, *, by: int) -> tuple[Pixels, Lungs]:
    """Dilate the mask by a radius in pixels, or erode it where ``by`` is negative."""
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(by) + 1,) * 2)
    change = cv2.dilate if by > 0 else cv2.erode
    # Beyond the image there are no lungs, for erosion as for dilation.
    changed = change(lungs.astype(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return pixels, changed.astype(bool)


#: What is done, by name; the first line is the reference.
ALTERATIONS: dict[str, Alteration] = {
    "none": lambda pixels, lungs: (pixels, lungs),
    "gamma 0.7": partial(levels, to=255 * (_GREY / 255) ** 0.7),
    "gamma 1.4": partial(levels, to=255 * (_GREY / 255) ** 1.4),
    "brightness -20": partial(levels, to=_GREY - 20),
    "brightness +20": partial(levels, to=_GREY + 20),
    "contrast x0.8": partial(levels, to=(_GREY - 127.5) * 0.8 + 127.5),
    "contrast x1.25": partial(levels, to=(_GREY - 127.5) * 1.25 + 127.5),
    "mask eroded 2 px": partial(resized_mask, by=-2),
    "mask eroded 4 px": partial(resized_mask, by=-4),
    "mask dilated 2 px": partial(resized_mask, by=2),
    "mask dilated 4 px": partial(resized_mask, by=4),
    "histogram equalised": equalised,
    "blur 1 px": partial(blurred, sigma=1.0),
    "blur 2 px": partial(blurred, sigma=2.0),
}


def count_altered(
    table: pd.DataFrame, alteration: Alteration, recipe: Recipe, n_jobs: int
) -> tuple[NDArray[Any], list[str]]:
    """Alter images (``image`` and ``mask`` of a table), then check and count them as any image is, in threads.

    Returns
    -------
    counts : ndarray of unsigned integers, shape (n, rows, 256)
        Zeros where the altered image is refused.
    reasons : list of str, n
        Why an image is refused; empty where it is not.
    """

    def count(image: str, mask: str) -> NDArray[Any] | str:
        try:
            pixels = read_radiograph(image).pixels
            changed, lungs = alteration(pixels, read_mask(mask, (pixels.shape[0], pixels.shape[1])))
            check_mask(lungs, image)
            counts = count_lungs(changed, lungs, image, recipe=recipe)
        except UnjudgeableError as error:
            return error.detail or error.reason.value
        return counts.astype(np.uint16 if counts.max() < 1 << 16 else np.uint32)  # thousands are held at once

    pairs = zip(table["image"], table["mask"], strict=True)
    found = Parallel(n_jobs, prefer="threads")(delayed(count)(image, mask) for image, mask in pairs)
    empty = np.zeros((len(recipe.names), BINS), np.uint16)
    counts = np.array([empty if isinstance(item, str) else item for item in found])
    return counts, [item if isinstance(item, str) else "" for item in found]
