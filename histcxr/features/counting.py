"""From one image's files to counts: read, check, count.

:func:`image_counts` and :func:`batch_counts` are one computation, and the only one by which an image and its
mask become counts. Training extraction and triage both go through it, so a model never meets counts made in
another way than those it learned from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from histcxr.data.files import read_file
from histcxr.data.masks import check_mask, decode_mask, read_mask
from histcxr.data.radiograph import check_lungs, decode_radiograph
from histcxr.exceptions import InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.bands import band_histograms
from histcxr.features.histograms import BINS, Zones, masked_histogram
from histcxr.features.recipe import Recipe, as_recipe
from histcxr.lungs.segmenter import Found, Segmenter
from histcxr.lungs.shape import polarity

__all__ = ["MAX_SATURATED", "ImageCounts", "batch_counts", "image_counts"]

#: Largest share of the lungs' pixels that may be pure black or pure white: such pixels show no tissue.
MAX_SATURATED = 0.5

# Pixels decoded before the first of them is counted: bounds the memory of a batch of large images.
_BATCH_PIXELS = 1 << 19

# Pixels a side, about, that show whether an image is inverted: few are nearly always enough.
_COARSE = (24, 64)

# Grey levels by which the lungs are darker than what lies between them where no second look is needed.
_SURELY_PROPER = -15.0

_Path: TypeAlias = str | os.PathLike[str]
_Pixels: TypeAlias = NDArray[np.uint8]
_Lungs: TypeAlias = NDArray[np.bool_]


class ImageCounts(NamedTuple):
    """One image's ``counts``, int64 (n_zones, 256), and the SHA-256 of its file in hex, where asked for."""

    counts: NDArray[np.int64]
    sha256: str


