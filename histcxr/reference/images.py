"""From radiographs to the squares that a reference network reads.

Each image is prepared by itself: lungs only, lungs hidden, or the full image; no statistic of other images enters. A
manifest's images are read in parallel, and no row is lost.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import whole_number
from histcxr.data.radiograph import check_lungs, read_radiograph
from histcxr.exceptions import HistcxrWarning, InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.extraction import LUNGS
from histcxr.features.measuring import checked_histogram, measure_image
from histcxr.lungs.segmenter import Segmenter, load_segmenter
from histcxr.reference.augmentation import as_bytes

#: What of an image the network sees: the lungs, everything but the lungs, or everything.
REGIONS: Final = ("lungs", "hidden", "full")

#: Smallest and largest side of a network's input, in pixels.
SMALLEST_SIDE, LARGEST_SIDE = 8, 2048

#: Most bytes that :func:`read_images` takes for pixels; more are refused before anything is read.
MAX_BYTES: Final = 8 << 30

# Side of the Gaussian window in pixels of the network's input; OpenCV's deviation for it is 1.1 pixels.
_WINDOW = (5, 5)

_Bytes = NDArray[np.uint8]
_Lungs = NDArray[np.bool_]


@dataclass(frozen=True)
class InputSettings:
    """How images are brought to a network; kept with a model, so that it never meets others.

    Parameters
    ----------
    size : int
        Side of the square, in pixels.
    region : {"lungs", "hidden", "full"}, default="lungs"
        ``"lungs"``: everything outside the lungs is 0, which is what a histogram of the lungs sees, too.
        ``"hidden"``: the lungs are 0. ``"full"``: no mask is used.
    equalise, blur : bool, default=False
        See :meth:`prepare`.
    """

    size: int
    region: str = "lungs"
    equalise: bool = False
    blur: bool = False

    def __post_init__(self) -> None:
        whole_number(self.size, "size", least=SMALLEST_SIDE, most=LARGEST_SIDE)
        if self.region not in REGIONS:
            raise InputError(f"region must be one of {', '.join(REGIONS)}; got {self.region!r}")
        for name in ("equalise", "blur"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False; got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary ready for JSON."""
        return asdict(self) | {"size": int(self.size)}

    def prepare(self, pixels: _Bytes, mask: _Lungs | None) -> _Bytes:
        """Bring one radiograph to what a network reads.

        The steps, in this order:

        1. *region*: what is not to be seen becomes 0, before anything else, so that it influences nothing;
        2. *equalise*: the visible pixels' grey levels are spread evenly over 0 to 255, by their own histogram alone
           (of a full image this is OpenCV's ``equalizeHist``);
        3. *resize* to a square: areas are averaged when shrinking (``INTER_AREA``), values interpolated linearly
           when enlarging. The aspect ratio is given up, as the reports and the public data sets did. Along the rim
           of the region a pixel mixes with 0 by its share of area;
        4. *blur*: a Gaussian window of 5 × 5 pixels (deviation 1.1) of the square, which softens the rim, too.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (height, width)
        mask : ndarray of bool, shape (height, width), or None
            True inside the lungs. None for the region ``"full"`` only, which uses none.

        Returns
        -------
        ndarray of uint8, shape (size, size)
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or not pixels.size:
            raise InputError(
                f"pixels must be uint8 (height, width); got {pixels.dtype} of shape {pixels.shape}"
            )
        visible: _Lungs | None = None
        if self.region != "full":
            if mask is None:
                raise InputError(
                    f"mask must be given for the region {self.region!r}; only 'full' does without"
                )
            if mask.dtype != np.bool_ or mask.shape != pixels.shape:
                raise InputError(
                    f"mask must be bool of shape {pixels.shape}; got {mask.dtype} of shape {mask.shape}"
                )
            visible = mask if self.region == "lungs" else ~mask
            pixels = np.where(visible, pixels, np.uint8(0))
        if self.equalise:
            pixels = _equalised(pixels, visible)
        square = _resized(pixels, self.size)
        return as_bytes(cv2.GaussianBlur(square, _WINDOW, 0)) if self.blur else square


def _equalised(pixels: _Bytes, visible: _Lungs | None) -> _Bytes:
    """Spread the visible pixels' levels evenly; what is hidden stays 0."""
    if visible is None:
        return as_bytes(cv2.equalizeHist(pixels))
    counts = np.bincount(pixels[visible], minlength=256)
    cumulated = np.cumsum(counts)
    total = cumulated[-1]
    lowest = counts[counts > 0][0] if total else 0
    if total == lowest:  # one level alone, or none: there is nothing to spread
        return pixels
    levels = np.rint((cumulated - lowest).clip(0) * (255.0 / (total - lowest)))
    return np.where(visible, levels.astype(np.uint8)[pixels], np.uint8(0))


def _resized(pixels: _Bytes, size: int) -> _Bytes:
    """Shrink by area first, then enlarge: OpenCV averages areas only where both sides shrink."""
    height, width = pixels.shape
    if (height, width) == (size, size):
        return pixels.copy()
    smaller = (min(width, size), min(height, size))
    shrunk = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    return as_bytes(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR))


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
        """Return some of the images: booleans, one for each, or positions in the order wanted."""
        index = np.asarray(rows)
        if index.dtype == np.bool_ and index.shape != (len(self),):
            raise InputError(f"rows must be {len(self)} booleans, one for each image; got {index.shape}")
        return replace(self, pixels=self.pixels[index], table=self.table.iloc[index])


