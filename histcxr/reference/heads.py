"""The end of a network: dense layers between its maps and the classes, and the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histcxr.exceptions import InputError

__all__ = ["ACTIVATIONS", "HeadOptions", "add_head", "add_output", "check_rates", "check_units"]

ACTIVATIONS = ("relu", "tanh")


@dataclass(frozen=True)
class HeadOptions:
    """The dense layers on top of a backbone.

    Parameters
    ----------
    dense : tuple of int, default (128, 32)
        Units of each dense layer. Layers of 0 units are left out.
    dropout : float, default 0.2
        Before the last layer, from 0 to below 1.
    activation : {"relu", "tanh"}, default "relu"
        Of the dense layers.
    entry_dropout : float, default 0.0
        Before the first dense layer.

    Raises
    ------
    InputError
        When a value is out of range.
    """

    dense: tuple[int, ...] = (128, 32)
    dropout: float = 0.2
    activation: str = "relu"
    entry_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_units("dense", self.dense, least=0)
        check_rates(dropout=self.dropout, entry_dropout=self.entry_dropout)
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")


def check_units(name: str, values: Sequence[int], *, least: int = 1) -> None:
    """Refuse what are no numbers of units or maps.

    Raises
    ------
    InputError
        When ``values`` is no sequence of whole numbers of at least ``least``.
    """
    if not isinstance(values, tuple | list) or any(
        isinstance(v, bool) or not isinstance(v, int | np.integer) or v < least for v in values
    ):
        raise InputError(f"{name} must be a tuple of whole numbers of at least {least}; got {values!r}")


def check_rates(**rates: float) -> None:
    """Refuse dropout rates outside [0, 1), by name.

    Raises
    ------
    InputError
        Naming the rate.
    """
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 <= rate < 1:
            raise InputError(f"{name} must be at least 0 and below 1; got {rate!r}")


def add_head(keras: Any, x: Any, options: HeadOptions) -> Any:
    """Put dense layers on top of ``x``, shape ``(n, features)``; returns ``(n, units of the last one)``."""
    layers = keras.layers
    if options.entry_dropout:
        x = layers.Dropout(options.entry_dropout, name="head_entry_dropout")(x)
    for i, units in enumerate((units for units in options.dense if units), start=1):
        x = layers.Dense(units, activation=options.activation, name=f"head_dense{i}")(x)
    if options.dropout:
        x = layers.Dropout(options.dropout, name="head_dropout")(x)
    return x


def add_output(keras: Any, x: Any, n_classes: int, *, sigmoid: bool) -> Any:
    """Put the classes on top of ``x``.

    The layer before the last gives the logits: gradients of a saturated probability vanish.

    Returns
    -------
    keras tensor
        ``(n, n_classes)`` probabilities that sum to 1; ``(n, 1)``, the probability of class 1, for two classes
        with ``sigmoid``.
    """
    single = sigmoid and n_classes == 2
    logits = keras.layers.Dense(1 if single else n_classes, name="logits")(x)
    return keras.layers.Activation("sigmoid" if single else "softmax", name="score")(logits)
