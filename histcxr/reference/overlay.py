"""Pictures of Grad-CAM maps: one map over its radiograph, and a grid of them by class."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import whole_number
from histcxr.exceptions import InputError
from histcxr.files.writing import write_image

__all__ = ["overlay", "save_grid"]

_Bytes = NDArray[np.uint8]

#: How much of the radiograph a map's highest value hides.
_OPACITY = 0.6
_CAPTION = 22  # pixels
_GAP = 4  # pixels


def overlay(image: ArrayLike, cam: ArrayLike) -> _Bytes:
    """Lay a map over its radiograph in colours: the higher, the redder and the less of the radiograph shows.

    Parameters
    ----------
    image : uint8 or float (rows, columns)
        Grey levels, 0 to 255.
    cam : float (rows, columns)
        From 0 to 1; stretched to the image where their sizes differ.

    Returns
    -------
    uint8 (rows, columns, 3)
        Red, green, blue. Where the map is 0, the radiograph.

    Raises
    ------
    InputError
        When either is no image, or the map leaves 0 to 1.
    """
    grey, heat = np.asarray(image, dtype=np.float32), np.asarray(cam, dtype=np.float32)
    for name, values in (("image", grey), ("cam", heat)):
        if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
            raise InputError(f"{name} must be finite, of shape (rows, columns); got shape {values.shape}")
    if heat.min() < 0 or heat.max() > 1:
        raise InputError(f"cam must lie between 0 and 1; it goes from {heat.min():g} to {heat.max():g}")
    if heat.shape != grey.shape:
        heat = np.asarray(cv2.resize(heat, grey.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    colours = cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = _OPACITY * heat[..., None]
    mixed = (1 - opacity) * grey.clip(0, 255)[..., None] + opacity * colours
    return np.rint(mixed).astype(np.uint8)


def save_grid(
    path: str | os.PathLike[str],
    images: Sequence[ArrayLike] | NDArray[np.generic],
    cams: Sequence[ArrayLike] | NDArray[np.generic],
    labels: Sequence[str],
    *,
    columns: int = 6,
    side: int = 224,
) -> None:
    """Write a grid by class: for each class a row of radiographs and below it the same with their maps.

    Parameters
    ----------
    path : path-like
        An image file; its ending names the format, such as ``.png``. Its folder is made.
    images : sequence of uint8 or float (rows, columns)
        Grey levels, 0 to 255.
    cams : sequence of float (rows, columns)
        The map of each image, from 0 to 1.
    labels : sequence of str
        The class of each image. Classes stand in the order in which they come up. Signs outside ASCII are shown
        as question marks.
    columns : int, default 6
        Images of each class at most, the first ones.
    side : int, default 224
        Of one picture in the grid, in pixels; at least 32.

    Raises
    ------
    InputError
        When there is nothing to show, the lengths differ, or the format is unknown.
    """
    whole_number(columns, "columns", least=1)
    whole_number(side, "side", least=32)
    if not len(images) == len(cams) == len(labels) or not len(images):
        raise InputError(
            "images, cams and labels must be as many, and at least one; "
            f"got {len(images)}, {len(cams)} and {len(labels)}"
        )
    shown = {name: [i for i, label in enumerate(labels) if label == name][:columns] for name in labels}
    width = max(map(len, shown.values())) * (side + _GAP) + _GAP
    height = _CAPTION + 2 * (side + _GAP)
    canvas = np.full((len(shown) * height + _GAP, width, 3), 255, np.uint8)
    for row, (name, chosen) in enumerate(shown.items()):
        top = row * height
        _write_caption(canvas[top : top + _CAPTION], str(name))
        for column, i in enumerate(chosen):
            grey = np.rint(np.asarray(images[i], dtype=np.float32).clip(0, 255)).astype(np.uint8)
            left = _GAP + column * (side + _GAP)
            for line, picture in enumerate((cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), overlay(grey, cams[i]))):
                start = top + _CAPTION + line * (side + _GAP)
                canvas[start : start + side, left : left + side] = cv2.resize(
                    picture, (side, side), interpolation=cv2.INTER_AREA
                )
    write_image(path, canvas[..., ::-1])


def _write_caption(strip: _Bytes, text: str) -> None:
    plain = text.encode("ascii", "replace").decode("ascii")
    picture = np.ascontiguousarray(strip)
    cv2.putText(
        picture, plain, (_GAP, _CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
    )
    strip[:] = picture
