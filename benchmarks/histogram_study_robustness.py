"""What the histogram study does to test images before they are counted, and what it costs a trained classifier.

Intensities change inside the lungs only; the outside stays as it is, so that in images of lungs alone it stays
zero. Masks change by whole pixels. A dilated mask reaches into what lies beyond the lungs: in images of lungs
alone those are zeros, which no radiograph would have there, so dilation is harder on such data than it would be
on full radiographs.
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

from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.decision.auc import compare_auc
from histcxr.exceptions import UnjudgeableError
from histcxr.features.measuring import count_lungs, measure_image
from histcxr.features.recipe import Recipe
from histcxr.files.writing import encode_image

Pixels = NDArray[np.uint8]
Lungs = NDArray[np.bool_]
Alteration = Callable[[Pixels, Lungs], tuple[Pixels, Lungs]]


def map_levels(pixels: Pixels, lungs: Lungs, levels: NDArray[np.floating[Any]]) -> tuple[Pixels, Lungs]:
    """Give each grey level of the lungs a new one.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
    lungs : ndarray of bool, shape (height, width)
    levels : ndarray, shape (256,)
        The new grey levels; rounded, and cut off at 0 and 255.
    """
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.where(lungs, table[pixels], pixels), lungs


def gamma(pixels: Pixels, lungs: Lungs, *, exponent: float) -> tuple[Pixels, Lungs]:
    """Raise intensities in [0, 1] to a power."""
    return map_levels(pixels, lungs, 255 * (np.arange(256) / 255) ** exponent)


def brightness(pixels: Pixels, lungs: Lungs, *, step: int) -> tuple[Pixels, Lungs]:
    """Add grey levels."""
    return map_levels(pixels, lungs, np.arange(256) + float(step))


def contrast(pixels: Pixels, lungs: Lungs, *, factor: float) -> tuple[Pixels, Lungs]:
    """Stretch intensities around the middle of the range."""
    return map_levels(pixels, lungs, (np.arange(256) - 127.5) * factor + 127.5)


def equalised(pixels: Pixels, lungs: Lungs) -> tuple[Pixels, Lungs]:
    """Equalise the histogram of the lungs: as many pixels at each grey level as can be."""
    below = np.cumsum(np.bincount(pixels[lungs], minlength=256))
    if not below[-1]:
        return pixels, lungs
    darkest = below[np.flatnonzero(below)[0]]
    return map_levels(pixels, lungs, 255 * (below - darkest) / max(1, below[-1] - darkest))


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
    "gamma 0.7": partial(gamma, exponent=0.7),
    "gamma 1.4": partial(gamma, exponent=1.4),
    "brightness -20": partial(brightness, step=-20),
    "brightness +20": partial(brightness, step=20),
    "contrast x0.8": partial(contrast, factor=0.8),
    "contrast x1.25": partial(contrast, factor=1.25),
    "mask eroded 2 px": partial(resized_mask, by=-2),
    "mask eroded 4 px": partial(resized_mask, by=-4),
    "mask dilated 2 px": partial(resized_mask, by=2),
    "mask dilated 4 px": partial(resized_mask, by=4),
    "histogram equalised": equalised,
    "blur 1 px": partial(blurred, sigma=1.0),
    "blur 2 px": partial(blurred, sigma=2.0),
}
REFERENCE = "none"
#: How :func:`~histcxr.decision.auc.compare_auc` names an interval that it cannot take from a variance.
ANY_DISTRIBUTION = "distribution-free"


def altered_counts(
    table: pd.DataFrame, alteration: Alteration, recipe: Recipe, *, n_jobs: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Alter images and count them as any image is counted.

    Parameters
    ----------
    table : DataFrame
        With the columns ``image`` and ``mask``.
    alteration : callable
        Takes pixels and lungs, returns both.
    recipe : Recipe
    n_jobs : int
        Threads.

    Returns
    -------
    counts : ndarray of int64, shape (n, rows, 256)
        Zeros where the altered image is refused.
    usable : ndarray of bool, shape (n,)
        False where the checks of every extraction refuse it: too little of the mask left, say.

    Raises
    ------
    UnjudgeableError
        When a file cannot be read as it is.
    """
    done = list(
        Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(_count_altered)(image, mask, alteration, recipe)
            for image, mask in zip(table["image"], table["mask"], strict=True)
        )
    )
    counts = np.zeros((len(done), len(recipe.names), 256), np.int64)
    for row, found in enumerate(done):
        if found is not None:
            counts[row] = found
    return counts, np.array([found is not None for found in done], dtype=bool)


def _count_altered(image: str, mask: str, alteration: Alteration, recipe: Recipe) -> NDArray[np.int64] | None:
    pixels = read_radiograph(image).pixels
    lungs = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
    changed, altered = alteration(pixels, lungs)
    try:
        # As a lossless file, so that it goes through the same checks and counting as every other image.
        count = partial(count_lungs, recipe=recipe)
        return measure_image(encode_image(changed), altered, count, path=image)[0]
    except UnjudgeableError:
        return None


def losses(
    clean: NDArray[np.float64],
    altered: NDArray[np.float64],
    sick: NDArray[np.bool_],
    patients: NDArray[np.object_],
    threshold: float,
) -> dict[str, Any]:
    """Compare the scores of altered images with those of the same images as they were.

    Parameters
    ----------
    clean, altered : ndarray, shape (n,)
    sick, patients : ndarray, shape (n,)
    threshold : float
        Chosen on clean images; ``score >= threshold`` is called sick.

    Returns
    -------
    dict
        ``auc``; ``auc_lost`` with the paired interval ``lost_low, lost_high`` (patients kept together) and how it
        was made, ``lost_method``: where no sick image changed places with a normal one, there is no variance to
        make an interval from, and it is one for any distribution (:data:`ANY_DISTRIBUTION`), far too wide;
        ``sensitivity`` and ``specificity`` of altered images at the clean threshold.
    """
    compared = compare_auc(clean, altered, sick, patient_ids=patients)
    called = altered >= threshold
    return {
        "images": len(sick),
        "auc": compared.second,
        "auc_lost": compared.difference.value,
        "lost_low": compared.difference.low,
        "lost_high": compared.difference.high,
        "lost_method": compared.difference.method,
        "sensitivity": float(called[sick].mean()),
        "specificity": float((~called[~sick]).mean()),
    }
