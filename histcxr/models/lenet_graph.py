"""The layers of the 1-D LeNet: convolution blocks over the bins of a histogram, then dense layers.

The graph is described by plain numbers (:class:`LeNetGraph`), from which Keras builds it for training
(:func:`build_lenet`) and :mod:`histcxr.models.onnx_export` writes it for prediction. It follows LeNet-5
(LeCun et al., 1998, "Gradient-based learning applied to document recognition") in one dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural

__all__ = ["ACTIVATIONS", "POOLINGS", "LeNetGraph", "Weights", "build_lenet", "get_weights", "set_weights"]

#: Weights of one network by layer and variable: ``"conv1/kernel"``, ``"norm1/moving_mean"``, ``"output/bias"``.
Weights = dict[str, NDArray[np.float32]]

ACTIVATIONS = ("relu", "tanh")
POOLINGS = ("max", "average")

#: Added to a variance before its root is taken, by Keras and in the ONNX file alike.
EPSILON = 1e-3


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
    def from_options(
        cls,
        bins: int,
        channels: int,
        *,
        filters: Sequence[int],
        kernel_size: int | Sequence[int],
        pool_size: int | Sequence[int],
        conv_dropout: float | Sequence[float],
        dense: Sequence[int],
        dense_dropout: float | Sequence[float],
        activation: str,
        pooling: str,
        batch_norm: bool,
    ) -> LeNetGraph:
        """Build the description from options in which one number may stand for all layers."""
        filters, dense = _values("filters", filters), _values("dense", dense)
        return cls(
            bins=bins,
            channels=channels,
            filters=filters,
            kernel_size=_values("kernel_size", kernel_size, len(filters)),
            pool_size=_values("pool_size", pool_size, len(filters)),
            conv_dropout=_values("conv_dropout", conv_dropout, len(filters)),
            dense=dense,
            dense_dropout=_values("dense_dropout", dense_dropout, len(dense) + 1),
            activation=activation,
            pooling=pooling,
            batch_norm=bool(batch_norm),
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

    Parameters
    ----------
    graph : LeNetGraph
    seed : int
        Of the initial weights and of the dropout.
    name : str, default="lenet"
        Of the Keras model.

    Returns
    -------
    keras.Model
        ``(n, bins, channels)`` float32 to ``(n, 1)`` scores between 0 and 1. The layer before the last gives
        the logit.

    Raises
    ------
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    keras = import_neural("keras", "to build a LeNet")
    layers = keras.layers
    seeds = map(
        int, np.random.SeedSequence(seed).generate_state(2 * (len(graph.filters) + len(graph.dense) + 1))
    )

    def start() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds) >> 1)

    def drop(x: Any, rate: float, name: str) -> Any:
        own = next(seeds) >> 1
        return layers.Dropout(rate, seed=own, name=name)(x) if rate else x

    pooling = layers.MaxPooling1D if graph.pooling == "max" else layers.AveragePooling1D
    inputs = keras.Input((graph.bins, graph.channels), name="histograms")
    x = inputs
    blocks = zip(graph.filters, graph.kernel_size, graph.pool_size, graph.conv_dropout, strict=True)
    for i, (filters, width, pool, rate) in enumerate(blocks, start=1):
        x = layers.Conv1D(
            filters,
            width,
            padding="same",
            use_bias=not graph.batch_norm,
            kernel_initializer=start(),
            name=f"conv{i}",
        )(x)
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
        x = layers.Dense(units, activation=graph.activation, kernel_initializer=start(), name=f"dense{i}")(x)
    x = drop(x, last_rate, "output_dropout")
    logit = layers.Dense(1, kernel_initializer=start(), name="output")(x)
    return keras.Model(inputs, layers.Activation("sigmoid", name="score")(logit), name=name)


def get_weights(model: Any) -> Weights:
    """Return a network's weights as float32 arrays by name."""
    return {
        f"{layer.name}/{variable.name}": np.array(value, dtype=np.float32)
        for layer in model.layers
        for variable, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def set_weights(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put weights by name into a network of the same graph.

    Raises
    ------
    InputError
        When a weight is missing.
    """
    graph_names = [f"{layer.name}/{variable.name}" for layer in model.layers for variable in layer.weights]
    missing = [name for name in graph_names if name not in weights]
    if missing:
        raise InputError(f"weights must hold {', '.join(missing)} for this graph; they are missing")
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/{variable.name}"] for variable in layer.weights])
