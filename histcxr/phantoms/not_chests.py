"""Pictures that a triage of chest radiographs must not judge, drawn from a seed, and radiographs made unfit for it.

They are what rejection is measured on: :func:`draw_not_chest` draws what is no frontal chest radiograph at all,
:data:`TRANSFORMS` turn a sound one into one that was exported, exposed or cropped wrongly.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.phantoms import limbs as limbs
from histcxr.phantoms import pictures as pictures
from histcxr.phantoms import trunk as trunk

Image = NDArray[np.uint8]

_DRAW: dict[str, Callable[[np.random.Generator], Image]] = {
    "photograph": pictures.draw_photograph,
    "grey_photograph": pictures.draw_grey_photograph,
    "text": pictures.draw_text,
    "noise": pictures.draw_noise,
    "blank": pictures.draw_blank,
    "lateral": trunk.draw_lateral,
    "hand": limbs.draw_hand,
    "foot": limbs.draw_foot,
    "skull": trunk.draw_skull,
    "pelvis": trunk.draw_pelvis,
    "knee": limbs.draw_knee,
    "abdomen": trunk.draw_abdomen,
}

KINDS = tuple(_DRAW)
"""What :func:`draw_not_chest` draws."""


def draw_not_chest(kind: str, rng: np.random.Generator) -> Image:
    """Draw something that is no frontal chest radiograph.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    rng : numpy.random.Generator
        Decides on everything else: size, position, exposure, contrast, texture, grain.

    Returns
    -------
    uint8 (height, width), or (height, width, 3) with red first for ``"photograph"``
        256 to 1024 pixels a side.

    Raises
    ------
    InputError
        When the kind is unknown.
    """
    if kind not in _DRAW:
        raise InputError(f"kind must be one of {', '.join(KINDS)}; it is {kind!r}")
    return _DRAW[kind](rng)


def _inverted(pixels: Image) -> Image:
    return 255 - pixels


def _turned(times: int) -> Callable[[Image], Image]:
    def turn(pixels: Image) -> Image:
        return np.ascontiguousarray(np.rot90(pixels, -times))  # clockwise

    return turn


def _upside_down(pixels: Image) -> Image:
    return np.ascontiguousarray(pixels[::-1])


def _left_half(pixels: Image) -> Image:
    return np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2])


def _right_half(pixels: Image) -> Image:
    return np.ascontiguousarray(pixels[:, pixels.shape[1] // 2 :])


def _upper_half(pixels: Image) -> Image:
    return np.ascontiguousarray(pixels[: pixels.shape[0] // 2])


def _overexposed(pixels: Image) -> Image:
    """The middle and everything brighter burnt to white, a quarter of the range left below."""
    return _stretched(pixels, np.percentile(pixels, 10), np.percentile(pixels, 35))


def _underexposed(pixels: Image) -> Image:
    """Everything but the brightest bones lost in black."""
    return _stretched(pixels, np.percentile(pixels, 65), np.percentile(pixels, 99))


def _stretched(pixels: Image, black: float, white: float) -> Image:
    levels = (pixels.astype(np.float32) - np.float32(black)) * np.float32(255 / max(white - black, 1.0))
    return np.clip(levels, 0, 255).astype(np.uint8)


def _solarised(pixels: Image) -> Image:
    """Brighter than middle grey turned round: what a wrong sign of stored values makes of a radiograph."""
    return np.where(pixels < 128, 2 * pixels.astype(np.int16), 2 * (255 - pixels.astype(np.int16))).astype(
        np.uint8
    )


def _two_images(pixels: Image) -> Image:
    """Two radiographs side by side on one image, as for comparison."""
    gap = np.zeros((pixels.shape[0], max(2, pixels.shape[1] // 40)), np.uint8)
    return np.ascontiguousarray(np.hstack([pixels, gap, cv2.convertScaleAbs(pixels, alpha=0.9)]))


TRANSFORMS: dict[str, Callable[[Image], Image]] = {
    "inverted": _inverted,
    "turned90": _turned(1),
    "turned180": _turned(2),
    "turned270": _turned(3),
    "upside_down": _upside_down,
    "left_half": _left_half,
    "right_half": _right_half,
    "upper_half": _upper_half,
    "overexposed": _overexposed,
    "underexposed": _underexposed,
    "solarised": _solarised,
    "two_images": _two_images,
}
"""Name to function: uint8 (height, width) of a frontal chest radiograph in, one that must not be judged out.

Pure functions; none changes its input. ``left_half`` and ``right_half`` keep one lung, ``upper_half`` cuts the lower
half away; ``turned90`` is clockwise.
"""
