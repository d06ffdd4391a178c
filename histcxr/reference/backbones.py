"""Transfer learning: the published networks of ``keras.applications``, made for colour photographs.

The grey image is copied into three channels and scaled as the network was trained, by layers of the model itself. The
network lies inside as one layer, its batch normalisation frozen unless all is trained from scratch.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural

#: How much of a backbone is trained: 0 (nothing), its last N layers, or all of it.
Unfrozen = int | Literal["all"]

#: The variable that names a folder where published weights lie; Keras' own folder is the other place.
WEIGHTS_FOLDER: Final = "HISTCXR_WEIGHTS"

#: The layer whose output enters the backbone.
PREPROCESSED: Final = "preprocessed"

_MEAN = np.array([0.485, 0.456, 0.406])  # of ImageNet's red, green and blue on [0, 1]
_SPREAD = np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red on 0..255

#: Scale and offset of each channel by kind of preprocessing. A grey image has its channels in every order at once,
#: so that "caffe", which swaps red and blue, needs no swap. "inside": the network begins with its own scaling.
SCALING: Final = MappingProxyType(
    {
        "caffe": (1.0, [-m for m in _CAFFE_MEAN]),
        "tf": (1 / 127.5, -1.0),
        "torch": ((1 / (255 * _SPREAD)).tolist(), (-_MEAN / _SPREAD).tolist()),
        "efficientnet": ((1 / _SPREAD).tolist(), (-255 * _MEAN / _SPREAD).tolist()),
    }
)


@dataclass(frozen=True)
class Backbone:
    """A network of ``keras.applications``: its name there, and ``preprocessing``, a key of :data:`SCALING`.

    ``min_size``: in pixels; ``source``: who published it; ``parameters``: with our head, at 224 pixels, two classes.
    """

    application: str
    preprocessing: str
    min_size: int
    source: str
    parameters: int


_HE, _HE_V2 = "He et al., 2016", "He et al., 2016, Identity mappings"
_VGG, _DENSE = "Simonyan and Zisserman, 2015", "Huang et al., 2017"
_EFFICIENT = "Tan and Le, 2019"

BACKBONES: Final = MappingProxyType(
    {
        "vgg16": Backbone("VGG16", "caffe", 32, _VGG, 14_784_546),
        "vgg19": Backbone("VGG19", "caffe", 32, _VGG, 20_094_242),
        "xception": Backbone("Xception", "tf", 71, "Chollet, 2017", 21_127_946),
        "inceptionv3": Backbone("InceptionV3", "tf", 75, "Szegedy et al., 2016", 22_069_250),
        "resnet50": Backbone("ResNet50", "caffe", 32, _HE, 23_854_178),
        "resnet101": Backbone("ResNet101", "caffe", 32, _HE, 42_924_642),
        "resnet50v2": Backbone("ResNet50V2", "tf", 32, _HE_V2, 23_831_266),
        "resnet101v2": Backbone("ResNet101V2", "tf", 32, _HE_V2, 42_893_026),
        "resnet152v2": Backbone("ResNet152V2", "tf", 32, _HE_V2, 58_598_114),
        "densenet121": Backbone("DenseNet121", "torch", 32, _DENSE, 7_172_898),
        "densenet201": Backbone("DenseNet201", "torch", 32, _DENSE, 18_572_066),
        "mobilenet": Backbone("MobileNet", "tf", 32, "Howard et al., 2017", 3_364_258),
        "mobilenetv2": Backbone("MobileNetV2", "tf", 32, "Sandler et al., 2018", 2_426_146),
        "efficientnetb0": Backbone("EfficientNetB0", "efficientnet", 32, _EFFICIENT, 4_217_733),
        "efficientnetb1": Backbone("EfficientNetB1", "efficientnet", 32, _EFFICIENT, 6_743_401),
        "efficientnetb7": Backbone("EfficientNetB7", "efficientnet", 32, _EFFICIENT, 64_429_689),
    }
)


def add_preprocessing(keras: Any, grey: Any, kind: str) -> Any:
    """Turn grey levels 0 to 255, shape ``(n, side, side, 1)``, into what a backbone expects, ``(n, side, side, 3)``."""
    scale, offset = SCALING[kind]
    rgb = keras.layers.Concatenate(name="rgb")([grey, grey, grey])
    return keras.layers.Rescaling(scale, offset, name=PREPROCESSED)(rgb)


def load_backbone(backbone: Backbone, size: int, *, imagenet: bool) -> Any:
    """Build the network without its classes, with random or ImageNet weights; InputError when these cannot be had.

    It takes ``(n, size, size, 3)``, preprocessed, and gives maps ``(n, rows, columns, maps)``.
    """
    keras = import_neural("keras", "to build a network")
    make = getattr(keras.applications, backbone.application)
    shape = (size, size, 3)
    if not imagenet:
        return make(include_top=False, weights=None, input_shape=shape)
    with warnings.catch_warnings():
        # MobileNet's weights for 224 pixels serve every other size.
        warnings.filterwarnings("ignore", message=".*`rows` is not in.*")
        published = _fetch(make, shape, backbone.application)
    if backbone.preprocessing != "efficientnet":
        return published
    network = make(include_top=False, weights=None, input_shape=shape)
    network.set_weights(published.get_weights())
    neutralise_normalisation(network)
    return network


def weights_at_hand(backbone: Backbone) -> Path | None:
    """Return the file with a backbone's ImageNet weights in the folder that HISTCXR_WEIGHTS names, None without one.

    Its name begins with the application's and goes on with anything but a letter or figure:
    ``MobileNet_imagenet_notop.weights.h5``. InputError: there is more than one.
    """
    folder = os.environ.get(WEIGHTS_FOLDER)
    begins = re.compile(rf"{backbone.application}(?![a-z0-9]).*\.(h5|keras)", re.IGNORECASE)
    found = sorted(file for file in Path(folder).glob("*") if begins.fullmatch(file.name)) if folder else []
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{WEIGHTS_FOLDER} must be a folder with one file for {backbone.application}; got {names}"
        )
    return found[0] if found else None


def _fetch(make: Any, shape: tuple[int, int, int], name: str) -> Any:
    try:
        return make(include_top=False, weights="imagenet", input_shape=shape)
    except Exception as error:
        # Keras reports a failed download as a bare Exception; a broken connection is an OSError.
        if not str(error).startswith("URL fetch failure") and not isinstance(error, OSError):
            raise
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        url = re.search(r"https?://\S+\w", str(error))
        what = (
            f"download {url.group()}" if url else f"download the file without top for {name} that Keras names"
        )
        raise InputError(
            f"weights='imagenet' for {name} are not on this computer and cannot be fetched: {what} elsewhere and "
            f"put it into {folder}, or into the folder that {WEIGHTS_FOLDER} names, or use weights=None or a file of "
            "your own"
        ) from error


def neutralise_normalisation(network: Any) -> None:
    """Let EfficientNet's own normalisation do nothing, for :func:`add_preprocessing` has done it.

    Keras corrects it only in networks built with ``weights="imagenet"``
    (https://github.com/tensorflow/tensorflow/issues/49930): weights of such a network would be wrong in another.
    """
    keras = import_neural("keras", "to build a network")
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            layer.set_weights([np.zeros_like(mean), np.ones_like(variance), count])
            layer.finalize_state()


def backbone_of(model: Any) -> Any | None:
    """Return the network inside a model, or None where there is none."""
    keras = import_neural("keras", "to look into a network")
    return next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)


def unfreeze(model: Any, unfrozen: Unfrozen) -> int:
    """Choose what of a Keras model's backbone is trained, and return how many of its layers that is.

    ``unfrozen`` layers are counted from the end, with those without weights or that stay frozen; 0 freezes it. Batch
    normalisation is unfrozen with ``"all"`` alone: in a tail, small batches would overwrite means and variances that
    fit what comes from below. Compile the model afterwards. InputError: no backbone, or it has fewer layers.
    """
    backbone = backbone_of(model)
    if backbone is None:
        raise InputError(f"model must have a backbone to unfreeze; {model.name} has none")
    layers = backbone.layers
    count = len(layers) if unfrozen == "all" else unfrozen
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count <= len(layers):
        raise InputError(
            f"unfrozen must be 'all' or a whole number from 0 to {len(layers)}, the layers of {backbone.name}; "
            f"got {unfrozen!r}"
        )
    norm = import_neural("keras", "to train a network").layers.BatchNormalization
    backbone.trainable = count > 0
    for place, layer in enumerate(layers, start=1):
        layer.trainable = place > len(layers) - count and (unfrozen == "all" or not isinstance(layer, norm))
    return int(count)


def _map_layers(model: Any) -> list[Any]:
    """Return the layers with output ``(n, rows, columns, maps)``; of the backbone where there is one."""
    keras = import_neural("keras", "to look into a network")
    inner = backbone_of(model) or model
    return [
        layer
        for layer in inner.layers
        if len(layer.output.shape) == 4
        and not isinstance(layer, keras.layers.InputLayer)
        and layer.name != PREPROCESSED
    ]


def last_convolution(model: Any) -> str:
    """Name the last layer, with activation and shortcut, that gives a map of the image; InputError if there is none."""
    layers = import_neural("keras", "to look into a network").layers
    after = (
        layers.MaxPooling2D,
        layers.AveragePooling2D,
        layers.GlobalAveragePooling2D,
        layers.GlobalMaxPooling2D,
        layers.Dropout,
        layers.SpatialDropout2D,
        layers.Reshape,
    )
    for layer in reversed(_map_layers(model)):
        if not isinstance(layer, after):
            return str(layer.name)
    raise InputError(f"model must have a convolution; {model.name} has no layer with maps of the image")


def find_layer(model: Any, name: str) -> Any:
    """Return a layer with maps of the image by name, also of the backbone; InputError names the last few there are."""
    found = {layer.name: layer for layer in _map_layers(model)}
    if name not in found:
        raise InputError(
            f"layer must be one of the {len(found)} of {model.name} with maps of the image, the last of them "
            f"{', '.join(list(found)[-8:])}; got {name!r}"
        )
    return found[name]
