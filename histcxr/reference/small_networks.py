"""Networks small enough to learn from radiographs alone, without weights from other pictures.

Each takes grey levels, already scaled as it wants them, and returns one vector an image, ready for the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from histcxr.checks import whole_number
from histcxr.exceptions import InputError

ACTIVATIONS = ("relu", "tanh")
POOLINGS = ("max", "average")


@dataclass(frozen=True)
class ConvOptions:
    """Convolutions of 3 x 3 pixels with max pooling after each, then dense layers.

    ``filters``: maps of each convolution; ``dense``: units of the dense layers between the maps and the classes;
    ``conv_dropout, dense_dropout``: after each pooling and each dense layer, from 0 to below 1.
    """

    filters: tuple[int, ...] = (32, 64, 128, 128)
    conv_dropout: float = 0.0
    dense: tuple[int, ...] = ()
    dense_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        check_units("dense", self.dense)
        check_rates(conv_dropout=self.conv_dropout, dense_dropout=self.dense_dropout)


@dataclass(frozen=True)
class LeNetOptions:
    """LeNet-5 (LeCun et al., 1998), with what tuning may change.

    ``filters``: maps of each convolution, not padded, of side ``kernel_size`` in pixels; ``conv_dropout``: after each
    pooling of 2 x 2 pixels (``"max"`` or ``"average"``), from 0 to below 1; ``dense``: units of the dense layers behind
    the maps; ``activation``: of every layer, ``"relu"`` or ``"tanh"``.
    """

    filters: tuple[int, ...] = (6, 16)
    kernel_size: int = 5
    conv_dropout: float = 0.0
    dense: tuple[int, ...] = (120, 84)
    activation: str = "tanh"
    pooling: str = "average"

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        whole_number(self.kernel_size, "kernel_size", least=1)
        check_units("dense", self.dense)
        check_rates(conv_dropout=self.conv_dropout)
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {self.pooling!r}")


@dataclass(frozen=True)
class RecurrentOptions:
    """Convolutions with max pooling, whose last maps an LSTM reads place by place, row after row.

    ``filters``: maps of each convolution; ``units``: of the LSTM; ``dropout``: after it, from 0 to below 1.
    """

    filters: tuple[int, ...] = (32, 64, 128, 128)
    units: int = 64
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        whole_number(self.units, "units", least=1)
        check_rates(dropout=self.dropout)


@dataclass(frozen=True)
class ResidualOptions:
    """A residual network (He et al., 2016): convolutions that halve the sides, then stages of blocks.

    ``filters``: maps of each stage, all but the first of which halve the sides again; ``blocks``: of two convolutions
    in each stage; ``stem``: convolutions before the stages, each halving the sides; ``dropout``: before the classes,
    from 0 to below 1.
    """

    filters: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    stem: int = 1
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        check_units("blocks", self.blocks)
        whole_number(self.stem, "stem", least=1)
        check_rates(dropout=self.dropout)
        if len(self.blocks) != len(self.filters):
            raise InputError(
                f"blocks must be {len(self.filters)} numbers, one a stage of filters; got {self.blocks!r}"
            )


SmallOptions: TypeAlias = ConvOptions | LeNetOptions | RecurrentOptions | ResidualOptions


def check_units(name: str, values: Sequence[int], *, least: int = 1) -> None:
    """Refuse what is no sequence of whole numbers (of units or maps) of at least ``least``, with an InputError."""
    if not isinstance(values, tuple | list) or any(
        isinstance(v, bool) or not isinstance(v, int | np.integer) or v < least for v in values
    ):
        raise InputError(f"{name} must be a tuple of whole numbers of at least {least}; got {values!r}")


def check_rates(**rates: float) -> None:
    """Refuse dropout rates outside [0, 1), with an InputError that names the rate."""
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 <= rate < 1:
            raise InputError(f"{name} must be at least 0 and below 1; got {rate!r}")


def _check_filters(filters: tuple[int, ...]) -> None:
    check_units("filters", filters)
    if not filters:
        raise InputError("filters must name at least one convolution; got none")


def smallest_side(options: SmallOptions) -> int:
    """Return the smallest side, in pixels, at which every convolution and pooling still has something to read."""
    if isinstance(options, LeNetOptions):
        side = 1
        for _ in options.filters:
            side = 2 * side + options.kernel_size - 1
        return side
    halvings = len(options.filters)
    if isinstance(options, ResidualOptions):
        halvings += options.stem - 1
    return int(2**halvings)


def add_trunk(keras: Any, x: Any, options: SmallOptions) -> Any:
    """Put the layers that ``options`` describe on top of an image, (n, side, side, 1); gives (n, features)."""
    if isinstance(options, ConvOptions):
        return _convolutional(keras.layers, x, options)
    if isinstance(options, LeNetOptions):
        return _lenet(keras.layers, x, options)
    if isinstance(options, RecurrentOptions):
        return _recurrent(keras.layers, x, options)
    return _residual(keras.layers, x, options)


def _convolutional(layers: Any, x: Any, options: ConvOptions) -> Any:
    for i, filters in enumerate(options.filters, start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
        if options.conv_dropout:
            x = layers.Dropout(options.conv_dropout, name=f"conv{i}_dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    for i, units in enumerate(options.dense, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense{i}")(x)
        if options.dense_dropout:
            x = layers.Dropout(options.dense_dropout, name=f"dense{i}_dropout")(x)
    return x


def _lenet(layers: Any, x: Any, options: LeNetOptions) -> Any:
    pooling = layers.MaxPooling2D if options.pooling == "max" else layers.AveragePooling2D
    for i, filters in enumerate(options.filters, start=1):
        convolution = layers.Conv2D(
            filters, options.kernel_size, activation=options.activation, name=f"conv{i}"
        )
        x = pooling(2, name=f"pool{i}")(convolution(x))
        if options.conv_dropout:
            x = layers.Dropout(options.conv_dropout, name=f"conv{i}_dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    for i, units in enumerate(options.dense, start=1):
        x = layers.Dense(units, activation=options.activation, name=f"dense{i}")(x)
    return x


def _recurrent(layers: Any, x: Any, options: RecurrentOptions) -> Any:
    for i, filters in enumerate(options.filters, start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Reshape((-1, options.filters[-1]), name="sequence")(x)
    x = layers.LSTM(options.units, name="lstm")(x)
    return layers.Dropout(options.dropout, name="lstm_dropout")(x) if options.dropout else x


def _residual(layers: Any, x: Any, options: ResidualOptions) -> Any:
    def convolve(x: Any, filters: int, side: int, name: str, stride: int = 1, gamma: str = "ones") -> Any:
        x = layers.Conv2D(
            filters,
            side,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )(x)
        # A short training has few steps to find the mean: the norms remember ten batches, not a hundred.
        return layers.BatchNormalization(momentum=0.9, gamma_initializer=gamma, name=f"{name}_norm")(x)

    for place in range(1, options.stem + 1):
        x = layers.ReLU(name=f"stem{place}_relu")(
            convolve(x, options.filters[0], 3, f"stem{place}", stride=2)
        )
    for stage, (filters, blocks) in enumerate(zip(options.filters, options.blocks, strict=True), start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = layers.ReLU(name=f"{name}_relu1")(convolve(x, filters, 3, f"{name}_conv1", stride))
            # Each block starts as nothing but its shortcut (Goyal et al., 2017).
            y = convolve(y, filters, 3, f"{name}_conv2", gamma="zeros")
            if stride == 2:
                x = layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(x)
                x = convolve(x, filters, 1, f"{name}_shortcut")
            x = layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dropout(options.dropout, name="dropout")(x) if options.dropout else x
