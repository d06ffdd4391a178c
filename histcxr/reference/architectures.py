"""Networks that look at the whole image, built by name on any Keras 3 backend.

Every model takes grey levels as they are, ``(n, size, size, 1)`` from 0 to 255: the preprocessing that a network was
made for is part of it.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from histcxr.checks import whole_number
from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural, seeded
from histcxr.reference.backbones import (
    BACKBONES,
    PREPROCESSED,
    Unfrozen,
    add_preprocessing,
    backbone_of,
    load_backbone,
    neutralise_normalisation,
    unfreeze,
)
from histcxr.reference.registry import ARCHITECTURES, Architecture, find_architecture
from histcxr.reference.small_networks import (
    ACTIVATIONS,
    SmallOptions,
    add_trunk,
    check_rates,
    check_units,
    smallest_side,
)

__all__ = ["DEFAULT_HEAD", "HeadOptions", "build_architecture", "load_weights"]


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


DEFAULT_HEAD: Final = HeadOptions()


def build_architecture(
    name: str,
    *,
    size: int | None = None,
    n_classes: int = 2,
    weights: str | os.PathLike[str] | Literal["imagenet"] | None = None,
    unfrozen: Unfrozen = 0,
    head: HeadOptions = DEFAULT_HEAD,
    options: SmallOptions | None = None,
    seed: int = 0,
) -> Any:
    """Build a network.

    Parameters
    ----------
    name : str
        One of :data:`ARCHITECTURES`.
    size : int, optional
        Side of the square image in pixels; by default the architecture's own.
    n_classes : int, default 2
        Classes to tell apart.
    weights : None, "imagenet" or path-like, default None
        Where the weights come from: drawn at random, those that Keras publishes for a backbone (fetched once, into
        ``~/.keras/models``), or a file as in :func:`load_weights`.
    unfrozen : int or "all", default 0
        How many of a backbone's layers are trained, counted from its end, as in :func:`unfreeze`. With ``"all"``
        and no weights it is trained from scratch, its batch normalisation as well, which otherwise stays frozen.
    head : HeadOptions
        Dense layers of backbones and of lenet5-tuned.
    options : SmallOptions, optional
        Layers of a small network; by default the architecture's own.
    seed : int, default 0
        Of the random weights and of the dropout; the global generators are left as they were.

    Returns
    -------
    keras.Model
        ``(n, size, size, 1)`` float32 grey levels, 0 to 255, to ``(n, n_classes)`` probabilities that sum to 1. For
        two classes, those with :attr:`Architecture.sigmoid` give ``(n, 1)``, the probability of class 1. The layer
        ``logits`` gives the scores before softmax or sigmoid.

    Raises
    ------
    InputError
        When an argument does not fit the architecture, or the weights cannot be had.
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    architecture = find_architecture(name)
    side = _check_size(architecture, size, options)
    whole_number(n_classes, "n_classes", least=2)
    whole_number(seed, "seed")
    _check_options(architecture, weights, unfrozen, head, options)
    keras = import_neural("keras", "to build a network")
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            "Keras must have image_data_format 'channels_last' in ~/.keras/keras.json; it has 'channels_first'"
        )
    with seeded(seed):
        inputs = keras.Input((side, side, 1), name="grey")
        trunk = options or architecture.options
        if trunk is None:
            x = _transfer(keras, inputs, name, side, weights)
        else:
            x = keras.layers.Rescaling(architecture.scale, name=PREPROCESSED)(inputs)
            x = add_trunk(keras, x, trunk)
        if architecture.head:
            x = _add_head(keras, x, head)
        model = keras.Model(
            inputs, _add_output(keras, x, int(n_classes), sigmoid=architecture.sigmoid), name=name
        )
    if weights is not None and weights != "imagenet":
        load_weights(model, weights)
    # Without weights there are no means and variances worth keeping, if everything is trained.
    from_scratch = weights is None and unfrozen == "all"
    if architecture.transfer and not from_scratch:
        unfreeze(model, unfrozen)
    return model


