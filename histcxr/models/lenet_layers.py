"""Keras layers that only training needs. Import this module inside functions: it imports Keras.

They use ``keras.ops`` alone, so they run on every backend of Keras 3.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

__all__ = ["HistogramJitter", "TakeRows"]


class TakeRows(keras.layers.Layer):
    """Pick rows of data that lie on the device, so that a step moves only their numbers."""

    def call(self, inputs: Any) -> Any:
        """Return ``data[rows]``, shape ``(batch, bins, channels)``.

        Parameters
        ----------
        inputs : pair of tensors
            ``data``, shape ``(n, bins, channels)``, and integer ``rows``, shape ``(batch,)``.
        """
        data, rows = inputs
        return ops.take(data, rows, axis=0)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape that :meth:`call` gives."""
        data, rows = input_shape
        return (*rows, *data[1:])


class HistogramJitter(keras.layers.Layer):
    """Move histograms as a change of brightness, contrast or gamma of the image would, at random.

    With intensities ``v`` in [0, 1], each image's becomes ``(v ** g - 0.5) * c + 0.5 + s``. The histogram of
    the changed image follows by resampling the bins and multiplying by the local stretch; all rows of an
    image move together. What would leave the range is lost, as in an overexposed film.

    Parameters
    ----------
    shift, gamma, contrast : float
        Half-widths: ``s`` is uniform within ``±shift``, ``log g`` within ``±gamma``, ``log c`` within
        ``±contrast``.
    exponent : float
        Of the local stretch: 1 for densities, 0.5 for their square roots, 0 for cumulative shares.
    seed : int
    """

    def __init__(self, shift: float, gamma: float, contrast: float, *, exponent: float, seed: int) -> None:
        super().__init__(name="histogram_jitter")
        self.widths = np.array([shift, gamma, contrast], np.float32)
        self.exponent = exponent
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, histograms: Any, training: bool = False) -> Any:
        """Return histograms of the same shape ``(batch, bins, channels)``, moved when training."""
        if not training:
            return histograms
        n, (bins, channels) = ops.shape(histograms)[0], histograms.shape[1:]
        change = keras.random.uniform((n, 3), -1.0, 1.0, seed=self.seed_generator)
        change = change * ops.convert_to_tensor(self.widths)
        shift, gamma, contrast = change[:, :1], ops.exp(change[:, 1:2]), ops.exp(change[:, 2:])
        # Edges of the new bins, carried back to the old axis in units of bins.
        numbers = (np.arange(bins + 1) - 0.5) / max(bins - 1, 1)
        edges = ops.convert_to_tensor(numbers.astype(np.float32)[None])
        straight = (edges - 0.5 - shift) / contrast + 0.5
        old = ops.power(ops.clip(straight, 1e-6, 1.0), 1.0 / gamma) * (bins - 1)
        stretch = old[:, 1:] - old[:, :-1]
        place = 0.5 * (old[:, 1:] + old[:, :-1])
        low = ops.clip(ops.floor(place), 0, max(bins - 2, 0))
        weight = (place - low)[..., None]
        # Whole rows of channels are gathered from one flat table: twice as fast as along an axis.
        flat = ops.reshape(histograms, (-1, channels))
        index = ops.cast(low, "int32") + bins * ops.arange(n, dtype="int32")[:, None]
        index_above = index + (1 if bins > 1 else 0)
        moved = (1.0 - weight) * ops.take(flat, index, axis=0) + weight * ops.take(flat, index_above, axis=0)
        if self.exponent:
            moved = moved * ops.power(ops.maximum(stretch, 1e-9), self.exponent)[..., None]
        return moved

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape
