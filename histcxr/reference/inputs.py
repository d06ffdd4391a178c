"""A manifest's radiographs as one array of squares for the reference networks, in parallel: no row is lost."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike, NDArray

from histcxr.data.radiograph import check_lungs, read_radiograph
from histcxr.exceptions import HistcxrWarning, InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.extraction import LUNGS
from histcxr.features.measuring import checked_histogram, measure_image
from histcxr.lungs.segmenter import Segmenter, load_segmenter
from histcxr.reference.classes import class_targets, undersample
from histcxr.reference.preparation import REGIONS, InputSettings, prepare_image

__all__ = [
    "MAX_BYTES",
    "REGIONS",
    "InputSettings",
    "ReferenceImages",
    "class_targets",
    "lung_square",
    "prepare_image",
    "read_images",
    "read_lung_squares",
    "undersample",
]

#: Most bytes that :func:`read_images` takes for pixels unless told otherwise.
MAX_BYTES: Final = 8 << 30

# Images a worker takes at a time.
_CHUNK = 32

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class ReferenceImages:
    """The prepared images of a manifest.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, size, size)
        Zeros where an image is not usable.
    table : DataFrame, n rows
        The manifest, row for row, with two columns added: ``reason`` (``""``, or the code why the image is not
        usable) and ``detail`` (what was found).
    settings : InputSettings
        How they were prepared.
    """

    pixels: _Bytes
    table: pd.DataFrame
    settings: InputSettings

    def __post_init__(self) -> None:
        expected = (len(self.table), self.settings.size, self.settings.size)
        if self.pixels.shape != expected:
            raise InputError(f"pixels must have the shape {expected}; got {self.pixels.shape}")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which images could be prepared; the others have a reason."""
        return (self.table["reason"] == "").to_numpy(bool)

    def select(self, rows: ArrayLike) -> ReferenceImages:
        """Return some of the images.

        Parameters
        ----------
        rows : array-like of bool, shape (n,), or of int
            Which to keep, or their positions in the order wanted.
        """
        index = np.asarray(rows)
        if index.dtype == np.bool_ and index.shape != (len(self),):
            raise InputError(
                f"rows must be {len(self)} booleans, one for each image; got shape {index.shape}"
            )
        return replace(self, pixels=self.pixels[index], table=self.table.iloc[index])


