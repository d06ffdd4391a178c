"""Networks that look at the whole image, built by name on any Keras 3 backend.

Every model takes grey levels as they are, ``(n, size, size, 1)`` from 0 to 255: the preprocessing that a network was
made for is part of it.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
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
    weights_at_hand,
)
from histcxr.reference.small_networks import (
    ACTIVATIONS,
    ConvOptions,
    LeNetOptions,
    RecurrentOptions,
    ResidualOptions,
    SmallOptions,
    add_trunk,
    check_rates,
    check_units,
    smallest_side,
)


@dataclass(frozen=True)
class Architecture:
    """A network of the registry, with the settings it was published with.

    ``description``: one line, with the source; ``parameters``: how many, at its own size and for two classes; ``size,
    min_size``: side in pixels, by default and at least; ``epochs, batch_size, learning_rate``: the most epochs, images
    a step, Adam's rate; ``transfer``: a backbone, which can start from published weights; ``head``: its dense layers
    are those of :class:`HeadOptions`; ``options``: layers of the small networks; ``scale``: what their grey levels are
    multiplied with first; ``sigmoid``: two classes come out as one probability, ``(n, 1)``; ``augmentation``: fields of
    :class:`~histcxr.reference.augmentation.Augmentation`, None for none; ``patience``: epochs without a lower
    validation loss that end training, None to run all.
    """

    name: str
    description: str
    parameters: int
    size: int
    min_size: int
    epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    transfer: bool = False
    head: bool = False
    options: SmallOptions | None = None
    scale: float = 1 / 255
    sigmoid: bool = False
    augmentation: Mapping[str, float] | None = None
    patience: int | None = None


def _registry() -> dict[str, Architecture]:
    """List the architectures, small ones first; what reports on Kermany et al. (2018) leave open is chosen here."""
    found: dict[str, Architecture] = {}

    def small(name: str, size: int, parameters: int, epochs: int, options: SmallOptions, **more: Any) -> None:
        least = smallest_side(options)
        found[name] = Architecture(
            name, texts[name], parameters, size, least, epochs, options=options, **more
        )

    def moved(**changes: float) -> Mapping[str, float]:
        return MappingProxyType(
            {"translation": 0.0, "rotation": 0.0, "zoom": 0.0, "intensity": 0.0, **changes}
        )

    after = "after a report on the paediatric radiographs of Kermany et al., 2018"
    lone, he = "for training from scratch on a CPU", "after He et al., 2016"
    texts = {
        "cnn4": f"four convolutions, flattened, one sigmoid; grey levels on [0, 1]; {after}",
        "cnn4-raw": f"cnn4 on grey levels from 0 to 255 as they are; {after}",
        "cnn3": f"three convolutions 32-64-64 with dropout, dense 64; {after}",
        "lenet5": "two convolutions of 5 x 5 pixels, dense 120 and 84, tanh; LeCun et al., 1998",
        "lenet5-tuned": "LeNet-5 with ReLU, max pooling, dropout and a head of dense 128 and 32, open to tuning",
        "cnn-lstm": f"four convolutions whose maps an LSTM reads as a sequence, one sigmoid; {after}",
        "resnet-small": f"residual network of 0.7 million parameters {lone}; {he}",
        "resnet-fine": "resnet-small with a second convolution before its stages, for twice the resolution",
    }
    four = ConvOptions(filters=(32, 64, 128, 128))
    three = ConvOptions(filters=(32, 64, 64), conv_dropout=0.2, dense=(64,), dense_dropout=0.5)
    tuned = LeNetOptions(conv_dropout=0.1, dense=(), activation="relu", pooling="max")
    turned, near = moved(rotation=20, zoom=0.1), moved(translation=0.1, rotation=10, zoom=0.1)
    varied = moved(translation=0.1, rotation=10, zoom=0.15, intensity=0.1)
    small("cnn4", 128, 248_449, 10, four, sigmoid=True)
    small("cnn4-raw", 128, 248_449, 8, four, sigmoid=True, scale=1.0)
    small("cnn3", 224, 3_267_202, 50, three, augmentation=turned, patience=3)
    small("lenet5", 256, 7_157_346, 15, LeNetOptions(), patience=5)
    small("lenet5-tuned", 256, 7_627_502, 15, tuned, head=True, patience=5)
    small("cnn-lstm", 150, 289_729, 10, RecurrentOptions(), sigmoid=True, augmentation=near)
    small("resnet-small", 112, 697_810, 16, ResidualOptions(), augmentation=varied)
    small("resnet-fine", 224, 700_178, 18, ResidualOptions(stem=2), augmentation=varied)
    for name, backbone in BACKBONES.items():
        found[name] = Architecture(
            name,
            f"{backbone.application} with a head of our own, transfer learning; {backbone.source}",
            backbone.parameters,
            224,
            backbone.min_size,
            epochs={"mobilenet": 10, "inceptionv3": 100}.get(name, 15),
            batch_size=16 if name == "resnet50" else 32,
            transfer=True,
            head=True,
            patience=5,
        )
    return found


#: The networks by name, the small ones first.
ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(_registry())


def find_architecture(name: str) -> Architecture:
    """Return an architecture by name; raises InputError, which names them all, when there is none."""
    if name not in ARCHITECTURES:
        raise InputError(f"architecture must be one of {', '.join(ARCHITECTURES)}; got {name!r}")
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class HeadOptions:
    """The dense layers on top of a backbone; InputError when a value is out of range.

    ``dense``: units of each layer, 0 leaves it out; ``dropout, entry_dropout``: before the last layer and before the
    first dense one, from 0 to below 1; ``activation``: of the dense layers, ``"relu"`` or ``"tanh"``.
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
    """Build a network: one of :data:`ARCHITECTURES`, by default at its own size (a side in pixels).

    The Keras model takes ``(n, size, size, 1)`` float32 grey levels, 0 to 255, to ``(n, n_classes)`` probabilities that
    sum to 1; of two classes, those with :attr:`Architecture.sigmoid` give ``(n, 1)``, the probability of class 1. Its
    layer ``logits`` gives the scores before softmax or sigmoid.

    ``weights``: None for random ones, ``"imagenet"`` for those that Keras publishes for a backbone (from the folder
    that HISTCXR_WEIGHTS names, or fetched once, into ``~/.keras/models``), or a file as in :func:`load_weights`.
    ``unfrozen``: trained layers of a backbone, as in :func:`unfreeze`. ``head``: dense layers of backbones and of
    lenet5-tuned; ``options``: layers of a small network, None for its own. ``seed``: of weights and dropout; the global
    generators are left as they were.

    InputError: an argument does not fit, or the weights cannot be had. MissingDependencyError: no Keras or backend.
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
    if weights == "imagenet":
        weights = weights_at_hand(BACKBONES[name]) or weights
    with seeded(seed):
        inputs = keras.Input((side, side, 1), name="grey")
        trunk = options or architecture.options
        if trunk is None:
            x = add_preprocessing(keras, inputs, BACKBONES[name].preprocessing)
            x = load_backbone(BACKBONES[name], side, imagenet=weights == "imagenet")(x)
            x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        else:
            x = keras.layers.Rescaling(architecture.scale, name=PREPROCESSED)(inputs)
            x = add_trunk(keras, x, trunk)
        # A head by itself starts with the same weights as on its backbone.
        with seeded(seed) if trunk is None else nullcontext():
            if architecture.head:
                x = add_head(keras, x, head)
            x = add_output(keras, x, int(n_classes), sigmoid=architecture.sigmoid)
        model = keras.Model(inputs, x, name=name)
    if weights is not None and weights != "imagenet":
        load_weights(model, weights)
    if architecture.transfer:
        unfreeze(model, unfrozen)
    return model


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


def add_head(keras: Any, x: Any, options: HeadOptions) -> Any:
    """Put dense layers on top of ``x``, shape ``(n, features)``."""
    layers = keras.layers
    if options.entry_dropout:
        x = layers.Dropout(options.entry_dropout, name="head_entry_dropout")(x)
    for i, units in enumerate((units for units in options.dense if units), start=1):
        x = layers.Dense(units, activation=options.activation, name=f"head_dense{i}")(x)
    if options.dropout:
        x = layers.Dropout(options.dropout, name="head_dropout")(x)
    return x


def add_output(keras: Any, x: Any, n_classes: int, *, sigmoid: bool) -> Any:
    """Put the classes on top of ``x``, behind logits: gradients of a saturated probability vanish."""
    single = sigmoid and n_classes == 2
    logits = keras.layers.Dense(1 if single else n_classes, name="logits")(x)
    return keras.layers.Activation("sigmoid" if single else "softmax", name="score")(logits)


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Put the weights of a file into a Keras model; only numbers are read, nothing in the file is run.

    ``.keras`` or ``.weights.h5`` of the whole network or its backbone, or the ``.h5`` without top that Keras publishes
    for a backbone. InputError: no such file, or another network's weights.
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
