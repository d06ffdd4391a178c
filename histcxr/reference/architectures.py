"""Networks that look at the whole image, built by name on any Keras 3 backend.

Every model takes grey levels as they are, ``(n, size, size, 1)`` from 0 to 255: the preprocessing that a network was
made for is part of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from histcxr.checks import whole_number
from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.backbones import (
    BACKBONES,
    PREPROCESSED,
    Unfrozen,
    add_preprocessing,
    load_backbone,
    unfreeze,
)
from histcxr.reference.feature_maps import last_convolution, layer_names
from histcxr.reference.heads import HeadOptions, add_head, add_output
from histcxr.reference.registry import ARCHITECTURES, Architecture, find_architecture
from histcxr.reference.small_networks import (
    ConvOptions,
    LeNetOptions,
    RecurrentOptions,
    ResidualOptions,
    SmallOptions,
    add_trunk,
    smallest_side,
)
from histcxr.reference.weights import load_weights

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ConvOptions",
    "HeadOptions",
    "LeNetOptions",
    "RecurrentOptions",
    "ResidualOptions",
    "build_architecture",
    "find_architecture",
    "last_convolution",
    "layer_names",
    "unfreeze",
]

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
        ``~/.keras/models``), or a file as in :func:`histcxr.reference.weights.load_weights`.
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
    with _seeded(seed):
        inputs = keras.Input((side, side, 1), name="grey")
        trunk = options or architecture.options
        if trunk is None:
            x = _transfer(keras, inputs, name, side, weights)
        else:
            x = keras.layers.Rescaling(architecture.scale, name=PREPROCESSED)(inputs)
            x = add_trunk(keras, x, trunk)
        if architecture.head:
            x = add_head(keras, x, head)
        model = keras.Model(
            inputs, add_output(keras, x, int(n_classes), sigmoid=architecture.sigmoid), name=name
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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let everything that Keras draws while a network is built follow from ``seed`` alone.

    Keras takes the seeds that nobody gave from Python's own generator, which is put back afterwards.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
