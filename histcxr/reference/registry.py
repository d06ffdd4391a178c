"""The registry of networks that look at the whole image, with the settings they were published with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from histcxr.exceptions import InputError
from histcxr.reference.backbones import BACKBONES
from histcxr.reference.small_networks import (
    ConvOptions,
    LeNetOptions,
    RecurrentOptions,
    ResidualOptions,
    SmallOptions,
    smallest_side,
)

__all__ = ["ARCHITECTURES", "PARAMETERS", "Architecture", "find_architecture"]

#: Numbers of each network at its own size for two classes, so that they can be listed without building it.
PARAMETERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "cnn4": 248_449,
        "cnn4-raw": 248_449,
        "cnn3": 3_267_202,
        "lenet5": 7_157_346,
        "lenet5-tuned": 7_627_502,
        "cnn-lstm": 289_729,
        "resnet-small": 697_810,
        "resnet-fine": 700_178,
        "vgg16": 14_784_546,
        "vgg19": 20_094_242,
        "xception": 21_127_946,
        "inceptionv3": 22_069_250,
        "resnet50": 23_854_178,
        "resnet101": 42_924_642,
        "resnet50v2": 23_831_266,
        "resnet101v2": 42_893_026,
        "resnet152v2": 58_598_114,
        "densenet121": 7_172_898,
        "densenet201": 18_572_066,
        "mobilenet": 3_364_258,
        "mobilenetv2": 2_426_146,
        "efficientnetb0": 4_217_733,
        "efficientnetb1": 6_743_401,
        "efficientnetb7": 64_429_689,
    }
)


@dataclass(frozen=True)
class Architecture:
    """A network of the registry, with the settings it was published with.

    Parameters
    ----------
    name : str
    description : str
        One line, with the source.
    size : int
        Side of the square image, in pixels, by default.
    min_size : int
        Smallest side at which it can be built with its default options.
    epochs, batch_size, learning_rate
        Of the training: the most epochs, images a step, and Adam's rate.
    transfer : bool
        Whether it is a backbone, which can start from published weights, with a head of our own.
    head : bool
        Whether its dense layers are those of :class:`HeadOptions`; the others have their own.
    options : SmallOptions or None
        Layers of the small networks.
    scale : float
        What grey levels are multiplied with first (small networks).
    sigmoid : bool
        Whether two classes come out as one probability, shape ``(n, 1)``, and not as two.
    augmentation : mapping or None
        Fields of :class:`~histcxr.reference.augmentation.Augmentation`; None where it was published without.
    patience : int or None
        Epochs without a lower validation loss after which training ends; None: all epochs are run.
    """

    name: str
    description: str
    size: int
    min_size: int
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    transfer: bool = False
    head: bool = False
    options: SmallOptions | None = None
    scale: float = 1 / 255
    sigmoid: bool = False
    augmentation: Mapping[str, float] | None = None
    patience: int | None = None


def _small(name: str, description: str, options: SmallOptions, size: int, **published: Any) -> Architecture:
    return Architecture(name, description, size, smallest_side(options), options=options, **published)


def _augmentation(
    *, translation: float = 0.0, rotation: float = 0.0, zoom: float = 0.0, **more: float
) -> Mapping[str, float]:
    return MappingProxyType(
        {"translation": translation, "rotation": rotation, "zoom": zoom, "intensity": 0.0, **more}
    )


def _registry() -> dict[str, Architecture]:
    """List the architectures.

    Of the networks published in reports on the paediatric radiographs of Kermany et al. (2018), what the reports
    leave open (the maps of cnn4 and cnn-lstm, rates of dropout, the side of cnn4, the size of shifts) is ours.
    """
    paediatric = "after a report on the paediatric radiographs of Kermany et al., 2018"
    four = ConvOptions(filters=(32, 64, 128, 128))
    three = ConvOptions(filters=(32, 64, 64), conv_dropout=0.2, dense=(64,), dense_dropout=0.5)
    tuned = LeNetOptions(conv_dropout=0.1, dense=(), activation="relu", pooling="max")
    small = [
        _small(
            "cnn4",
            f"four convolutions, flattened, one sigmoid; grey levels on [0, 1]; {paediatric}",
            four,
            128,
            epochs=10,
            batch_size=32,
            sigmoid=True,
        ),
        _small(
            "cnn4-raw",
            f"cnn4 on grey levels from 0 to 255 as they are; {paediatric}",
            four,
            128,
            epochs=8,
            batch_size=32,
            sigmoid=True,
            scale=1.0,
        ),
        _small(
            "cnn3",
            f"three convolutions 32-64-64 with dropout, dense 64; {paediatric}",
            three,
            224,
            epochs=50,
            batch_size=32,
            augmentation=_augmentation(rotation=20, zoom=0.1),
            patience=3,
        ),
        _small(
            "lenet5",
            "two convolutions of 5 x 5 pixels, dense 120 and 84, tanh; LeCun et al., 1998",
            LeNetOptions(),
            256,
            epochs=15,
            batch_size=32,
            patience=5,
        ),
        _small(
            "lenet5-tuned",
            "LeNet-5 with ReLU, max pooling, dropout and a head of dense 128 and 32, open to tuning",
            tuned,
            256,
            epochs=15,
            batch_size=32,
            head=True,
            patience=5,
        ),
        _small(
            "cnn-lstm",
            f"four convolutions whose maps an LSTM reads as a sequence, one sigmoid; {paediatric}",
            RecurrentOptions(),
            150,
            epochs=10,
            batch_size=32,
            sigmoid=True,
            augmentation=_augmentation(translation=0.1, rotation=10, zoom=0.1),
        ),
        _small(
            "resnet-small",
            "residual network of 0.7 million parameters for training from scratch on a CPU; after He et al., 2016",
            ResidualOptions(),
            112,
            epochs=16,
            batch_size=32,
            augmentation=_augmentation(translation=0.1, rotation=10, zoom=0.15, intensity=0.1),
        ),
        _small(
            "resnet-fine",
            "resnet-small with a second convolution before its stages, for twice the resolution",
            ResidualOptions(stem=2),
            224,
            epochs=18,
            batch_size=32,
            augmentation=_augmentation(translation=0.1, rotation=10, zoom=0.15, intensity=0.1),
        ),
    ]
    epochs = {"resnet50": 15, "mobilenet": 10, "inceptionv3": 100}
    backbones = [
        Architecture(
            name,
            f"{backbone.application} with a head of our own, transfer learning; {backbone.source}",
            224,
            backbone.min_size,
            epochs=epochs.get(name, 15),
            batch_size=16 if name == "resnet50" else 32,
            transfer=True,
            head=True,
            patience=5,
        )
        for name, backbone in BACKBONES.items()
    ]
    return {architecture.name: architecture for architecture in (*small, *backbones)}


#: The networks by name, the small ones first.
ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(_registry())


def find_architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises
    ------
    InputError
        When there is none of that name; the message names those there are.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"architecture must be one of {', '.join(ARCHITECTURES)}; got {name!r}")
    return ARCHITECTURES[name]
