"""Slight changes of position and exposure by which a network in training never sees the same picture twice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError

#: What comes in from beyond the picture's edge, with OpenCV's name for it.
FILLS = {"black": cv2.BORDER_CONSTANT, "edge": cv2.BORDER_REPLICATE}

#: In place of an augmentation: the one that an architecture was published with.
PUBLISHED: Final = "published"

_Bytes = NDArray[np.uint8]

_LEVELS = np.arange(256) / 255

_VIEW_SEED = 7


@dataclass(frozen=True)
class Augmentation:
    """How far pictures may be changed in training; never in validation. InputError when a number is out of range.

    Each change is drawn evenly from its range, by itself, anew for every picture in every epoch. All numbers but
    ``rotation`` (up to 180) are below 1.

    - ``translation``: largest shift, across and downwards, as a share of the side
    - ``rotation``: largest turn to either side, in degrees
    - ``zoom``: share by which the picture grows or shrinks
    - ``stretch``: share by which it grows in one direction and shrinks in the other, where aspect ratios tell the class
    - ``intensity``: share by which grey levels are multiplied up or down, cut off at 255
    - ``gamma``: grey levels on [0, 1] are raised to the power e to the plus or minus this much
    - ``flip``: whether half are mirrored left to right; off, for a chest is not symmetric
    - ``fill``: what comes in from beyond the edge: 0 (``"black"``) or the edge's own values (``"edge"``)
    - ``mixup``: each picture is blended with another of its batch, and so are their classes, by a share drawn from
      Beta(mixup, mixup) (Zhang et al., 2018); 0 blends none; :meth:`apply` does not
    """

    translation: float = 0.1
    rotation: float = 10.0
    zoom: float = 0.15
    stretch: float = 0.0
    intensity: float = 0.1
    gamma: float = 0.0
    flip: bool = False
    fill: str = "black"
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("translation", "zoom", "stretch", "intensity", "gamma", "mixup"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be a number from 0 to below 1; got {getattr(self, name)!r}")
        if not _is_number(self.rotation) or not 0 <= self.rotation <= 180:
            raise InputError(f"rotation must be a number of degrees from 0 to 180; got {self.rotation!r}")
        if not isinstance(self.flip, bool | np.bool_):
            raise InputError(f"flip must be True or False; got {self.flip!r}")
        if self.fill not in FILLS:
            raise InputError(f"fill must be one of {', '.join(FILLS)}; got {self.fill!r}")

    def apply(self, image: _Bytes, rng: np.random.Generator) -> _Bytes:
        """Return the picture, uint8 (height, width), changed at random; any settings draw as many numbers."""
        height, width = image.shape
        across, down, turn, growth, light = rng.uniform(-1, 1, 5).tolist()
        mirrored = bool(rng.random() < 0.5) and self.flip
        aspect, bend = rng.uniform(-1, 1, 2).tolist()
        angle = math.radians(self.rotation * turn)
        scale = 1 + self.zoom * growth
        matrix = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        matrix = matrix @ np.diag([1 + self.stretch * aspect, 1 / (1 + self.stretch * aspect)])
        if mirrored:
            matrix[:, 0] *= -1
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = self.translation * np.array([across * width, down * height])
        affine = np.column_stack([matrix, centre - matrix @ centre + shift])
        changed = image
        if not np.array_equal(affine, np.eye(2, 3)):
            changed = as_bytes(
                cv2.warpAffine(image, affine, (width, height), borderMode=FILLS[self.fill], borderValue=[0])
            )
        if self.intensity or self.gamma:
            levels = 255 * _LEVELS ** math.exp(self.gamma * bend) * (1 + self.intensity * light)
            return as_bytes(cv2.LUT(changed, np.rint(levels).clip(0, 255).astype(np.uint8)))
        return changed.copy() if changed is image else changed


def augmented_batch(
    images: _Bytes,
    rows: Sequence[int] | NDArray[np.integer],
    augmentation: Augmentation | None,
    *,
    seed: int,
    epoch: int,
) -> _Bytes:
    """Return some images, uint8 (n, height, width), each changed as seed, epoch (not negative) and its row number say.

    Neither the order of rows nor batches matter, so threads may come in any order. None copies the images.
    """
    if augmentation is None:
        return images[np.asarray(rows, np.intp)]
    batch = np.empty((len(rows), *images.shape[1:]), np.uint8)
    for place, row in enumerate(rows):
        batch[place] = augmentation.apply(images[row], np.random.default_rng([seed, epoch, int(row)]))
    return batch


def seen_again(images: _Bytes, view: int, *, mirrored: bool = False) -> _Bytes:
    """Return images, uint8 (n, height, width), all changed alike by :data:`VIEW`; view 0 is the images themselves.

    Where ``mirrored``, each view is followed by its mirror image: 1 is that of 0. The mean score over views is steadier
    than one (test-time augmentation; Krizhevsky et al., 2012).
    """
    if mirrored:
        view, turned = divmod(view, 2)
        images = images[:, :, ::-1] if turned else images
    if view == 0:
        return images
    changed = np.empty_like(images)
    for row, image in enumerate(images):
        changed[row] = VIEW.apply(image, np.random.default_rng([_VIEW_SEED, view]))
    return changed


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def as_bytes(array: NDArray[np.generic]) -> _Bytes:
    """Tell the type checker what OpenCV gives back for bytes."""
    return array.astype(np.uint8, copy=False)


_STRONG: Final = Augmentation(rotation=15, zoom=0.2, stretch=0.15, intensity=0.2, gamma=0.3)

#: How far training images may be changed, by name. The strong one is for sets whose test images come from elsewhere:
#: it takes away what position, aspect ratio and exposure tell of the source. The mixed one also mirrors and blends, for
#: large networks that would learn the training images by heart.
STRENGTHS: Final[Mapping[str, Augmentation | None]] = MappingProxyType(
    {
        "none": None,
        "mild": Augmentation(),
        "strong": _STRONG,
        "mixed": replace(_STRONG, flip=True, mixup=0.2),
    }
)

#: How far a picture may be changed when it is seen again: half as far as the mild setting.
VIEW: Final = Augmentation(translation=0.05, rotation=5, zoom=0.075, intensity=0.05)
