"""The network that finds lungs: a small U-Net (Ronneberger, Fischer and Brox, 2015), on any Keras 3 backend.

Each level down is one convolution of 3 x 3 pixels with batch normalisation and ReLU at the top and two below,
then 2 x 2 max pooling; each level up a transposed convolution, the skip connection and convolutions again.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import ModelError
from histcxr.lungs.segmenter import SIZE
from histcxr.networks.backend import import_neural

__all__ = [
    "WIDTHS",
    "Weights",
    "build_unet",
    "check_weights",
    "convolutions",
    "get_weights",
    "set_weights",
    "weight_shapes",
]

#: Maps on each level, from the finest to the coarsest.
WIDTHS: Final = (8, 16, 32, 64, 96)

#: Of batch normalisation.
EPSILON: Final = 1e-3

Weights: TypeAlias = dict[str, NDArray[np.float32]]


def convolutions(level: int) -> int:
    """How many convolutions follow each other on a level: the finest is dear and gets one."""
    return 1 if level == 0 else 2


def build_unet(widths: tuple[int, ...] = WIDTHS, *, seed: int = 0) -> Any:
    """Build the network with fresh weights.

    Parameters
    ----------
    widths : tuple of int
        Maps on each level.
    seed : int
        Equal seeds give equal weights on one backend.

    Returns
    -------
    keras.Model
        From ``(n, SIZE, SIZE, 1)`` to ``(n, SIZE, SIZE, 1)``: each pixel's probability of belonging to a lung.
    """
    keras = import_neural("keras", "to train the network that finds lungs")
    layers = keras.layers
    keras.utils.set_random_seed(seed)

    def named(name: str) -> str:
        return name.replace(".", "_")  # PyTorch refuses dots

    def block(x: Any, side: str, level: int) -> Any:
        for i in range(1, convolutions(level) + 1):
            name = f"{side}{level}.conv{i}"
            x = layers.Conv2D(widths[level], 3, padding="same", use_bias=False, name=named(name))(x)
            x = layers.BatchNormalization(epsilon=EPSILON, name=named(f"{name}.norm"))(x)
            x = layers.ReLU(name=named(f"{name}.relu"))(x)
        return x

    deepest = len(widths) - 1
    x = image = layers.Input((SIZE, SIZE, 1), name="image")
    skips = []
    for level in range(deepest + 1):
        x = block(layers.MaxPooling2D(name=named(f"down{level}.pool"))(x) if level else x, "down", level)
        skips.append(x)
    for level in reversed(range(deepest)):
        x = layers.Conv2DTranspose(widths[level], 2, strides=2, name=named(f"up{level}.enlarge"))(x)
        x = block(layers.Concatenate(name=named(f"up{level}.skip"))([x, skips[level]]), "up", level)
    lungs = layers.Conv2D(1, 1, activation="sigmoid", name="lungs")(x)
    return keras.Model(image, lungs, name="lungs")


def weight_shapes(widths: tuple[int, ...] = WIDTHS) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight, in the network's order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def block(side: str, level: int, channels: int) -> None:
        for i in range(1, convolutions(level) + 1):
            name = f"{side}{level}.conv{i}"
            shapes[f"{name}/kernel"] = (3, 3, channels, widths[level])
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                shapes[f"{name}.norm/{part}"] = (widths[level],)
            channels = widths[level]

    for level in range(len(widths)):
        block("down", level, widths[level - 1] if level else 1)
    for level in reversed(range(len(widths) - 1)):
        shapes[f"up{level}.enlarge/kernel"] = (2, 2, widths[level], widths[level + 1])
        shapes[f"up{level}.enlarge/bias"] = (widths[level],)
        block("up", level, 2 * widths[level])
    shapes["lungs/kernel"] = (1, 1, widths[0], 1)
    shapes["lungs/bias"] = (1,)
    return shapes


def get_weights(model: Any) -> Weights:
    """Take the weights out of a network by name, as :func:`weight_shapes` names them."""
    found: Weights = {}
    for layer in model.layers:
        for weight in layer.weights:
            value = np.asarray(weight.value.detach().cpu() if hasattr(weight.value, "detach") else weight)
            found[_weight_name(layer, weight)] = value.astype(np.float32)
    return {name: found[name] for name in weight_shapes(_widths(found))}


def _weight_name(layer: Any, weight: Any) -> str:
    """Name a weight as files do: ``down0.conv1.norm/gamma`` of the layer ``down0_conv1_norm``."""
    return f"{layer.name.replace('_', '.')}/{weight.name}"


def set_weights(model: Any, weights: Weights) -> None:
    """Give a network weights by name.

    Raises
    ------
    ModelError
        When they are those of another network.
    """
    own = get_weights(model)
    if {name: values.shape for name, values in own.items()} != {
        name: values.shape for name, values in weights.items()
    }:
        raise ModelError("the weights to start from are those of a network of other widths")
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(weights[_weight_name(layer, weight)])


def check_weights(weights: Weights) -> tuple[int, ...]:
    """Return the widths of the network that has these weights.

    Raises
    ------
    ModelError
        When a weight is missing, has the wrong shape, or is not finite.
    """
    widths = _widths(weights)
    shapes = weight_shapes(widths)
    found = {name: values.shape for name, values in weights.items()}
    if found != shapes:
        wrong = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        raise ModelError(
            f"these are not the weights of a network that finds lungs: {', '.join(wrong[:5])} differ"
        )
    if not all(np.isfinite(values).all() for values in weights.values()):
        raise ModelError("the weights of the network that finds lungs are not all finite: train it again")
    return widths


def _widths(weights: Weights) -> tuple[int, ...]:
    widths: list[int] = []
    while (kernel := weights.get(f"down{len(widths)}.conv1/kernel")) is not None:
        widths.append(kernel.shape[-1])
    return tuple(widths)
