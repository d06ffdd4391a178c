"""Filters for the inside of the lungs, none of which ever looks outside.

All are built from one low-pass, a Gaussian by **normalised convolution** (Knutsson and Westin 1993)::

    L(s) = G(s) * (image . mask)  /  G(s) * mask

so that no pixel outside the lungs is ever used, and the mask's edge leaks nothing into the response. A band
is named by its filter and scale, e.g. ``"dog4"``:

=========  ===========================================================================================
``dogS``   band-pass ``L(S) - L(2 S)``: structures about 2 to 4 ``S`` wide, bright is positive
``dxS``    horizontal slope of ``L(S)``, brighter towards the image's right is positive
``dyS``    vertical slope of ``L(S)``, brighter downwards is positive
``dxxS``   second derivative of ``L(S)`` across, ``dyyS`` downwards, ``dxyS`` mixed: ridges, their direction
``magS``   steepness of ``L(S)`` in any direction, never negative
``stdS``   local standard deviation under the Gaussian window ``S``, never negative
=========  ===========================================================================================

``S`` is the Gaussian's standard deviation in pixels of a working image
(:func:`histcxr.data.radiograph.working_image`), whose longer side is 224 pixels; in images of another size, such as
the half of it that is filtered (:data:`~histcxr.features.recipe.BANDS_SIDE`), it shrinks or grows with them. A further
kind of band takes one entry in :data:`KINDS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.radiograph import WORKING_SIDE
from histcxr.exceptions import InputError
from histcxr.features.histograms import check_pixels

#: The bands that keep most of their worth in a hospital never seen. Use them with six zones.
TRAVEL_BANDS: Final = ("dx2", "dog4", "dog8")

#: The bands for the best figures where training and use share their hospitals.
FULL_BANDS: Final = (
    ("dog1", "dog2", "dog4", "dog8", "dx1", "dx2", "dx4", "dy1", "dy4")
    # Curvatures.
    + ("dxx2", "dxy2", "dyy2", "dxx4", "dxy4", "dyy4")
)

_NAME = re.compile(r"([a-z]+)([0-9]+(?:\.[0-9]+)?)")
# Below this a sampled Gaussian is no Gaussian any more; above, the lungs are one blur.
_SCALES = (0.5, 64.0)
# Kernels end here, in standard deviations.
_TRUNCATE: Final = 4.0
_TINY: Final = np.float32(1e-12)

_Floats = NDArray[np.float32]


class LowPasses:
    """Low-passes of one image by normalised convolution, each scale computed once: what filters are made of.

    Made from the pixels times their weight, the weight (0 or 1), and the pixels to one unit of scale.
    """

    def __init__(self, image: _Floats, weight: _Floats, unit: float) -> None:
        self.unit = unit
        self._image = image
        self._weight = weight
        self._norms: dict[float, _Floats] = {}
        self._means: dict[float, _Floats] = {}

    def mean(self, scale: float) -> _Floats:
        """Return ``L(scale)``; it has a value wherever the window reaches a pixel of the lungs, else 0."""
        if scale not in self._means:
            self._means[scale] = self._blur(self._image, scale) / self._norm(scale)
        return self._means[scale]

    def derivative(self, scale: float, dx: int, dy: int) -> _Floats:
        """Return a derivative of ``L(scale)``, of first or second order, in grey levels of a working pixel."""
        # Sobel's kernels measure a slope 8 times, a curvature 4 times; the unit makes it one of working pixels.
        factor = self.unit / 8 if dx + dy == 1 else self.unit**2 / 4
        return _floats(cv2.Sobel(self.mean(scale), cv2.CV_32F, dx, dy, ksize=3, scale=factor))

    def steepness(self, scale: float) -> _Floats:
        """Return the length of the gradient of ``L(scale)``."""
        # Not cv2.magnitude: its last bit depends on where in memory the arrays lie.
        return _floats(np.sqrt(self.derivative(scale, 1, 0) ** 2 + self.derivative(scale, 0, 1) ** 2))

    def deviation(self, scale: float) -> _Floats:
        """Return the standard deviation of the pixels under the window."""
        variance = self._blur(self._image**2, scale) / self._norm(scale) - self.mean(scale) ** 2
        return _floats(np.sqrt(np.maximum(variance, 0)))

    def _blur(self, array: _Floats, scale: float) -> _Floats:
        sigma = max(scale * self.unit, 0.05)
        size = 2 * int(_TRUNCATE * sigma + 0.5) + 1
        return _floats(cv2.GaussianBlur(array, (size, size), sigma, borderType=cv2.BORDER_CONSTANT))

    def _norm(self, scale: float) -> _Floats:
        if scale not in self._norms:
            self._norms[scale] = np.maximum(self._blur(self._weight, scale), _TINY)
        return self._norms[scale]


@dataclass(frozen=True)
class BandKind:
    """A kind of filter: how it responds, and what its responses are.

    ``respond`` takes the image's :class:`LowPasses` and a scale and returns float32 (height, width), of which only the
    lungs are used. ``signed``: responses may be negative, so zero lies in bin 128, else in bin 0. ``odd``: they change
    sign when the image is mirrored. ``codes``, for responses without an order from 0 up to 255, a bin each: what each
    code becomes in the mirror; empty where responses are measured in spreads.
    """

    respond: Callable[[LowPasses, float], _Floats]
    signed: bool = True
    odd: bool = False
    codes: tuple[int, ...] = ()


#: The kinds of band by name: small letters, which a scale follows in a band's name.
KINDS: dict[str, BandKind] = {
    "dog": BandKind(lambda low, scale: low.mean(scale) - low.mean(2 * scale)),
    "dx": BandKind(lambda low, scale: low.derivative(scale, 1, 0), odd=True),
    "dy": BandKind(lambda low, scale: low.derivative(scale, 0, 1)),
    "dxx": BandKind(lambda low, scale: low.derivative(scale, 2, 0)),
    "dyy": BandKind(lambda low, scale: low.derivative(scale, 0, 2)),
    "dxy": BandKind(lambda low, scale: low.derivative(scale, 1, 1), odd=True),
    "mag": BandKind(LowPasses.steepness, signed=False),
    "std": BandKind(LowPasses.deviation, signed=False),
}


@dataclass(frozen=True, order=True)
class Band:
    """A filter of :data:`KINDS`, and its scale in pixels of the working image, from 0.5 to 64; else InputError."""

    kind: str
    scale: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"a band's kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        low, high = _SCALES
        scale = self.scale
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not low <= scale <= high:
            raise InputError(f"a band's scale must be a number from {low:g} to {high:g}; got {scale!r}")

    @property
    def name(self) -> str:
        """The one spelling, e.g. ``"dog4"`` or ``"dx1.5"``."""
        return f"{self.kind}{self.scale:.6g}"

    @property
    def traits(self) -> BandKind:
        """What its kind is."""
        return KINDS[self.kind]

    @classmethod
    def parse(cls, name: str) -> Band:
        """Read a band's name; InputError when it is no kind followed by a scale."""
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise InputError(
                f"a band must be a kind ({', '.join(KINDS)}) and a scale, as 'dog4'; got {name!r}"
            )
        return cls(match[1], float(match[2]))


