"""The layers of a network whose output is a map of the image, where Grad-CAM can look."""

from __future__ import annotations

from typing import Any

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.backbones import PREPROCESSED, backbone_of

__all__ = ["find_layer", "last_convolution", "layer_names"]


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


def layer_names(model: Any) -> list[str]:
    """Name the layers whose output is a map of the image, from the first to the last.

    Those of the backbone, where the model has one.
    """
    return [layer.name for layer in _map_layers(model)]


def last_convolution(model: Any) -> str:
    """Name the last layer whose output is a map of the image, before pooling and dropout.

    With its activation and, in residual networks, its shortcut: what the classes see.

    Raises
    ------
    InputError
        When the model has none.
    """
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
    """Return a layer by name, also of the backbone.

    Raises
    ------
    InputError
        When no layer of that name has a map of the image; the message names the last few that have.
    """
    found = {layer.name: layer for layer in _map_layers(model)}
    if name not in found:
        raise InputError(
            f"layer must be one of the {len(found)} of {model.name} with maps of the image, the last of them "
            f"{', '.join(list(found)[-8:])}; got {name!r}"
        )
    return found[name]
