"""The layers of the 1-D LeNet: convolution blocks over the bins of a histogram, then dense layers; and their training.

:class:`LeNetGraph` describes them by numbers, for Keras to train and :func:`write_onnx` to write for prediction. After
LeNet-5 (LeCun et al., 1998, "Gradient-based learning applied to document recognition"), in one dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural, seeded
from histcxr.networks.fit import FitOptions, Weights, get_weights
from histcxr.networks.onnx_model import EPSILON, GraphWriter, fold_norm

# The activations and poolings there are, as ONNX calls them.
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}
_POOLINGS = {"max": "MaxPool", "average": "AveragePool"}

# Options of which one number may stand for all convolution blocks.
_BLOCK_OPTIONS = ("kernel_size", "pool_size", "conv_dropout")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class LeNetGraph:
    """A 1-D LeNet in numbers; InputError for one that is out of its range.

    ``bins, channels``: the input's shape, ``(256, zones)`` for zones. One number for each convolution block:
    ``filters``, ``kernel_size`` (bins, padded), ``pool_size`` (1: none), ``conv_dropout`` (share dropped after it).
    ``dense``: units; ``dense_dropout``: before each dense layer and before the output. ``activation``: ``"relu"`` or
    ``"tanh"``; ``pooling``: ``"max"`` or ``"average"``; ``batch_norm``: after each convolution.
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
        for name, n in (*((name, blocks) for name in _BLOCK_OPTIONS), ("dense_dropout", len(self.dense) + 1)):
            if len(getattr(self, name)) != n:
                raise InputError(f"{name} must be one number, or {n} of them; got {getattr(self, name)!r}")
        if self.activation not in _ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got {self.activation!r}")
        if self.pooling not in _POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(_POOLINGS)}; got {self.pooling!r}")

    @classmethod
    def from_options(cls, bins: int, channels: int, **options: Any) -> LeNetGraph:
        """Build the description from options in which one number may stand for all layers of a kind."""
        blocks, layers = _values("filters", options["filters"]), _values("dense", options["dense"])
        each = {name: _values(name, options[name], len(blocks)) for name in _BLOCK_OPTIONS}
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
                shapes |= {f"norm{i}/{name}": (filters,) for name in _NORM}
        units = (self.lengths()[-1] * self.filters[-1], *self.dense, 1)
        names = [f"dense{i}" for i in range(1, len(self.dense) + 1)] + ["output"]
        for layer, entering, leaving in zip(names, units[:-1], units[1:], strict=True):
            shapes |= {f"{layer}/kernel": (entering, leaving), f"{layer}/bias": (leaving,)}
        return shapes

    def check_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raise InputError for a weight that is missing, unknown, of another shape or not finite."""
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
    """Build the network in Keras, with weights from ``seed`` alone (no global generator is touched).

    From ``(n, bins, channels)`` float32 to ``(n, 1)`` scores, 0 to 1; the layer before the last gives the logit.
    """
    keras = import_neural("keras", "to build a LeNet")
    with seeded(seed):
        inputs = keras.Input((graph.bins, graph.channels), name="histograms")
        logit = _add_layers(keras.layers, inputs, graph)
        return keras.Model(inputs, keras.layers.Activation("sigmoid", name="score")(logit), name=name)


def _add_layers(layers: Any, x: Any, graph: LeNetGraph) -> Any:
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

    From ``histograms``, float32 ``(n, channels, bins)`` as in training, to ``score``, float32 ``(n, 1)``; batch
    normalisation is folded into convolutions. InputError: no network, or weights that are not the graph's.
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
    activation, pooling = _ACTIVATIONS[graph.activation], _POOLINGS[graph.pooling]
    counting = {} if graph.pooling == "max" else {"count_include_pad": 0}
    x, lengths = "histograms", graph.lengths()
    for i, (width, pool) in enumerate(zip(graph.kernel_size, graph.pool_size, strict=True), start=1):
        at = f"{name}/conv{i}"
        kernel: NDArray[Any] = weights[f"conv{i}/kernel"].transpose(2, 1, 0)
        bias: NDArray[Any]
        if graph.batch_norm:
            kernel, bias = fold_norm(kernel, {part: weights[f"norm{i}/{part}"] for part in _NORM})
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
    """Return the scores, shape (n,), of histograms (n, channels, bins); batches bound the memory for activations."""
    scores = np.empty(len(histograms), np.float64)
    for start in range(0, len(histograms), batch_size):
        part = np.ascontiguousarray(histograms[start : start + batch_size], np.float32)
        scores[start : start + batch_size] = session.run(["score"], {"histograms": part})[0][:, 0]
    return scores


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """How a LeNet is trained; see :class:`~histcxr.networks.fit.FitOptions` for what it has in common with others.

    ``label_smoothing``: share of each label moved to one half; ``shift, gamma, contrast``: half-widths of
    :func:`histogram_jitter`; ``exponent``: of the representation, for it.
    """

    schedule: str | None = "cosine"
    label_smoothing: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    exponent: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shift", "gamma", "contrast"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite; got {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1; got {self.label_smoothing!r}")


@dataclass(frozen=True)
class TrainedNetwork:
    """The weights of the best epoch; the rest as in :class:`~histcxr.networks.fit.Fitted`."""

    weights: Weights
    history: dict[str, list[float]]
    best_epoch: int


@dataclass(frozen=True)
class LeNetTrainer:
    """A network's description with its data, ready to be trained from any seed.

    ``X``: float32 (n, bins, channels); ``y``: 0 and 1, (n,); ``weight``: (n,), in training and validation loss.
    """

    graph: LeNetGraph
    options: TrainingOptions
    X: NDArray[np.float32]
    y: NDArray[Any]
    weight: NDArray[Any] | None = None

    def train(
        self, rows: NDArray[np.integer], validation: NDArray[np.integer] | None = None, *, seed: int
    ) -> TrainedNetwork:
        """Train anew on ``rows`` of ``X`` from ``seed`` alone; without validation rows all epochs are run."""
        from histcxr.networks.training import TrainingData, train_classes  # scikit-learn judges the epochs

        network = build_lenet(self.graph, seed=seed)
        options, jitter = self.options, None
        if options.shift or options.gamma or options.contrast:
            jitter = histogram_jitter(options, seed=seed)
        fitted = train_classes(
            network,
            TrainingData(np.ascontiguousarray(self.X), self.y, rows, validation, self.weight),
            [options],
            seed=seed,
            entry=jitter,
            label_smoothing=options.label_smoothing,
        )
        # A stored network tells no time: equal seeds give equal files.
        history = {name: curve for name, curve in fitted.history.items() if name not in ("seconds", "stage")}
        return TrainedNetwork(get_weights(network), history, fitted.best_epoch)


def histogram_jitter(options: TrainingOptions, *, seed: int) -> Any:
    """Return a Keras layer that moves histograms as a change of brightness, contrast or gamma would, only in training.

    Intensities ``v`` in [0, 1] become ``(v ** g - 0.5) * c + 0.5 + s``, with ``s`` uniform within ``±shift``, ``log g``
    within ``±gamma``, ``log c`` within ``±contrast``, alike for all rows of an image (batch, bins, channels): bins are
    resampled and multiplied by the local stretch to the power ``exponent``. What would leave the range is lost.
    """
    return _jitter_class()((options.shift, options.gamma, options.contrast), options.exponent, seed)


@cache
def _jitter_class() -> Any:
    """Return the kind of layer, made once: Keras is imported late. It uses ``keras.ops`` alone."""
    keras: Any = import_neural("keras", "to train a LeNet")
    ops = keras.ops

    class HistogramJitter(keras.layers.Layer):
        def __init__(self, widths: tuple[float, float, float], exponent: float, seed: int) -> None:
            super().__init__(name="histogram_jitter")
            self.widths = np.array(widths, np.float32)
            self.exponent = exponent
            self.seed_generator = keras.random.SeedGenerator(seed)

        def call(self, histograms: Any, training: bool = False) -> Any:
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
            below, above = (ops.take(flat, index + step, axis=0) for step in (0, int(bins > 1)))
            moved = (1.0 - weight) * below + weight * above
            if self.exponent:
                moved = moved * ops.power(ops.maximum(stretch, 1e-9), self.exponent)[..., None]
            return moved

        def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return input_shape

    return HistogramJitter
