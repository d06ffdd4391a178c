"""Writing images: what the phantoms, and whoever makes masks, store on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError


def encode_image(pixels: NDArray[Any], extension: str = ".png", *, bilevel: bool = False) -> bytes:
    """Encode an image.

    Parameters
    ----------
    pixels : uint8 or uint16 (height, width) or (height, width, channels)
        Grey levels, or colours in OpenCV's order (blue first).
    extension : str, default ".png"
        Names the format; OpenCV must know it.
    bilevel : bool, default False
        Store one bit a pixel (PNG only): everything above 0 is white.

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        When the format is unknown.
    """
    options = [cv2.IMWRITE_PNG_BILEVEL, 1] if bilevel else []
    try:
        done, encoded = cv2.imencode(extension, pixels, options)
    except cv2.error as error:
        raise InputError(f"extension must name an image format, such as .png; it is {extension!r}") from error
    if not done:
        raise InputError(
            f"an image of shape {pixels.shape}, {pixels.dtype} cannot be stored as {extension!r}"
        )
    return encoded.tobytes()


def write_image(path: str | os.PathLike[str], pixels: NDArray[Any]) -> None:
    """Write an image in the format that its name says, and the folders that it needs.

    Raises
    ------
    InputError
        When the format is unknown.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(encode_image(pixels, place.suffix))


def write_mask(path: str | os.PathLike[str], mask: NDArray[Any]) -> None:
    """Write a mask as a PNG of one bit a pixel.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.png``.
    mask : bool or uint8 (height, width)
        Anything above 0 is lung.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(encode_image(np.where(mask, np.uint8(255), np.uint8(0)), bilevel=True))
