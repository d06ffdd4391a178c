"""The layers of the 1-D LeNet: convolution blocks over the bins of a histogram, then dense layers.

The graph is described by plain numbers (:class:`LeNetGraph`), from which Keras builds it for training
(:func:`build_lenet`) and :func:`write_onnx` writes it for prediction, without Keras. It follows LeNet-5 (LeCun et al.,
1998, "Gradient-based learning applied to document recognition") in one dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural, seeded
from histcxr.networks.fit import Weights
from histcxr.networks.onnx_model import EPSILON, GraphWriter, fold_norm

__all__ = ["ACTIVATIONS", "POOLINGS", "LeNetGraph", "build_lenet", "run_session", "write_onnx"]

ACTIVATIONS = ("relu", "tanh")
POOLINGS = ("max", "average")

# Options of which one number may stand for all convolution blocks.
_PER_BLOCK = ("kernel_size", "pool_size", "conv_dropout")


@dataclass(frozen=True)
class LeNetGraph:
    """A 1-D LeNet in numbers.

    Parameters
    ----------
    bins, channels : int
        The input's shape: ``(256, zones)`` for histograms of zones.
    filters, kernel_size, pool_size : tuple of int
        One number each for every convolution block: filters, width in bins, and how many neighbours are
        pooled into one (1: no pooling). Borders are padded, so every width fits.
    conv_dropout : tuple of float
        Share of values dropped in training after each block; 0: none.
    dense : tuple of int
        Units of the dense layers.
    dense_dropout : tuple of float
        Share of values dropped in training before each dense layer and before the output.
    activation : {"relu", "tanh"}
    pooling : {"max", "average"}
    batch_norm : bool
        Whether each convolution is followed by batch normalisation.

    Raises
    ------
    InputError
        When a number is out of its range.
    """

    bins: int
    channels: int
    filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    pool_size: tuple[int, ...]
    conv_dropout: tuple[float, ...]
    dense: tuple[int, ...]
    dense_dropout: tuple[float, ...]
    activation: str = "relu"
    pooling: str = "max"
    batch_norm: bool = True

    def __post_init__(self) -> None:
        if not self.filters:
            raise InputError("filters must name at least one convolution block; got none")
        for name in ("filters", "kernel_size", "pool_size", "dense"):
            if any(not isinstance(v, int | np.integer) or v < 1 for v in getattr(self, name)):
                raise InputError(f"{name} must be integers of at least 1; got {getattr(self, name)!r}")
        for name in ("conv_dropout", "dense_dropout"):
            if any(not 0 <= v < 1 for v in getattr(self, name)):
                raise InputError(f"{name} must be at least 0 and below 1; got {getattr(self, name)!r}")
        blocks = len(self.filters)
        for name, n in (
            ("kernel_size", blocks),
            ("pool_size", blocks),
            ("conv_dropout", blocks),
            ("dense_dropout", len(self.dense) + 1),
        ):
            if len(getattr(self, name)) != n:
                raise InputError(f"{name} must be one number, or {n} of them; got {getattr(self, name)!r}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {self.pooling!r}")

    @classmethod
    def from_options(cls, bins: int, channels: int, **options: Any) -> LeNetGraph:
        """Build the description from options in which one number may stand for all layers of a kind."""
        blocks, layers = _values("filters", options["filters"]), _values("dense", options["dense"])
        each = {name: _values(name, options[name], len(blocks)) for name in _PER_BLOCK}
        rates = _values("dense_dropout", options["dense_dropout"], len(layers) + 1)
        return cls(
            bins, channels, **options | each | {"filters": blocks, "dense": layers, "dense_dropout": rates}
        )

    def lengths(self) -> tuple[int, ...]:
        """Return the bins that enter each block, and at the end those that enter the dense layers."""
        lengths = [self.bins]
        for size in self.pool_size:
            lengths.append(-(-lengths[-1] // size))
        return tuple(lengths)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by name, in the order of the layers."""
        shapes: dict[str, tuple[int, ...]] = {}
        channels = (self.channels, *self.filters)
        for i, (filters, width) in enumerate(zip(self.filters, self.kernel_size, strict=True), start=1):
            shapes[f"conv{i}/kernel"] = (width, channels[i - 1], filters)
            if not self.batch_norm:
                shapes[f"conv{i}/bias"] = (filters,)
            else:
                for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                    shapes[f"norm{i}/{name}"] = (filters,)
        units = (self.lengths()[-1] * self.filters[-1], *self.dense, 1)
        names = [f"dense{i}" for i in range(1, len(self.dense) + 1)] + ["output"]
        for layer, entering, leaving in zip(names, units[:-1], units[1:], strict=True):
            shapes |= {f"{layer}/kernel": (entering, leaving), f"{layer}/bias": (leaving,)}
        return shapes

    def check_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Refuse weights that are not those of this graph.

        Raises
        ------
        InputError
            When a weight is missing, unknown, of another shape or not finite.
        """
        shapes = self.shapes()
        for name in sorted(shapes.keys() ^ weights.keys()):
            raise InputError(
                f"weights must be those of the graph; {name} is {'missing' if name in shapes else 'no part of it'}"
            )
        for name, shape in shapes.items():
            if np.shape(weights[name]) != shape:
                raise InputError(
                    f"weights must be those of the graph; {name} has shape {np.shape(weights[name])}, not {shape}"
                )
            if not np.isfinite(weights[name]).all():
                raise InputError(f"weights must be finite; {name} is not")


def _values(name: str, value: Any, n: int | None = None) -> tuple[Any, ...]:
    """Return a tuple, one number standing for ``n`` of it."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return (value,) * (1 if n is None else n)
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(v.item() if isinstance(v, np.generic) else v for v in value)
    raise InputError(f"{name} must be a number or a sequence of numbers; got {value!r}")


