"""From one image's files to counts.

:func:`image_counts` and :func:`batch_counts` are one computation, and training extraction and triage both go through
it, so a model never meets counts made in another way than those it learned from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import UnjudgeableError
from histcxr.features.bands import band_histograms
from histcxr.features.histograms import BINS, Zones
from histcxr.features.measuring import (
    Lungs,
    Measure,
    Pixels,
    checked_histogram,
    measure_batch,
    measure_image,
)
from histcxr.features.recipe import Recipe, as_recipe
from histcxr.lungs.segmenter import Segmenter

__all__ = ["ImageCounts", "batch_counts", "count_lungs", "image_counts"]

_Path: TypeAlias = str | os.PathLike[str]


class ImageCounts(NamedTuple):
    """One image's ``counts``, int64 (n_zones, 256), and the SHA-256 of its file in hex, where asked for."""

    counts: NDArray[np.int64]
    sha256: str


def image_counts(
    image: _Path | bytes,
    mask: _Path | bytes | Lungs,
    zones: Zones | Recipe = 1,
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    path: _Path = "",
) -> ImageCounts:
    """Read an image and its lung mask, check both, and count.

    Parameters
    ----------
    image, mask, segmenter, digest, path
        As for :func:`~histcxr.features.measuring.measure_image`.
    zones : {1, 2, 6, "1+2", "1+6"} or Recipe
        What to count apart.

    Returns
    -------
    ImageCounts

    Raises
    ------
    RadiographError
        When the image cannot be read, its lungs show nothing (too little contrast, or more than half of them
        pure black or white), or they are brighter than what lies between them.
    MaskError
        When the mask is missing, cannot be read, or cannot be two lungs.
    UnjudgeableError
        When the segmenter finds no lungs, or no upright frontal chest.
    InputError
        When zones is unknown or a mask array is of the wrong type or shape.
    """
    counted = measure_image(image, mask, _counter(zones), segmenter=segmenter, digest=digest, path=path)
    return ImageCounts(*counted)


def batch_counts(
    images: Sequence[_Path | bytes],
    masks: Sequence[_Path | bytes | Lungs],
    zones: Zones | Recipe = 1,
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    paths: Sequence[_Path] | None = None,
) -> list[ImageCounts | UnjudgeableError]:
    """Do what :func:`image_counts` does for several images, somewhat faster.

    Parameters
    ----------
    images, masks, segmenter, digest, paths
        As for :func:`~histcxr.features.measuring.measure_batch`.
    zones
        As for :func:`image_counts`.

    Returns
    -------
    list
        For each image its counts, or the error that says why there are none.

    Raises
    ------
    InputError
        When zones is unknown, the lengths differ, or a mask array is of the wrong type or shape.
    """
    counted = measure_batch(images, masks, _counter(zones), segmenter=segmenter, digest=digest, paths=paths)
    return [one if isinstance(one, UnjudgeableError) else ImageCounts(*one) for one in counted]


def count_lungs(pixels: Pixels, lungs: Lungs, recipe: Recipe, name: str = "") -> NDArray[np.int64]:
    """Count what a recipe asks for, unless the lungs show nothing.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
    lungs : ndarray of bool, shape (height, width)
    recipe : Recipe
    name : str, optional
        The image's, for messages.

    Returns
    -------
    ndarray of int64, shape (rows, 256)

    Raises
    ------
    RadiographError
        See :func:`~histcxr.features.measuring.checked_histogram`.
    """
    counts = checked_histogram(pixels, lungs, recipe.zones, name)
    if not recipe.bands:
        return counts
    bands = band_histograms(pixels, lungs, recipe.zones, recipe.bands)
    return np.concatenate([counts, bands.reshape(-1, BINS)])


def _counter(zones: Zones | Recipe) -> Measure[NDArray[np.int64]]:
    recipe = as_recipe(zones)
    return lambda pixels, lungs, name: count_lungs(pixels, lungs, recipe, name)