class Filtered(NamedTuple):
    """Responses inside the lungs, float32 (n_bands, n_pixels), row by row of the lungs' bounding box; its mask.

    In grey levels; slopes in grey levels a pixel.
    """

    values: _Floats
    mask: NDArray[np.bool_]


def as_bands(bands: bool | str | Iterable[str | Band]) -> tuple[Band, ...]:
    """Return bands for any way of asking for them.

    ``True`` and ``"travel"`` mean :data:`TRAVEL_BANDS`, ``"full"`` means :data:`FULL_BANDS`, ``False`` none; else
    names or bands, also as one string with commas. InputError is raised when a band is unknown, or named twice.
    """
    names: Iterable[str | Band]
    if isinstance(bands, bool):
        names = TRAVEL_BANDS if bands else ()
    elif isinstance(bands, str):
        named = {"travel": TRAVEL_BANDS, "full": FULL_BANDS, "": ()}
        names = named[bands] if bands in named else [name.strip() for name in bands.split(",")]
    elif isinstance(bands, Iterable):
        names = bands
    else:
        raise InputError(f"bands must be a bool, names, or Band objects; got {type(bands).__name__}")
    found = tuple(band if isinstance(band, Band) else Band.parse(band) for band in names)
    if len(set(found)) < len(found):
        raise InputError(f"bands must all differ; got {', '.join(band.name for band in found)}")
    return found


def filtered_images(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    bands: bool | str | Iterable[str | Band] = TRAVEL_BANDS,
) -> Filtered:
    """Filter a radiograph, uint8 ``(height, width)``, inside its lungs, bool of the same shape.

    What lies outside the mask has no influence at all; for ``bands`` see :func:`as_bands`. InputError is raised when
    dtype, dimensions or shapes do not fit, the mask is empty, or a band is unknown.
    """
    wanted = as_bands(bands)
    check_pixels(pixels, mask)
    image, weight, unit = _working(pixels, mask)
    inside = weight > 0
    places = np.flatnonzero(inside)
    values = np.empty((len(wanted), len(places)), np.float32)
    low = LowPasses(image, weight, unit)
    for place, band in zip(values, wanted, strict=True):
        # "clip" takes straight into the row; no place lies outside.
        band.traits.respond(low, band.scale).take(places, out=place, mode="clip")
    # The margin of one pixel was there for the slopes only.
    return Filtered(values, inside[1:-1, 1:-1])


def _working(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[_Floats, _Floats, float]:
    """Return image (centred, 0 outside), weight (0 or 1), both with a margin, and pixels to one unit of scale."""
    # The kernels read plain rows: flipped and strided views are copied.
    pixels, bits = np.ascontiguousarray(pixels), np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(bits)
    if not width:
        raise InputError("mask must have at least one pixel; got an empty mask")
    box = np.s_[y : y + height, x : x + width]
    weight = bits[box].astype(np.float32)
    # A whole number of grey levels near the middle: float32 stays exact, and a shift of the image cancels.
    centre = math.floor(cv2.mean(pixels[box], bits[box])[0] + 0.5)
    image = (pixels[box].astype(np.float32) - np.float32(centre)) * weight
    unit = max(pixels.shape) / WORKING_SIDE
    image, weight = (
        _floats(cv2.copyMakeBorder(array, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0))
        for array in (image, weight)
    )
    return image, weight, unit


def _floats(array: Any) -> _Floats:
    return np.asarray(array, np.float32)