def _transfer(keras: Any, inputs: Any, name: str, side: int, weights: Any) -> Any:
    """Return a backbone's maps of an image, averaged: shape (n, maps)."""
    x = add_preprocessing(keras, inputs, BACKBONES[name].preprocessing)
    backbone = load_backbone(BACKBONES[name], side, imagenet=weights == "imagenet")
    return keras.layers.GlobalAveragePooling2D(name="pool")(backbone(x))


def _check_size(architecture: Architecture, size: int | None, options: SmallOptions | None) -> int:
    side = architecture.size if size is None else whole_number(size, "size", least=1)
    least = architecture.min_size if options is None else smallest_side(options)
    if side < least:
        raise InputError(f"size must be at least {least} pixels for {architecture.name}; got {side}")
    return side


def _check_options(
    architecture: Architecture,
    weights: Any,
    unfrozen: Unfrozen,
    head: HeadOptions,
    options: SmallOptions | None,
) -> None:
    name = architecture.name
    if options is not None and not isinstance(options, type(architecture.options)):
        wanted = (
            "None, for a backbone has no options"
            if architecture.transfer
            else type(architecture.options).__name__
        )
        raise InputError(f"options for {name} must be {wanted}; got {type(options).__name__}")
    if architecture.head:
        if not isinstance(head, HeadOptions):
            raise InputError(f"head must be HeadOptions; got {type(head).__name__}")
    elif head != DEFAULT_HEAD:
        raise InputError(f"{name} has dense layers of its own, see options; head must be left as it is")
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise InputError(f"weights must be None, 'imagenet' or a file; got {weights!r}")
    if not architecture.transfer and weights == "imagenet":
        with_weights = ", ".join(a.name for a in ARCHITECTURES.values() if a.transfer)
        raise InputError(f"there are no weights 'imagenet' for {name}; there are for {with_weights}")
    if not architecture.transfer and unfrozen not in (0, "all"):
        raise InputError(f"unfrozen must be 0 or 'all' for {name}, which has no backbone; got {unfrozen!r}")


def _add_head(keras: Any, x: Any, options: HeadOptions) -> Any:
    """Put dense layers on top of ``x``, shape ``(n, features)``; returns ``(n, units of the last one)``."""
    layers = keras.layers
    if options.entry_dropout:
        x = layers.Dropout(options.entry_dropout, name="head_entry_dropout")(x)
    for i, units in enumerate((units for units in options.dense if units), start=1):
        x = layers.Dense(units, activation=options.activation, name=f"head_dense{i}")(x)
    if options.dropout:
        x = layers.Dropout(options.dropout, name="head_dropout")(x)
    return x


def _add_output(keras: Any, x: Any, n_classes: int, *, sigmoid: bool) -> Any:
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


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Put the weights of a file into a network.

    Only numbers are read; nothing in the file is run.

    Parameters
    ----------
    model : keras.Model
    path : path-like
        ``.keras`` or ``.weights.h5`` as Keras writes them, of the whole network or of its backbone alone; or the
        ``.h5`` file without top that Keras publishes for a backbone.

    Raises
    ------
    InputError
        When there is no such file, or it holds the weights of another network.
    """
    file, backbone = Path(path), backbone_of(model)
    if not file.is_file():
        raise InputError(f"weights must be None, 'imagenet' or a file; there is no file {file}")
    if not file.name.endswith((".keras", ".h5")):
        raise InputError(f"weights must be a .keras, .weights.h5 or .h5 file; got {file}")
    published = file.name.endswith(".h5") and not file.name.endswith(".weights.h5")
    if published and backbone is None:
        raise InputError(
            f"weights for {model.name} must be a .keras or .weights.h5 file; .h5 files are those that Keras "
            f"publishes for backbones; got {file}"
        )
    # The backbone first: what fits it holds nothing for the layers around it, and the other way round.
    problems = []
    for network in (backbone,) if published else (backbone, model):
        if network is None:
            continue
        try:
            with warnings.catch_warnings():
                # Keras warns of layers that the file does not hold, and leaves them as they are.
                warnings.filterwarnings("error", message="Skipping")
                network.load_weights(os.fspath(file))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, UserWarning) as error:
            problems.append(str(error).strip().split("\n")[0][:200])
        else:
            if network is backbone:  # our preprocessing stands in front of it
                neutralise_normalisation(network)
            return
    raise InputError(f"{file} does not hold the weights of {model.name}: {problems[-1]}")
