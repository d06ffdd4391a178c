"""From one image's files to a measurement of its lungs: read, find or read the mask, check, measure.

:func:`measure_image` and :func:`measure_batch` are one computation, and the only one by which an image and its mask
become what a model sees, in training and in triage. What is measured they are told: histograms (:func:`count_lungs`)
or the square of a network that sees the image. Both begin with :func:`checked_histogram`, so both refuse the same
images. Both see the working image (:func:`~histcxr.data.radiograph.working_image`), made once: outline, checks, counts
and bands are all of its pixels, so that a radiograph is judged alike in whatever size it is stored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.masks import check_mask, decode_mask, read_mask
from histcxr.data.radiograph import WORKING_SIDE, check_lungs, decode_radiograph, working_image
from histcxr.exceptions import InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.histograms import BINS, Zones, masked_histogram
from histcxr.features.recipe import BANDS_SIDE, Recipe, band_histograms
from histcxr.files.reading import read_file
from histcxr.files.stages import stage
from histcxr.lungs.segmenter import Found, Segmenter
from histcxr.lungs.shape import polarity

#: Largest share of the lungs' pixels that may be pure black or pure white: such pixels show no tissue.
MAX_SATURATED: Final = 0.5

# Pixels decoded before the first of them is measured: bounds the memory of a batch of large images.
_BATCH_PIXELS = 1 << 19
# Pixels a side, about, that show whether an image is inverted: few are nearly always enough.
_COARSE = (24, 64)
# Grey levels by which the lungs are darker than what lies between them where no second look is needed.
_SURELY_PROPER = -15.0

_Path: TypeAlias = str | os.PathLike[str]
Pixels: TypeAlias = NDArray[np.uint8]
Lungs: TypeAlias = NDArray[np.bool_]

_T = TypeVar("_T")

#: Working image uint8 and lungs bool, both (height, width), and the image's name to what is wanted of them; it raises
#: :class:`~histcxr.exceptions.UnjudgeableError` where the image must not be judged.
Measure: TypeAlias = Callable[[Pixels, Lungs, str], _T]


class _Image(NamedTuple):
    """A decoded image: its place, working pixels, shape as stored, SHA-256 of its file, and name."""

    place: int
    pixels: Pixels
    shape: tuple[int, int]
    sha256: str
    name: str


def measure_image(
    image: _Path | bytes,
    mask: _Path | bytes | Lungs,
    measure: Measure[_T],
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    path: _Path = "",
    side: int = WORKING_SIDE,
) -> tuple[_T, str]:
    """Read an image and its lung mask, and measure.

    Returns what ``measure`` gave, and the SHA-256 of the image's bytes in hex (``""`` without ``digest``). The image
    is a file or its content; the mask a file (``""``: there is none), its content, or bool (height, width) of the
    image's size. A mask that is given wins over the segmenter's. ``path`` names the image in messages, ``side`` is the
    working image's longer side.

    RadiographError or MaskError: image or mask cannot be read, or the mask is missing or cannot be two lungs.
    UnjudgeableError: the segmenter finds no lungs, or no upright frontal chest; and what ``measure`` raises.
    InputError: a mask array of the wrong type or shape.
    """
    (found,) = measure_batch(
        [image], [mask], measure, segmenter=segmenter, digest=digest, paths=[path], side=side
    )
    if isinstance(found, UnjudgeableError):
        raise found
    return found


def measure_batch(
    images: Sequence[_Path | bytes],
    masks: Sequence[_Path | bytes | Lungs],
    measure: Measure[_T],
    *,
    segmenter: Segmenter | None = None,
    digest: bool = False,
    paths: Sequence[_Path] | None = None,
    side: int = WORKING_SIDE,
) -> list[tuple[_T, str] | UnjudgeableError]:
    """Do what :func:`measure_image` does for several images, somewhat faster: its results, or the errors instead.

    Images are decoded, then masks, then all are measured, in groups formed by size, so that memory stays bounded.
    Images, masks and paths are of one length, else InputError.
    """
    names = [""] * len(images) if paths is None else paths
    if not len(images) == len(masks) == len(names):
        lengths = f"{len(images)}, {len(masks)} and {len(names)}"
        raise InputError(f"images, masks and paths must be of one length; got {lengths}")
    results: list[Any] = [None] * len(images)
    group: list[_Image] = []
    held = 0
    for place, (image, name) in enumerate(zip(images, names, strict=True)):
        with stage("decode"):
            decoded = _attempt(_read_image, place, image, name, digest, side)
        if isinstance(decoded, UnjudgeableError):
            results[place] = decoded
            continue
        group.append(decoded)
        held += decoded.pixels.size
        if held >= _BATCH_PIXELS:
            _measure_group(group, masks, measure, segmenter, results)
            group, held = [], 0
    _measure_group(group, masks, measure, segmenter, results)
    return results


def _measure_group(
    group: Sequence[_Image],
    masks: Sequence[_Path | bytes | Lungs],
    measure: Measure[Any],
    segmenter: Segmenter | None,
    results: list[Any],
) -> None:
    """Read or make the masks of decoded images and measure them; write to results."""
    made: dict[int, Found | UnjudgeableError] = {}
    if segmenter is not None and (bare := [one for one in group if _absent(masks[one.place])]):
        with stage("outline"):
            found = segmenter.segment([one.pixels for one in bare], [one.name for one in bare])
        made = {one.place: lungs for one, lungs in zip(bare, found, strict=True)}
    ready: list[tuple[_Image, Lungs]] = []
    for one in group:
        outline: Found | Lungs | UnjudgeableError
        with stage("mask"):
            outline = made[one.place] if one.place in made else _attempt(_read_lungs, masks[one.place], one)
        if isinstance(outline, UnjudgeableError):
            results[one.place] = outline
        else:
            ready.append((one, outline.mask if isinstance(outline, Found) else outline))
    for one, lungs in ready:
        with stage("count"):
            measured = _attempt(measure, one.pixels, lungs, one.name)
        failed = isinstance(measured, UnjudgeableError)
        results[one.place] = measured if failed else (measured, one.sha256)


def _attempt(step: Callable[..., _T], *arguments: Any) -> _T | UnjudgeableError:
    """Return the error without its traceback, whose frames would hold the pixels as long as it is kept."""
    try:
        return step(*arguments)
    except UnjudgeableError as error:
        return type(error)(error.reason, error.path, error.detail)


def _absent(mask: _Path | bytes | Lungs) -> bool:
    """Tell whether there is no mask at all; one that is named and cannot be read is an error instead."""
    return isinstance(mask, str) and not mask


def _read_image(place: int, image: _Path | bytes, path: _Path, digest: bool, side: int) -> _Image:
    if isinstance(image, bytes):
        data, name = image, os.fspath(path)
    else:
        name = os.fspath(image)
        data = read_file(name)
    found = decode_radiograph(data, name, side=side)
    shape = found.metadata["height"], found.metadata["width"]
    return _Image(place, found.pixels, shape, hashlib.sha256(data).hexdigest() if digest else "", name)


def _read_lungs(mask: _Path | bytes | Lungs, image: _Image) -> Lungs:
    """Return a checked mask of the working image's size."""
    working = image.pixels.shape[0], image.pixels.shape[1]
    if isinstance(mask, bytes):
        return decode_mask(mask, image.shape, image.name, working=working)
    if not isinstance(mask, np.ndarray):
        return read_mask(mask, image.shape, working=working)
    if mask.dtype != np.bool_ or mask.shape != image.shape:
        found = f"{mask.dtype} of shape {mask.shape}"
        raise InputError(f"mask must be bool of shape {image.shape}; got {found}")
    check_mask(mask, image.name)
    if image.shape == working:
        return mask
    size = working[::-1]
    return cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).view(np.bool_)


def checked_histogram(pixels: Pixels, lungs: Lungs, zones: Zones, name: str = "") -> NDArray[np.int64]:
    """Count the lungs' grey levels, uint8 (height, width) inside bool, not empty: int64 (n_zones, 256).

    RadiographError, whatever the zones: ``blank`` (too little contrast, or more than half of the lungs pure black or
    white) or ``polarity`` (they are brighter than what lies between them).
    """
    check_lungs(pixels, lungs, name)
    _check_polarity(pixels, lungs, name)
    counts = masked_histogram(pixels, lungs, zones)
    extreme = counts[:, :: BINS - 1].sum()  # the first and the last bin
    if extreme and extreme > MAX_SATURATED * counts.sum():
        share = extreme / counts.sum()
        raise RadiographError(Reason.BLANK, name, f"{share:.0%} of the lungs are pure black or white")
    return counts


def _check_polarity(pixels: Pixels, lungs: Lungs, name: str) -> None:
    """Refuse a radiograph whose grey levels are inverted: nothing measured in it means what it should."""
    found = 0.0
    for side in _COARSE:
        step = max(1, min(pixels.shape) // side)
        small = np.ascontiguousarray(lungs[::step, ::step]).view(np.uint8)
        found = polarity(np.ascontiguousarray(pixels[::step, ::step]), small)
        if found == 0 or found < _SURELY_PROPER:
            return
    if found > 0:
        raise RadiographError(Reason.POLARITY, name)


def _halved(pixels: Pixels, lungs: Lungs) -> tuple[Pixels, Lungs]:
    """Return what is filtered: pixels and lungs with a longer side of at most :data:`BANDS_SIDE` pixels."""
    small = working_image(pixels, BANDS_SIDE)
    if small is pixels:
        return pixels, lungs
    # A pixel is lung where at least half of what it covers is, so that a mirrored image has the mirrored lungs.
    share = cv2.resize(lungs.view(np.uint8) * np.uint8(255), small.shape[::-1], interpolation=cv2.INTER_AREA)
    return small, share > 127


def count_lungs(pixels: Pixels, lungs: Lungs, name: str = "", *, recipe: Recipe) -> NDArray[np.int64]:
    """Count what a recipe asks for, (rows, 256), a :data:`Measure`; errors as :func:`checked_histogram`."""
    counts = checked_histogram(pixels, lungs, recipe.zones, name)
    if not recipe.bands:
        return counts
    bands = band_histograms(*_halved(pixels, lungs), recipe.zones, recipe.bands)
    return np.concatenate([counts, bands.reshape(-1, BINS)])