def image_counts(
    image: _Path | bytes,
    mask: _Path | bytes | _Lungs,
    zones: Zones | Recipe = 1,
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    path: _Path = "",
) -> ImageCounts:
    """Read an image and its lung mask, check both, and count.

    Parameters
    ----------
    image : path-like or bytes
        The radiograph's file, or its content where it was read already.
    mask : path-like, bytes, or ndarray of bool, shape (height, width)
        The mask's file (``""``: there is none), its content, or a mask of the image's own size.
    zones : {1, 2, 6, "1+2", "1+6"} or Recipe
        What to count apart.
    segmenter : Segmenter, optional
        What finds the lungs where there is no mask. A mask that is given always wins.
    digest : bool, default=False
        Whether to compute the SHA-256 of the image's bytes; else it is ``""``.
    path : path-like, optional
        The image's name for messages, where its bytes were given.

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
    recipe = as_recipe(zones)
    pixels, sha256, name = _read_pixels(image, path, digest)
    if segmenter is not None and _absent(mask):
        (found,) = segmenter.segment([pixels], [name])
        if isinstance(found, UnjudgeableError):
            raise found
        lungs = found.mask
    else:
        lungs = _read_lungs(mask, pixels, name)
    return ImageCounts(_count(pixels, lungs, recipe, name), sha256)


def batch_counts(
    images: Sequence[_Path | bytes],
    masks: Sequence[_Path | bytes | _Lungs],
    zones: Zones | Recipe = 1,
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    paths: Sequence[_Path] | None = None,
) -> list[ImageCounts | UnjudgeableError]:
    """Do what :func:`image_counts` does for several images, somewhat faster.

    A group of images is decoded, then its masks, then all are counted, so that each step stays in the
    processor's caches. Groups are formed by size, so that memory stays bounded.

    Parameters
    ----------
    images, masks : sequences of one length
        As for :func:`image_counts`.
    zones, segmenter, digest
        As for :func:`image_counts`.
    paths : sequence of path-like, optional
        The images' names for messages, where bytes were given.

    Returns
    -------
    list
        For each image its counts, or the error that says why there are none.

    Raises
    ------
    InputError
        When zones is unknown, the lengths differ, or a mask array is of the wrong type or shape.
    """
    recipe = as_recipe(zones)
    names = [""] * len(images) if paths is None else paths
    if not len(images) == len(masks) == len(names):
        lengths = f"{len(images)}, {len(masks)} and {len(names)}"
        raise InputError(f"images, masks and paths must be of one length; got {lengths}")
    results: list[Any] = [None] * len(images)
    group: list[tuple[int, _Pixels, str, str]] = []
    held = 0
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        try:
            pixels, sha256, name = _read_pixels(image, name, digest)
        except UnjudgeableError as error:
            results[index] = _bare(error)
            continue
        group.append((index, pixels, sha256, name))
        held += pixels.size
        if held >= _BATCH_PIXELS:
            _count_group(group, masks, recipe, segmenter, results)
            group, held = [], 0
    _count_group(group, masks, recipe, segmenter, results)
    return results


def _count_group(
    group: list[tuple[int, _Pixels, str, str]],
    masks: Sequence[_Path | bytes | _Lungs],
    recipe: Recipe,
    segmenter: Segmenter | None,
    results: list[Any],
) -> None:
    """Read or make the masks of decoded images and count them; write to results."""
    made: dict[int, Found | UnjudgeableError] = {}
    if segmenter is not None and (bare := [one for one in group if _absent(masks[one[0]])]):
        indices, images, _, names = zip(*bare, strict=True)
        made = dict(zip(indices, segmenter.segment(images, names), strict=True))
    ready: list[tuple[int, _Pixels, str, str, _Lungs]] = []
    for index, pixels, sha256, name in group:
        found = made.get(index)
        if isinstance(found, UnjudgeableError):
            results[index] = _bare(found)
            continue
        try:
            lungs = found.mask if found is not None else _read_lungs(masks[index], pixels, name)
            ready.append((index, pixels, sha256, name, lungs))
        except UnjudgeableError as error:
            results[index] = _bare(error)
    for index, pixels, sha256, name, lungs in ready:
        try:
            results[index] = ImageCounts(_count(pixels, lungs, recipe, name), sha256)
        except UnjudgeableError as error:
            results[index] = _bare(error)


def _bare(error: UnjudgeableError) -> UnjudgeableError:
    """Return the error without its traceback, whose frames would hold the pixels as long as it is kept."""
    return UnjudgeableError(error.reason, error.path, error.detail)


def _absent(mask: _Path | bytes | _Lungs) -> bool:
    """Tell whether there is no mask at all; one that is named and cannot be read is an error instead."""
    return isinstance(mask, str) and not mask


def _read_pixels(image: _Path | bytes, path: _Path, digest: bool) -> tuple[_Pixels, str, str]:
    """Return the pixels of an image, the SHA-256 of its file, and its name."""
    if isinstance(image, bytes):
        data, name = image, os.fspath(path)
    else:
        name = os.fspath(image)
        data = read_file(name)
    pixels = decode_radiograph(data, name).pixels
    return pixels, hashlib.sha256(data).hexdigest() if digest else "", name


def _read_lungs(mask: _Path | bytes | _Lungs, pixels: _Pixels, name: str) -> _Lungs:
    """Return a checked mask of the image's size."""
    height, width = pixels.shape
    if isinstance(mask, np.ndarray):
        if mask.dtype != np.bool_ or mask.shape != pixels.shape:
            found = f"{mask.dtype} of shape {mask.shape}"
            raise InputError(f"mask must be bool of shape {pixels.shape}; got {found}")
        check_mask(mask, name)
        return mask
    if isinstance(mask, bytes):
        return decode_mask(mask, (height, width), name)
    return read_mask(mask, (height, width))


def _check_polarity(pixels: _Pixels, lungs: _Lungs, name: str) -> None:
    """Refuse a radiograph whose grey levels are inverted: no histogram of it means what it should."""
    found = 0.0
    for side in _COARSE:
        step = max(1, min(pixels.shape) // side)
        small = np.ascontiguousarray(lungs[::step, ::step]).view(np.uint8)
        found = polarity(np.ascontiguousarray(pixels[::step, ::step]), small)
        if found == 0 or found < _SURELY_PROPER:
            return
    if found > 0:
        raise RadiographError(Reason.POLARITY, name)


def _count(pixels: _Pixels, lungs: _Lungs, recipe: Recipe, name: str) -> NDArray[np.int64]:
    """Count, unless the lungs show nothing."""
    check_lungs(pixels, lungs, name)
    _check_polarity(pixels, lungs, name)
    counts = masked_histogram(pixels, lungs, recipe.zones)
    extreme = counts[:, :: BINS - 1].sum()  # the first and the last bin
    if extreme and extreme > MAX_SATURATED * counts.sum():
        share = extreme / counts.sum()
        raise RadiographError(Reason.BLANK, name, f"{share:.0%} of the lungs are pure black or white")
    if not recipe.bands:
        return counts
    bands = band_histograms(pixels, lungs, recipe.zones, recipe.bands)
    return np.concatenate([counts, bands.reshape(-1, BINS)])