def read_images(
    manifest: pd.DataFrame,
    *,
    size: int,
    region: str = "lungs",
    equalise: bool = False,
    blur: bool = False,
    lungs: str = "given",
    n_jobs: int = 1,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> ReferenceImages:
    """Read and prepare every image of a manifest.

    An image that cannot be used keeps its row, with the reason; nothing is dropped. With ``"lungs"`` and
    ``"hidden"`` the same images are refused as :func:`~histcxr.features.extraction.extract_features` refuses, so
    that networks and histograms are compared on the same ones.

    Parameters
    ----------
    manifest : DataFrame
        With the columns ``image`` and (unless the region is ``"full"``) ``mask``, paths of files (a mask may be
        ``""``); the others are kept.
    size, region, equalise, blur
        See :class:`InputSettings`.
    lungs : {"given", "found", "either"}, default="given"
        Whose masks: those of the manifest, those that the network that comes with histcxr finds for every image, or
        the network's where the manifest has none. The region ``"full"`` uses none.
    n_jobs : int, default=1
        Threads; -1 for one a core. Decoding releases the interpreter lock.
    max_bytes : int, default=8 GiB
        The result takes ``n * size * size`` bytes; more than this is refused before anything is read.
    progress : bool, default=False
        Whether to show a progress bar on standard error.

    Returns
    -------
    ReferenceImages

    Raises
    ------
    InputError
        When the manifest has no such columns, a setting is out of range, or the pixels take too many bytes.

    Warns
    -----
    HistcxrWarning
        When the manifest says of images that they hold lungs only (column ``lungs_only``) and the region asks
        for more than the lungs.
    """
    settings = InputSettings(size, region, equalise, blur)
    if lungs not in LUNGS:
        raise InputError(f"lungs must be one of {', '.join(LUNGS)}; got {lungs!r}")
    needed = ["image"] if region == "full" else ["image", "mask"]
    missing = [column for column in needed if column not in manifest.columns]
    if missing:
        raise InputError(
            f"manifest must have the columns {' and '.join(needed)}; missing: {', '.join(missing)}"
        )
    n_bytes = len(manifest) * size * size
    if n_bytes > max_bytes:
        raise InputError(
            f"{len(manifest)} images of {size} x {size} pixels take {n_bytes} bytes, and max_bytes is {max_bytes}; "
            "give a smaller size, fewer images, or a larger max_bytes"
        )
    _warn_of_lungs_only(manifest, region)
    pixels = np.zeros((len(manifest), size, size), np.uint8)
    images = _paths(manifest["image"])
    masks = [""] * len(manifest) if region == "full" or lungs == "found" else _paths(manifest["mask"])
    segmenter = None if region == "full" or lungs == "given" else load_segmenter()
    failed = _fill(pixels, images, masks, settings, segmenter, n_jobs, progress)
    reasons = [failed[row].reason.value if row in failed else "" for row in range(len(manifest))]
    details = [failed[row].detail if row in failed else "" for row in range(len(manifest))]
    return ReferenceImages(pixels, manifest.assign(reason=reasons, detail=details), settings)


def read_lung_squares(
    manifest: pd.DataFrame, *, size: int, lungs: str = "given"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Read where the lungs of each image lie in the square that a network sees.

    Parameters
    ----------
    manifest : DataFrame
        With the columns ``image`` and ``mask``.
    size : int
        Side of the square, in pixels.
    lungs : {"given", "found", "either"}
        As in :func:`read_images`.

    Returns
    -------
    masks : ndarray of bool, shape (n, size, size)
        False where they are not known.
    known : ndarray of bool, shape (n,)
    """
    if lungs not in LUNGS:
        raise InputError(f"lungs must be one of {', '.join(LUNGS)}; got {lungs!r}")
    segmenter = None if lungs == "given" else load_segmenter()
    squares = np.zeros((len(manifest), size, size), np.bool_)
    known = np.zeros(len(manifest), np.bool_)
    masks = [""] * len(manifest) if lungs == "found" else _paths(manifest["mask"])
    for row, (image, mask) in enumerate(zip(_paths(manifest["image"]), masks, strict=True)):
        try:
            squares[row], _ = measure_image(
                image, mask, lambda _, found, __: _shrunk(found, size), segmenter=segmenter
            )
        except UnjudgeableError:
            continue
        known[row] = True
    return squares, known


def _shrunk(lungs: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    return cv2.resize(lungs.view(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST_EXACT) > 0


def _paths(column: pd.Series[Any]) -> list[str]:
    """Return a column of paths as plain strings, ``""`` where one is missing."""
    return ["" if path is None or path != path else os.fspath(path) for path in column]


def _warn_of_lungs_only(manifest: pd.DataFrame, region: str) -> None:
    if region == "lungs" or "lungs_only" not in manifest.columns:
        return
    said = manifest["lungs_only"].astype(str).str.strip().str.casefold()
    concerned = int(said.isin(("true", "1", "1.0", "yes")).sum())
    if concerned:
        shown = "its lungs alone, cut out by somebody's mask" if region == "full" else "nothing but a rim"
        warnings.warn(
            f"region={region!r}: {concerned} of {len(manifest)} images are 0 outside of the lungs already (column "
            f"lungs_only), so each shows {shown}; take full radiographs, or the region 'lungs'",
            HistcxrWarning,
            stacklevel=3,
        )


def _fill(
    pixels: _Bytes,
    images: Sequence[str],
    masks: Sequence[str],
    settings: InputSettings,
    segmenter: Segmenter | None,
    n_jobs: int,
    progress: bool,
) -> dict[int, UnjudgeableError]:
    """Write each image into its row; return what failed, by row."""

    def work(rows: range) -> dict[int, UnjudgeableError]:
        failures: dict[int, UnjudgeableError] = {}
        for row in rows:
            try:
                pixels[row] = _read_one(images[row], masks[row], settings, segmenter)
            except UnjudgeableError as error:
                failures[row] = error
        return failures

    size = min(_CHUNK, max(1, len(images) // (4 * effective_n_jobs(n_jobs))))
    chunks = [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    # Threads and nothing else: they write into one array.
    done = Parallel(n_jobs=n_jobs, require="sharedmem", return_as="generator")(
        delayed(work)(chunk) for chunk in chunks
    )
    failed: dict[int, UnjudgeableError] = {}
    if progress:
        from tqdm import tqdm

        done = tqdm(done, total=len(chunks), unit="chunk", desc="reading")
    for failures in done:
        failed |= failures
    return failed


def _read_one(image: str, mask: str, settings: InputSettings, segmenter: Segmenter | None) -> _Bytes:
    if settings.region == "full":  # no lungs are looked for, so that none need be found
        pixels = read_radiograph(image).pixels
        check_lungs(pixels, np.ones(pixels.shape, np.bool_), image)
        return settings.prepare(pixels, None)
    square, _ = measure_image(
        image, mask, lambda *found: lung_square(*found, settings=settings), segmenter=segmenter
    )
    return square


def lung_square(
    pixels: _Bytes, lungs: NDArray[np.bool_], name: str = "", *, settings: InputSettings
) -> _Bytes:
    """Prepare an image whose lungs are known, and refuse the same ones as histograms do, whatever the region.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
    lungs : ndarray of bool, shape (height, width)
        Looked at for the region ``"full"``, too, though they do not change its square.
    name : str, optional
        The image's, for messages.
    settings : InputSettings

    Returns
    -------
    ndarray of uint8, shape (size, size)

    Raises
    ------
    RadiographError
        See :func:`~histcxr.features.measuring.checked_histogram`; and ``blank`` where the lungs are hidden and
        there is nothing beside them.
    """
    checked_histogram(pixels, lungs, 1, name)
    if settings.region == "hidden" and not pixels[~lungs].any():
        raise RadiographError(Reason.BLANK, name, "there is nothing outside of the lungs")
    return settings.prepare(pixels, None if settings.region == "full" else lungs)