def build_lenet(graph: LeNetGraph, *, seed: int, name: str = "lenet") -> Any:
    """Build the network in Keras, with weights drawn from ``seed`` alone (no global generator is touched).

    Returns
    -------
    keras.Model
        ``(n, bins, channels)`` float32 to ``(n, 1)`` scores between 0 and 1. The layer before the last gives
        the logit.
    """
    keras = import_neural("keras", "to build a LeNet")
    with seeded(seed):
        inputs = keras.Input((graph.bins, graph.channels), name="histograms")
        logit = _add_layers(keras.layers, inputs, graph)
        return keras.Model(inputs, keras.layers.Activation("sigmoid", name="score")(logit), name=name)


def _add_layers(layers: Any, x: Any, graph: LeNetGraph) -> Any:
    """Put the layers up to the logit on top of histograms."""

    def drop(x: Any, rate: float, name: str) -> Any:
        return layers.Dropout(rate, name=name)(x) if rate else x

    pooling = layers.MaxPooling1D if graph.pooling == "max" else layers.AveragePooling1D
    blocks = zip(graph.filters, graph.kernel_size, graph.pool_size, graph.conv_dropout, strict=True)
    for i, (filters, width, pool, rate) in enumerate(blocks, start=1):
        biased = not graph.batch_norm
        x = layers.Conv1D(filters, width, padding="same", use_bias=biased, name=f"conv{i}")(x)
        if graph.batch_norm:
            x = layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=f"norm{i}")(x)
        x = layers.Activation(graph.activation, name=f"conv{i}_{graph.activation}")(x)
        if pool > 1:
            x = pooling(pool, padding="same", name=f"pool{i}")(x)
        x = drop(x, rate, f"conv{i}_dropout")
    x = layers.Flatten(name="flatten")(x)
    *rates, last_rate = graph.dense_dropout
    for i, (units, rate) in enumerate(zip(graph.dense, rates, strict=True), start=1):
        x = drop(x, rate, f"dense{i}_dropout")
        x = layers.Dense(units, activation=graph.activation, name=f"dense{i}")(x)
    return layers.Dense(1, name="output")(drop(x, last_rate, "output_dropout"))