def read_images(
    manifest: pd.DataFrame,
    settings: InputSettings,
    *,
    lungs: str = "given",
    n_jobs: int = 1,
    progress: bool = False,
) -> ReferenceImages:
    """Read and prepare every image of a manifest.

    An image that cannot be used keeps its row, with the reason. With ``"lungs"`` and ``"hidden"`` the same images
    are refused as by :func:`~histcxr.features.extraction.extract_features`.

    Parameters
    ----------
    manifest : DataFrame
        With the columns ``image`` and (unless the region is ``"full"``) ``mask``, paths of files (a mask may be
        ``""``); the others are kept.
    settings : InputSettings
    lungs : {"given", "found", "either"}, default="given"
        Whose masks: those of the manifest, those that the network that comes with histcxr finds for every image, or
        the network's where the manifest has none. The region ``"full"`` uses none.
    n_jobs : int, default=1
        Threads; -1 for one a core. Decoding releases the interpreter lock.
    progress : bool, default=False
        Whether to show a progress bar on standard error.

    Raises
    ------
    InputError
        When the manifest has no such columns, or the pixels take more than 8 GiB.

    Warns
    -----
    HistcxrWarning
        When the column ``lungs_only`` says that images hold nothing else and the region asks for more.
    """
    size, region, n = settings.size, settings.region, len(manifest)
    masks, segmenter = _lungs_of(manifest, lungs, full=region == "full")
    if n * size * size > MAX_BYTES:
        raise InputError(
            f"{n} images of {size} x {size} pixels take {n * size * size} bytes, more than {MAX_BYTES}; give a "
            "smaller size or fewer images"
        )
    _warn_of_lungs_only(manifest, region)
    pixels, images = np.zeros((n, size, size), np.uint8), _paths(manifest["image"])

    def read(row: int) -> UnjudgeableError | None:
        try:
            pixels[row] = _read_one(images[row], masks[row], settings, segmenter)
        except UnjudgeableError as error:
            return error
        return None

    # Threads and nothing else: they write into one array.
    done = Parallel(n_jobs=n_jobs, require="sharedmem", return_as="generator")(
        delayed(read)(row) for row in range(n)
    )
    if progress:
        from tqdm import tqdm

        done = tqdm(done, total=n, unit="image", desc="reading")
    failed = list(done)
    reasons = ["" if error is None else error.reason.value for error in failed]
    details = ["" if error is None else error.detail for error in failed]
    return ReferenceImages(pixels, manifest.assign(reason=reasons, detail=details), settings)


def read_lung_squares(
    manifest: pd.DataFrame, *, size: int, lungs: str = "given"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Read where the lungs of each image lie in the square that a network sees.

    Returns bool (n, size, size), False where they are not known, and bool (n,), whether they are.
    """

    def shrunk(_: _Bytes, found: _Lungs, __: str) -> _Lungs:
        return cv2.resize(found.view(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST_EXACT) > 0

    masks, segmenter = _lungs_of(manifest, lungs)
    squares, known = np.zeros((len(manifest), size, size), np.bool_), np.zeros(len(manifest), np.bool_)
    for row, (image, mask) in enumerate(zip(_paths(manifest["image"]), masks, strict=True)):
        try:
            squares[row], _ = measure_image(image, mask, shrunk, segmenter=segmenter)
        except UnjudgeableError:
            continue
        known[row] = True
    return squares, known


def lung_square(pixels: _Bytes, lungs: _Lungs, name: str = "", *, settings: InputSettings) -> _Bytes:
    """Prepare an image whose lungs are known, and refuse the same ones as histograms do, whatever the region.

    :class:`RadiographError`: see :func:`~histcxr.features.measuring.checked_histogram`; and ``blank`` where the lungs
    are hidden and there is nothing beside them.
    """
    checked_histogram(pixels, lungs, 1, name)
    if settings.region == "hidden" and not pixels[~lungs].any():
        raise RadiographError(Reason.BLANK, name, "there is nothing outside of the lungs")
    return settings.prepare(pixels, None if settings.region == "full" else lungs)


def _read_one(image: str, mask: str, settings: InputSettings, segmenter: Segmenter | None) -> _Bytes:
    if settings.region == "full":  # no lungs are looked for, so that none need be found
        pixels = read_radiograph(image).pixels
        check_lungs(pixels, np.ones(pixels.shape, np.bool_), image)
        return settings.prepare(pixels, None)
    square, _ = measure_image(
        image, mask, lambda *found: lung_square(*found, settings=settings), segmenter=segmenter
    )
    return square


def _lungs_of(
    manifest: pd.DataFrame, lungs: str, *, full: bool = False
) -> tuple[list[str], Segmenter | None]:
    """Return the masks' paths and what finds lungs, after a look at the columns; ``full``: neither is wanted."""
    if lungs not in LUNGS:
        raise InputError(f"lungs must be one of {', '.join(LUNGS)}; got {lungs!r}")
    wanted = ["image"] if full else ["image", "mask"]
    if missing := [column for column in wanted if column not in manifest.columns]:
        raise InputError(f"manifest must have the columns {', '.join(wanted)}; missing: {', '.join(missing)}")
    masks = [""] * len(manifest) if full or lungs == "found" else _paths(manifest["mask"])
    return masks, None if full or lungs == "given" else load_segmenter()


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
