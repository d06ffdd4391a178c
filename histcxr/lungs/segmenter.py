"""Finding lungs in radiographs, with ONNX Runtime alone: pixels in, a lung mask or a reason out.

The network sees a small square of mean 0 and standard deviation 1. The aspect ratio is given up, as in training.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.radiograph import working_image
from histcxr.exceptions import MaskError, ModelError, RadiographError, Reason, UnjudgeableError
from histcxr.files.reading import parse_json, read_file
from histcxr.lungs.shape import SIZE, enlarged, find_lungs, polarity
from histcxr.lungs.unet import check_onnx
from histcxr.networks.onnx_model import open_session

#: Side of the square that training disturbs and that is then shrunk to the network's size, in pixels.
PAIR_SIZE: Final = 2 * SIZE

# Half a grey level: an image without contrast becomes zeros, not amplified noise.
_FLOOR: Final = 0.5

#: The longer side of a chest radiograph is at most so many times the shorter one.
MAX_ASPECT: Final = 2.0

# Bytes of a network's file; the one in the package has 1.7 million.
_MOST_BYTES: Final = 64 << 20

# Pictures that the network sees at a time: bounds the memory for activations.
_BATCH: Final = 32


def shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a radiograph, uint8 ``(height, width)``, to the network's size: uint8 ``(SIZE, SIZE)``."""
    # By the square that training starts from: the same pixels come out a little sharper otherwise.
    return np.asarray(cv2.resize(squared(pixels), (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def squared(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a radiograph to :data:`PAIR_SIZE` pixels a side, interpolated from the working image."""
    size = (PAIR_SIZE, PAIR_SIZE)
    return np.asarray(cv2.resize(working_image(pixels), size, interpolation=cv2.INTER_LINEAR), np.uint8)


def standardised(square: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give a picture the mean 0 and the standard deviation 1, so that exposure and contrast matter little."""
    mean, deviation = cv2.meanStdDev(square)
    scaled = square.astype(np.float32)
    scaled -= np.float32(mean[0, 0])
    scaled /= np.float32(max(float(deviation[0, 0]), _FLOOR))
    return scaled


class Found(NamedTuple):
    """The lungs of one radiograph: bool ``(height, width)``, and the squared distance from those of the training."""

    mask: NDArray[np.bool_]
    distance: float


class Segmenter:
    """The network that finds lungs, ready to use; may be used from several threads.

    Made from the bytes of an ONNX file of ``histcxr segment-train``, else ModelError. ``digest``: SHA-256 of the file
    in hex; ``about``: what it says of itself, data, figures, limits.
    """

    def __init__(self, model: bytes) -> None:
        if len(model) > _MOST_BYTES:
            raise ModelError(
                f"this ONNX file has more than {_MOST_BYTES >> 20} MiB; no network for lungs has"
            )
        check_onnx(model)
        self._model = model
        self.digest = hashlib.sha256(model).hexdigest()
        self._session = open_session(model)
        inputs = [(value.name, value.shape[1:]) for value in self._session.get_inputs()]
        outputs = {value.name for value in self._session.get_outputs()}
        about = self._session.get_modelmeta().custom_metadata_map.get("about", "")
        try:
            self.about: dict[str, Any] = parse_json(about.encode())
            self._farthest, self._lowest = (float(self.about[name]) for name in ("farthest", "lowest"))
            if not math.isfinite(self._farthest + self._lowest):
                raise ValueError("limits that are no numbers")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(f"this ONNX file was not written by histcxr segment-train: {error!r}") from error
        wanted = {"lungs", "context", "distance", "height"}
        if inputs != [("image", [1, SIZE, SIZE])] or not wanted <= outputs:
            raise ModelError("this ONNX file does not find lungs: its inputs and outputs are others")

    def __reduce__(self) -> tuple[type[Segmenter], tuple[bytes]]:
        """Travel to another process as bytes; they are checked there, too."""
        return type(self), (self._model,)

    def segment(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str | os.PathLike[str]] | None = None
    ) -> list[Found | UnjudgeableError]:
        """Find the lungs of radiographs, uint8 (height, width), lungs dark, each by itself; ``paths`` are for messages.

        For each its lungs, or an error ``lungs_not_found``, ``lungs_implausible``, ``lungs_cut_off``, ``polarity`` or
        ``not_a_chest``.
        """
        names = [""] * len(images) if paths is None else [os.fspath(path) for path in paths]
        found: list[Found | UnjudgeableError] = []
        for squares, lungs, distances, heights in self._run(images, "lungs", "distance", "height"):
            rows = slice(len(found), len(found) + len(squares))
            part = zip(images[rows], squares, lungs, distances, heights, names[rows], strict=True)
            found += [self._judge(*one) for one in part]
        return found

    def outline(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.bool_]]:
        """Return what the network marks as lung, cleaned but unchecked: for looking at, not for judging by."""
        found = [find_lungs(one) for _, lungs in self._run(images, "lungs") for one in lungs]
        return [
            enlarged(one, (pixels.shape[0], pixels.shape[1]))
            for one, pixels in zip(found, images, strict=True)
        ]

    def contexts(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the mean of each of the deepest maps over each quarter of the picture, float32 ``(n, k)``."""
        return np.concatenate([context for _, context in self._run(images, "context")])

    def _run(self, images: Sequence[NDArray[np.uint8]], *outputs: str) -> Iterator[list[Any]]:
        """Yield, a few images at a time, their squares and what the network says of them.

        Outputs of one channel lose that axis.
        """
        for start in range(0, len(images), _BATCH):
            squares = [shrunk(pixels) for pixels in images[start : start + _BATCH]]
            seen = np.stack([standardised(square) for square in squares])
            found = self._session.run(list(outputs), {"image": seen[:, None]})
            yield [squares, *(one[:, 0] if one.shape[1] == 1 else one for one in found)]

    def _judge(
        self,
        pixels: NDArray[np.uint8],
        square: NDArray[np.uint8],
        probabilities: NDArray[np.float32],
        distance: np.float32,
        above: np.float32,
        path: str,
    ) -> Found | UnjudgeableError:
        height, width = pixels.shape
        if max(height, width) > MAX_ASPECT * min(height, width):
            return RadiographError(Reason.NOT_A_CHEST, path, f"{width} x {height} pixels")
        lungs = find_lungs(probabilities)
        if lungs.reason is None and polarity(square, lungs.mask) > 0:
            return RadiographError(Reason.POLARITY, path)
        if not distance <= self._farthest:  # so is NaN
            times = float(distance) / self._farthest
            return RadiographError(Reason.NOT_A_CHEST, path, f"{times:.1f} times as unfamiliar as the limit")
        if not above >= self._lowest:
            return RadiographError(Reason.NOT_A_CHEST, path, "turned, cut, lateral or of something else")
        if lungs.reason is not None:
            return MaskError(lungs.reason, path, lungs.detail)
        return Found(enlarged(lungs, (height, width)), float(distance))


def load_segmenter(path: str | os.PathLike[str] | None = None) -> Segmenter:
    """Load a network from an ONNX file of ``histcxr segment-train``; by default the one that comes with histcxr.

    ModelError is raised when the file is none, RadiographError when it cannot be read.
    """
    return _packaged() if path is None else Segmenter(read_file(path, _MOST_BYTES + 1))


@functools.cache
def _packaged() -> Segmenter:
    return Segmenter(resources.files("histcxr.lungs").joinpath("lungs.onnx").read_bytes())
