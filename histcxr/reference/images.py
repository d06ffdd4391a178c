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
from histcxr.data.fingerprints import FINGERPRINT_BYTES, fingerprint
from histcxr.data.radiograph import WORKING_SIDE, check_lungs, read_radiograph
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

    ``size``: side in pixels; ``region``: ``"lungs"`` (all else is 0), ``"hidden"`` (the lungs are 0) or ``"full"`` (no
    mask); ``equalise, blur``: see :meth:`prepare`.
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

    @property
    def side(self) -> int:
        """The longer side, in pixels, of the working image that is prepared."""
        return max(WORKING_SIDE, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary ready for JSON."""
        return asdict(self) | {"size": int(self.size)}

    def prepare(self, pixels: _Bytes, mask: _Lungs | None) -> _Bytes:
        """Bring a radiograph, uint8 (height, width), to what a network reads, uint8 (size, size).

        ``mask``: bool (height, width), True inside the lungs; None for the region ``"full"`` only. In this order:

        1. *region*: what is not to be seen becomes 0, so that it influences nothing;
        2. *equalise*: visible grey levels are spread evenly over 0 to 255 (OpenCV's ``equalizeHist`` of a full image);
        3. *resize* to a square, areas averaged when shrinking (``INTER_AREA``), linear when enlarging;
        4. *blur*: a Gaussian window of 5 × 5 pixels (deviation 1.1) of the square.
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
    """The prepared images of a manifest: ``pixels``, uint8 (n, size, size), zeros where an image is not usable.

    ``table``: the manifest with the columns ``reason`` (``""``, or the code why not usable) and ``detail`` added;
    ``fingerprints``: uint8 (n, 72) or None, zeros where not usable; see :mod:`histcxr.data.fingerprints`.
    """

    pixels: _Bytes
    table: pd.DataFrame
    settings: InputSettings
    fingerprints: _Bytes | None = None

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
        prints = None if self.fingerprints is None else self.fingerprints[index]
        return replace(self, pixels=self.pixels[index], table=self.table.iloc[index], fingerprints=prints)


def read_images(
    manifest: pd.DataFrame,
    settings: InputSettings,
    *,
    lungs: str = "given",
    n_jobs: int = 1,
    progress: bool = False,
) -> ReferenceImages:
    """Read and prepare every image of a manifest; one that cannot be used keeps its row, with the reason.

    ``manifest`` has the columns ``image`` and, unless the region is ``"full"``, ``mask``: paths, a mask may be ``""``.
    ``lungs``: ``"given"`` there, ``"found"`` by histcxr's own network, or ``"either"``: found where none is given.
    ``n_jobs``: threads, -1 for one a core. With lungs, :func:`~histcxr.features.extraction.extract_features` refuses
    the same images.

    InputError: no such columns, or pixels of more than 8 GiB. A HistcxrWarning says that the column ``lungs_only``
    contradicts the region.
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
    fingerprints = np.zeros((n, FINGERPRINT_BYTES), np.uint8)

    def read(row: int) -> UnjudgeableError | None:
        try:
            pixels[row], fingerprints[row] = _read_one(images[row], masks[row], settings, segmenter)
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
    found = [("", "") if error is None else (error.reason.value, error.detail) for error in failed]
    table = manifest.assign(reason=[reason for reason, _ in found], detail=[detail for _, detail in found])
    return ReferenceImages(pixels, table, settings, fingerprints)


def read_lung_squares(
    manifest: pd.DataFrame, *, size: int, lungs: str = "given"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where lungs lie in a network's square, bool (n, size, size), and whether they are known, bool (n,)."""

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
    """Prepare an image whose lungs are known; RadiographError where histograms refuse it, whatever the region.

    See :func:`~histcxr.features.measuring.checked_histogram`; ``blank`` where hidden lungs leave nothing.
    """
    checked_histogram(pixels, lungs, 1, name)
    if settings.region == "hidden" and not pixels[~lungs].any():
        raise RadiographError(Reason.BLANK, name, "there is nothing outside of the lungs")
    return settings.prepare(pixels, None if settings.region == "full" else lungs)


def _read_one(
    image: str, mask: str, settings: InputSettings, segmenter: Segmenter | None
) -> tuple[_Bytes, _Bytes]:
    """Return what a network sees, and the fingerprint of the pixels before anything is hidden."""
    if settings.region == "full":  # no lungs are looked for, so that none need be found
        pixels = read_radiograph(image, side=settings.side).pixels
        check_lungs(pixels, np.ones(pixels.shape, np.bool_), image)
        return settings.prepare(pixels, None), fingerprint(pixels)

    def both(pixels: _Bytes, mask: _Lungs, name: str) -> tuple[_Bytes, _Bytes]:
        return lung_square(pixels, mask, name, settings=settings), fingerprint(pixels)

    return measure_image(image, mask, both, segmenter=segmenter, side=settings.side)[0]


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
