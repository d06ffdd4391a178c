"""Grad-CAM (Selvaraju et al., 2017): which places of an image speak for a class, and how many of them lie in the lungs.

The maps of a layer are weighted with the mean gradient of the class's score with respect to each, added, and cut off
at 0. The score is the one before softmax or sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import whole_number
from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.backbones import find_layer, last_convolution

_PURPOSE = "to explain a network"

# Images and a shift of a layer's maps to the sum of the scores (or its gradient by the shift), and the maps.
_Function: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]


def grad_cam(
    model: Any,
    images: ArrayLike,
    *,
    layer: str | None = None,
    target: int | None = None,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Map the places that speak for a class: float32 (n, rows, columns), 0 to 1, where 1 is each image's largest.

    ``model``: any functional Keras model from grey images to classes; ``images``: uint8 or float (n, rows, columns), 0
    to 255, at its size; ``layer``: whose maps, by default the last convolution; ``target``: the class, by default each
    image's predicted one. All 0 where nothing speaks for the class. InputError: another size, no such layer or class,
    or a backend without gradients.
    """
    keras = import_neural("keras", _PURPOSE)
    pixels = _check_images(images, model)
    maps_of = find_layer(model, last_convolution(model) if layer is None else layer)
    whole_number(batch_size, "batch_size", least=1)
    classes = int(model.output_shape[-1])
    if target is not None and whole_number(target, "target") >= max(classes, 2):
        raise InputError(f"target must be a class from 0 to {max(classes, 2) - 1}; got {target}")
    network = _with_logits(keras, model)
    gradient = _gradient_function(keras, network, _score_function(keras, network, maps_of, target))
    cams = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size]
        shift = keras.ops.zeros((len(batch), *maps_of.output.shape[1:]))
        slopes, maps = (keras.ops.convert_to_numpy(found) for found in gradient(batch[..., None], shift))
        weights = slopes.mean(axis=(1, 2), keepdims=True)
        for i, cam in enumerate(np.maximum((weights * maps).sum(axis=-1), 0), start=start):
            cams[i] = _enlarge(cam, pixels.shape[1:])
    return cams


def share_inside(cam: ArrayLike, mask: ArrayLike) -> float:
    """Return the share, 0 to 1, of a map's mass inside the lungs, nan for a map of 0; an even map: :func:`even_share`.

    ``cam``: float (rows, columns), at least 0; ``mask``: bool, True inside. InputError: shapes or values do not fit.
    """
    values, inside = np.asarray(cam, dtype=np.float64), _check_mask(mask)
    if values.shape != inside.shape:
        raise InputError(f"cam and mask must have one shape; got {values.shape} and {inside.shape}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError("cam must be finite and at least 0; it is not")
    mass = values.sum()
    return float(values[inside].sum() / mass) if mass > 0 else float("nan")


def even_share(mask: ArrayLike) -> float:
    """Return the share that an even map has inside the lungs: the lungs' share of the image's area."""
    return float(_check_mask(mask).mean())


def _check_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    inside = np.asarray(mask)
    if inside.ndim != 2 or inside.size == 0:
        raise InputError(f"mask must be an image (rows, columns); got shape {inside.shape}")
    return inside > 0


def _check_images(images: ArrayLike, model: Any) -> NDArray[np.float32]:
    pixels = np.asarray(images)
    expected = tuple(model.input_shape[1:3])
    if pixels.ndim != 3 or pixels.shape[1:] != expected:
        raise InputError(
            f"images must have shape (n, {expected[0]}, {expected[1]}) for {model.name}; got {pixels.shape}"
        )
    if not np.issubdtype(pixels.dtype, np.number) or not np.isfinite(pixels).all():
        raise InputError(f"images must be finite grey levels; got {pixels.dtype}")
    return pixels.astype(np.float32)


def _with_logits(keras: Any, model: Any) -> Any:
    """Return the model with two outputs: what enters its last activation, and what leaves it."""
    last = model.layers[-1]
    is_activation = isinstance(last, keras.layers.Activation | keras.layers.Softmax)
    return keras.Model(model.inputs[0], [last.input if is_activation else model.output, model.output])


def _score_function(keras: Any, network: Any, layer: Any, target: int | None) -> _Function:
    ops = keras.ops

    def score(batch: Any, shift: Any) -> tuple[Any, Any]:
        with _shifted(layer, shift) as seen:
            logits, probabilities = network(batch, training=False)
        classes = logits.shape[-1]
        if classes == 1:
            wanted = probabilities >= 0.5 if target is None else ops.full_like(logits, target) > 0
            signs = ops.where(wanted, 1.0, -1.0)
        else:
            chosen = ops.argmax(probabilities, axis=-1) if target is None else [target] * len(batch)
            signs = ops.one_hot(chosen, classes)
        # Images do not touch each other, so that the sum's gradient holds each image's own.
        return ops.sum(logits * signs), seen[0]

    return score


@contextmanager
def _shifted(layer: Any, shift: Any) -> Iterator[list[Any]]:
    """Add ``shift`` to a layer's output and keep the output: the gradient by a shift of 0 is that by the maps."""
    original, seen = layer.call, []

    def call(*args: Any, **kwargs: Any) -> Any:
        seen.append(original(*args, **kwargs))
        return seen[-1] + shift

    layer.call = call
    try:
        yield seen
    finally:
        del layer.call  # the class's own comes to light again


def _gradient_function(keras: Any, network: Any, score: _Function) -> _Function:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _gradient_tensorflow(score)
    if backend == "torch":
        return _gradient_torch(score)
    if backend == "jax":
        return _gradient_jax(keras, network, score)
    raise InputError(
        f"KERAS_BACKEND must be one of tensorflow, torch, jax to take gradients; it is {backend!r}"
    )


def _gradient_tensorflow(score: _Function) -> _Function:
    tape_class = import_neural("tensorflow", _PURPOSE).GradientTape

    def gradient(batch: Any, shift: Any) -> tuple[Any, Any]:
        with tape_class(watch_accessed_variables=False) as tape:
            tape.watch(shift)
            total, maps = score(batch, shift)
        return tape.gradient(total, shift), maps

    return gradient


def _gradient_torch(score: _Function) -> _Function:
    torch = import_neural("torch", _PURPOSE)

    def gradient(batch: Any, shift: Any) -> tuple[Any, Any]:
        shift = shift.detach().requires_grad_(True)
        total, maps = score(batch, shift)
        return torch.autograd.grad(total, shift)[0], maps

    return gradient


def _gradient_jax(keras: Any, network: Any, score: _Function) -> _Function:
    """Compile the gradient as a whole: one by one, JAX would compile hundreds of small steps of a deep network."""
    jax, variables = import_neural("jax", _PURPOSE), network.variables

    # The weights come in as arguments, for what is compiled would hold its own copy of them.
    def pure(shift: Any, batch: Any, values: list[Any]) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return score(batch, shift)

    compiled = jax.jit(jax.grad(pure, has_aux=True))

    def gradient(batch: Any, shift: Any) -> tuple[Any, Any]:
        slopes, maps = compiled(shift, batch, [variable.value for variable in variables])
        return slopes, maps

    return gradient


def _enlarge(cam: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Stretch a map to (rows, columns), its largest value to 1."""
    large = cv2.resize(cam.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    top = large.max()
    return large / top if top > 0 else np.zeros(shape, np.float32)