def write_onnx(graph: LeNetGraph, members: Sequence[Weights]) -> bytes:
    """Write networks of one graph as one ONNX model, whose score is the mean of theirs.

    It is the same from every backend. Batch normalisation is folded into the convolution before it.

    Returns
    -------
    bytes
        An ONNX model with one input ``histograms``, float32 ``(n, channels, bins)`` in the representation
        that the network was trained on, and one output ``score``, float32 ``(n, 1)``.

    Raises
    ------
    InputError
        When there is no network, or a weight is missing or of another shape than the graph's.
    """
    if not members:
        raise InputError("members must hold the weights of at least one network; got none")
    for weights in members:
        graph.check_weights(weights)
    writer = GraphWriter()
    scores = [
        _write_network(writer, f"member{i}", graph, weights) for i, weights in enumerate(members, start=1)
    ]
    writer.node("Mean", scores, "score")
    return writer.model("lenet", {"histograms": ["n", graph.channels, graph.bins]}, {"score": ["n", 1]})


def _write_network(writer: GraphWriter, name: str, graph: LeNetGraph, weights: Weights) -> str:
    """Add one network; return the name of its score."""
    activation = {"relu": "Relu", "tanh": "Tanh"}[graph.activation]
    pooling = {"max": "MaxPool", "average": "AveragePool"}[graph.pooling]
    counting = {} if graph.pooling == "max" else {"count_include_pad": 0}
    x, lengths = "histograms", graph.lengths()
    for i, (width, pool) in enumerate(zip(graph.kernel_size, graph.pool_size, strict=True), start=1):
        at = f"{name}/conv{i}"
        kernel: NDArray[Any] = weights[f"conv{i}/kernel"].transpose(2, 1, 0)
        bias: NDArray[Any]
        if graph.batch_norm:
            parts = ("gamma", "beta", "moving_mean", "moving_variance")
            kernel, bias = fold_norm(kernel, {part: weights[f"norm{i}/{part}"] for part in parts})
        else:
            bias = weights[f"conv{i}/bias"]
        x = writer.layer("Conv", x, at, kernel, bias, kernel_shape=[width], pads=_pads(width - 1))
        x = writer.node(activation, [x], f"{at}/{graph.activation}")
        if pool > 1:
            pads = _pads(-lengths[i - 1] % pool)
            options = {"kernel_shape": [pool], "strides": [pool], "pads": pads, **counting}
            x = writer.node(pooling, [x], f"{name}/pool{i}", **options)
    x = writer.node("Flatten", [x], f"{name}/flatten", axis=1)
    for i in range(1, len(graph.dense) + 2):
        layer = f"dense{i}" if i <= len(graph.dense) else "output"
        kernel = weights[f"{layer}/kernel"]
        if i == 1:
            # Keras flattens (bins, filters); here the filters come first.
            shape = (lengths[-1], graph.filters[-1], -1)
            kernel = kernel.reshape(shape).transpose(1, 0, 2).reshape(kernel.shape)
        at = f"{name}/{layer}"
        x = writer.layer("Gemm", x, at, kernel, weights[f"{layer}/bias"])
        if layer != "output":
            x = writer.node(activation, [x], f"{at}/{graph.activation}")
    return writer.node("Sigmoid", [x], f"{name}/score")


def _pads(total: int) -> list[int]:
    """Share padding out as Keras's ``"same"`` does: the odd one at the end."""
    return [total // 2, total - total // 2]


def run_session(session: Any, histograms: NDArray[np.float32], batch_size: int = 256) -> NDArray[np.float64]:
    """Score histograms.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    histograms : ndarray of float32, shape (n, channels, bins)
    batch_size : int, default=256
        Rows run at a time: bounds the memory for activations.
    """
    scores = np.empty(len(histograms), np.float64)
    for start in range(0, len(histograms), batch_size):
        part = np.ascontiguousarray(histograms[start : start + batch_size], np.float32)
        scores[start : start + batch_size] = session.run(["score"], {"histograms": part})[0][:, 0]
    return scores
