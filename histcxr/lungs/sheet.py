"""A sheet to look at: small radiographs with the outline of their lungs drawn in, or with what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Tile", "draw_sheet", "make_tile"]

_SIDE: Final = 224
_CAPTION: Final = 18
_GREEN, _RED, _WHITE = (80, 220, 80), (60, 60, 230), (230, 230, 230)  # blue first, as OpenCV has it


class Tile(NamedTuple):
    """One picture of a sheet, uint8 ``(side + caption, side, 3)``."""

    picture: NDArray[np.uint8]


def make_tile(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, caption: str) -> Tile:
    """Draw one radiograph.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
    mask : ndarray of bool, shape (height, width), or None
        Its lungs; None frames the picture in red.
    caption : str
        Its name, or what was wrong.
    """
    height, width = pixels.shape
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ground = np.zeros((_SIDE + _CAPTION, _SIDE, 3), np.uint8)
    picture = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    if mask is None:
        cv2.rectangle(picture, (0, 0), (size[0] - 1, size[1] - 1), _RED, 3)
    else:
        small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, _GREEN, 1)
    ground[: size[1], : size[0]] = picture
    text = caption if len(caption) <= 34 else f"...{caption[-31:]}"
    colour = _RED if mask is None else _WHITE
    place = (2, _SIDE + _CAPTION - 5)
    cv2.putText(ground, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)
    return Tile(ground)


def draw_sheet(tiles: Sequence[Tile], columns: int = 8) -> NDArray[np.uint8]:
    """Lay tiles side by side.

    Parameters
    ----------
    tiles : sequence of Tile
        At least one.
    columns : int

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        In OpenCV's order of colours.
    """
    rows = -(-len(tiles) // columns)
    height, width, _ = tiles[0].picture.shape
    across = min(columns, len(tiles))
    sheet = np.zeros((rows * height, across * width, 3), np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = tile.picture
    return sheet
