"""One radiograph to the square that a reference network reads: lungs only, lungs hidden, or the full image.

Each image is prepared by itself; no statistic of other images enters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError

__all__ = ["LARGEST_SIDE", "REGIONS", "SMALLEST_SIDE", "InputSettings", "prepare_image"]

#: What of an image the network sees: the lungs, everything but the lungs, or everything.
REGIONS: Final = ("lungs", "hidden", "full")

#: Smallest and largest side of a network's input, in pixels.
SMALLEST_SIDE, LARGEST_SIDE = 8, 2048

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
        See :func:`prepare_image`.

    Raises
    ------
    InputError
        When a setting is out of its range.
    """

    size: int
    region: str = "lungs"
    equalise: bool = False
    blur: bool = False

    def __post_init__(self) -> None:
        size = self.size
        if (
            not isinstance(size, int | np.integer)
            or isinstance(size, bool)
            or not SMALLEST_SIDE <= size <= LARGEST_SIDE
        ):
            raise InputError(
                f"size must be a whole number of pixels from {SMALLEST_SIDE} to {LARGEST_SIDE}; got {size!r}"
            )
        if self.region not in REGIONS:
            raise InputError(f"region must be one of {', '.join(REGIONS)}; got {self.region!r}")
        for name in ("equalise", "blur"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False; got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary ready for JSON."""
        return asdict(self) | {"size": int(self.size)}

    def prepare(self, pixels: _Bytes, mask: _Lungs | None) -> _Bytes:
        """Do what :func:`prepare_image` does, with these settings."""
        return prepare_image(
            pixels, mask, size=self.size, region=self.region, equalise=self.equalise, blur=self.blur
        )


def prepare_image(
    pixels: _Bytes,
    mask: _Lungs | None,
    *,
    size: int,
    region: str = "lungs",
    equalise: bool = False,
    blur: bool = False,
) -> _Bytes:
    """Bring one radiograph to what a network reads.

    The steps, in this order:

    1. *region*: what is not to be seen becomes 0, before anything else, so that it influences nothing;
    2. *equalise*: the visible pixels' grey levels are spread evenly over 0 to 255, by their own histogram alone
       (of a full image this is OpenCV's ``equalizeHist``);
    3. *resize* to a square: areas are averaged when shrinking (``INTER_AREA``), values interpolated linearly when
       enlarging. The aspect ratio is given up, as the reports and the public data sets did. Along the rim of the
       region a pixel mixes with 0 by its share of area;
    4. *blur*: a Gaussian window of 5 × 5 pixels (deviation 1.1) of the square, which softens the rim, too.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
    mask : ndarray of bool, shape (height, width), or None
        True inside the lungs. None for the region ``"full"`` only, which uses none.
    size, region, equalise, blur
        See :class:`InputSettings`.

    Returns
    -------
    ndarray of uint8, shape (size, size)

    Raises
    ------
    InputError
        When an argument does not fit.
    """
    InputSettings(size, region, equalise, blur)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or not pixels.size:
        raise InputError(f"pixels must be uint8 (height, width); got {pixels.dtype} of shape {pixels.shape}")
    visible: _Lungs | None = None
    if region != "full":
        if mask is None:
            raise InputError(f"mask must be given for the region {region!r}; only 'full' does without")
        if mask.dtype != np.bool_ or mask.shape != pixels.shape:
            raise InputError(
                f"mask must be bool of shape {pixels.shape}; got {mask.dtype} of shape {mask.shape}"
            )
        visible = mask if region == "lungs" else ~mask
        pixels = np.where(visible, pixels, np.uint8(0))
    if equalise:
        pixels = _equalised(pixels, visible)
    square = _resized(pixels, size)
    return _as_bytes(cv2.GaussianBlur(square, _WINDOW, 0)) if blur else square


def _equalised(pixels: _Bytes, visible: _Lungs | None) -> _Bytes:
    """Spread the visible pixels' levels evenly; what is hidden stays 0."""
    if visible is None:
        return _as_bytes(cv2.equalizeHist(pixels))
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
    return _as_bytes(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR))


def _as_bytes(array: NDArray[np.generic]) -> _Bytes:
    """Tell the type checker what OpenCV gives back for bytes."""
    return array.astype(np.uint8, copy=False)
