"""Finding lungs in radiographs, with ONNX Runtime alone: pixels in, a lung mask or a reason out."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import MaskError, ModelError, RadiographError, Reason, UnjudgeableError
from histcxr.files.reading import read_file
from histcxr.lungs.inputs import SIZE, network_input
from histcxr.lungs.shape import Lungs, enlarged, find_lungs, polarity
from histcxr.networks.onnx_model import open_session

__all__ = ["Found", "Segmenter", "load_segmenter"]

_PACKAGED: Final = "lungs.onnx"

#: The longer side of a chest radiograph is at most so many times the shorter one.
MAX_ASPECT: Final = 2.0

# Pictures that the network sees at a time: bounds the memory for activations.
_BATCH: Final = 32


class Found(NamedTuple):
    """The lungs of one radiograph.

    Attributes
    ----------
    mask : ndarray of bool, shape (height, width)
    distance : float
        How unfamiliar the picture looks; see :mod:`histcxr.decision.familiarity`.
    """

    mask: NDArray[np.bool_]
    distance: float


class Segmenter:
    """The network that finds lungs, ready to use; may be used from several threads.

    Parameters
    ----------
    model : bytes
        An ONNX file that ``histcxr segment-train`` has written.

    Attributes
    ----------
    digest : str
        SHA-256 of the file in hex: masks of equal digests are equal.
    about : dict
        What the file says of itself: data, figures, limits.

    Raises
    ------
    ModelError
        When it is no such file.
    """

    def __init__(self, model: bytes) -> None:
        self.digest = hashlib.sha256(model).hexdigest()
        self._session = open_session(model)
        inputs = [(value.name, value.shape[1:]) for value in self._session.get_inputs()]
        outputs = {value.name for value in self._session.get_outputs()}
        about = self._session.get_modelmeta().custom_metadata_map.get("about", "")
        try:
            self.about: dict[str, Any] = json.loads(about)
            self._farthest, self._lowest = (float(self.about[name]) for name in ("farthest", "lowest"))
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"this ONNX file was not written by histcxr segment-train: {error!r}") from error
        if (
            inputs != [("image", [1, SIZE, SIZE])]
            or not {"lungs", "context", "distance", "height"} <= outputs
        ):
            raise ModelError("this ONNX file does not find lungs: its inputs and outputs are others")

    def segment(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str | os.PathLike[str]] | None = None
    ) -> list[Found | UnjudgeableError]:
        """Find the lungs of radiographs.

        Parameters
        ----------
        images : sequence of ndarray of uint8, shape (height, width)
            Lungs dark; sizes may differ.
        paths : sequence of path-like, optional
            Their names, for messages.

        Returns
        -------
        list of Found or UnjudgeableError
            For each its lungs; or ``lungs_not_found``, ``lungs_implausible``, ``lungs_cut_off``, ``polarity`` or
            ``not_a_chest``. What an image gives does not depend on the others.
        """
        names = [""] * len(images) if paths is None else [os.fspath(path) for path in paths]
        found: list[Found | UnjudgeableError] = []
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            squares = np.stack([network_input(pixels) for pixels in part])
            lungs, distances, heights = self._run(squares, "lungs", "distance", "height")
            found += [
                self._judge(*one)
                for one in zip(
                    part, squares, lungs, distances, heights, names[start : start + _BATCH], strict=True
                )
            ]
        return found

    def outline(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.bool_]]:
        """Return what the network marks as lung, cleaned but unchecked: for looking at, not for judging by."""
        found = []
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            (lungs,) = self._run(np.stack([network_input(pixels) for pixels in part]), "lungs")
            found += [
                enlarged(find_lungs(probabilities), (pixels.shape[0], pixels.shape[1]))
                for pixels, probabilities in zip(part, lungs, strict=True)
            ]
        return found

    def contexts(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the mean of each of the deepest maps over each quarter of the picture, float32 ``(n, k)``."""
        parts = []
        for start in range(0, len(images), _BATCH):
            squares = np.stack([network_input(pixels) for pixels in images[start : start + _BATCH]])
            parts += self._run(squares, "context")
        return np.concatenate(parts)

    def _run(self, squares: NDArray[np.float32], *outputs: str) -> list[NDArray[np.float32]]:
        """Run the network; an output of one channel or number loses that axis."""
        found = self._session.run(list(outputs), {"image": squares[:, None]})
        return [one[:, 0] if one.shape[1] == 1 else one for one in found]

    def _judge(
        self,
        pixels: NDArray[np.uint8],
        square: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        distance: np.float32,
        above: np.float32,
        path: str,
    ) -> Found | UnjudgeableError:
        height, width = pixels.shape
        if max(height, width) > MAX_ASPECT * min(height, width):
            return RadiographError(Reason.NOT_A_CHEST, path, f"{width} x {height} pixels")
        lungs: Lungs = find_lungs(probabilities)
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
    """Load a network that finds lungs.

    Parameters
    ----------
    path : path-like, optional
        An ONNX file of ``histcxr segment-train``; by default the one that comes with histcxr.

    Raises
    ------
    ModelError
        When the file is none.
    RadiographError
        When it cannot be read.
    """
    return _packaged() if path is None else Segmenter(read_file(os.fspath(path)))


@functools.cache
def _packaged() -> Segmenter:
    return Segmenter(resources.files("histcxr.lungs").joinpath(_PACKAGED).read_bytes())
