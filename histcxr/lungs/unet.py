"""The network that finds lungs, and the gate on what it sees.

A small U-Net (Ronneberger, Fischer and Brox, 2015) on any Keras 3 backend: convolutions of 3 x 3 pixels with batch
normalisation and ReLU, one at the top and two on each level below, 2 x 2 max pooling, transposed convolutions, skips.
Keras trains it (:func:`build_unet`), :func:`write_onnx` writes it for prediction.

The gate refuses what is no upright frontal chest radiograph by the network's context, the means of its deepest maps
over each quarter: by its distance from radiographs' (:mod:`histcxr.decision.out_of_distribution`), and by a plane
between them and pictures that are none (outlier exposure, Hendrycks, Mazeika and Dietterich 2019). Both limits follow
from the share of validation radiographs that may be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.out_of_distribution import OutOfDistribution, fit_out_of_distribution
from histcxr.exceptions import ModelError
from histcxr.lungs.shape import SIZE
from histcxr.networks.backend import import_neural, seeded
from histcxr.networks.fit import Weights
from histcxr.networks.onnx_model import EPSILON, GraphWriter, fold_norm, read_graph

#: Maps on each level, from the finest to the coarsest.
WIDTHS: Final = (8, 16, 32, 64, 96)

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

#: Share of the validation radiographs that each of the two tests may refuse.
FALSE_ALARMS: Final = 0.004

#: Directions in which distances are measured: those in which radiographs differ most.
DIRECTIONS: Final = 96

#: Kinds of drawn pictures that the plane is fitted with; the others show what it does with the unknown.
EXPOSED: Final = ("grey_photograph", "text", "noise", "blank", "lateral", "hand", "abdomen")

# Inverted radiographs are told by their grey levels, not by the network, which is taught to see through it.
_UNTOLD: Final = ("inverted", "solarised")


@dataclass(frozen=True)
class Gate:
    """Two limits on the context, the distribution's in :data:`DIRECTIONS` directions.

    ``context @ plane + offset`` (float64 ``(k,)``) is high for radiographs and refused below ``limit``, as
    ``false_alarms`` (a share) of the validation radiographs are.
    """

    distribution: OutOfDistribution
    plane: NDArray[np.float64]
    offset: float
    limit: float
    false_alarms: float


def fit_gate(
    training: NDArray[np.floating], validation: NDArray[np.floating], others: NDArray[np.floating]
) -> Gate:
    """Fit both limits from contexts (n, k) of radiographs, other patients', and ``others``; InputError for too few."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    distribution = fit_out_of_distribution(
        training, validation, false_alarms=FALSE_ALARMS, directions=DIRECTIONS
    )
    contexts = np.concatenate([training, others]).astype(np.float64)
    good = np.arange(len(contexts)) < len(training)
    scaler = StandardScaler().fit(contexts)
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000).fit(
        scaler.transform(contexts), good
    )
    plane = fitted.coef_[0] / scaler.scale_
    offset = float(fitted.intercept_[0] - plane @ scaler.mean_)
    heights = np.asarray(validation, np.float64) @ plane + offset
    limit = float(np.quantile(heights, FALSE_ALARMS, method="lower"))
    return Gate(distribution, plane, offset, limit, float(np.mean(heights < limit)))


def no_radiographs(
    radiographs: NDArray[np.uint8], seed: int, *, drawn: int = 300
) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures to fit the plane with: ``drawn`` of each kind in :data:`EXPOSED`, then changed radiographs.

    These are uint8 ``(n, height, width)``, of training patients; each is changed in one way.
    """
    from histcxr.phantoms.not_chests import TRANSFORMS, draw_not_chest  # finding lungs has no use for them

    changes = [change for name, change in TRANSFORMS.items() if name not in _UNTOLD]
    rng = np.random.default_rng([seed, 3])
    for kind in EXPOSED:
        for _ in range(drawn):
            yield draw_not_chest(kind, rng)
    for i, pixels in enumerate(radiographs):
        yield changes[i % len(changes)](pixels)


def _convolutions(side: str, level: int) -> list[str]:
    """Name the convolutions that follow each other on a level: the finest is dear and gets one."""
    return [f"{side}{level}_conv{i}" for i in ((1, 2) if level else (1,))]


def build_unet(widths: tuple[int, ...] = WIDTHS, *, seed: int = 0) -> Any:
    """Build a Keras model with fresh weights, which are equal for equal seeds on one backend.

    It goes from ``(n, SIZE, SIZE, 1)`` to ``(n, SIZE, SIZE, 1)``: each pixel's probability of belonging to a lung.
    """
    keras = import_neural("keras", "to train the network that finds lungs")
    layers, deepest = keras.layers, len(widths) - 1

    def block(x: Any, side: str, level: int) -> Any:
        for name in _convolutions(side, level):
            x = layers.Conv2D(widths[level], 3, padding="same", use_bias=False, name=name)(x)
            x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        return x

    with seeded(seed):
        x = image = layers.Input((SIZE, SIZE, 1), name="image")
        skips = []
        for level in range(deepest + 1):
            x = block(layers.MaxPooling2D(name=f"down{level}_pool")(x) if level else x, "down", level)
            skips.append(x)
        for level in reversed(range(deepest)):
            x = layers.Conv2DTranspose(widths[level], 2, strides=2, name=f"up{level}_enlarge")(x)
            x = block(layers.Concatenate(name=f"up{level}_skip")([x, skips[level]]), "up", level)
        lungs = layers.Conv2D(1, 1, activation="sigmoid", name="lungs")(x)
        return keras.Model(image, lungs, name="lungs")


def weight_shapes(widths: tuple[int, ...] = WIDTHS) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight, in the network's order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def block(side: str, level: int, channels: int) -> None:
        for name in _convolutions(side, level):
            shapes[f"{name}/kernel"] = (3, 3, channels, widths[level])
            shapes.update({f"{name}_norm/{part}": (widths[level],) for part in _NORM})
            channels = widths[level]

    for level in range(len(widths)):
        block("down", level, widths[level - 1] if level else 1)
    for level in reversed(range(len(widths) - 1)):
        shapes[f"up{level}_enlarge/kernel"] = (2, 2, widths[level], widths[level + 1])
        shapes[f"up{level}_enlarge/bias"] = (widths[level],)
        block("up", level, 2 * widths[level])
    shapes["lungs/kernel"] = (1, 1, widths[0], 1)
    shapes["lungs/bias"] = (1,)
    return shapes


def check_weights(weights: Weights) -> tuple[int, ...]:
    """Return the widths of the network with these weights; ModelError: one is missing, misshapen or not finite."""
    widths: tuple[int, ...] = ()
    while (kernel := weights.get(f"down{len(widths)}_conv1/kernel")) is not None:
        widths += (kernel.shape[-1],)
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


def write_onnx(
    weights: Weights, gate: Gate | None = None, *, properties: Mapping[str, str] | None = None
) -> bytes:
    """Write the network as one float32 ONNX model; batch normalisation is folded into the convolution before it.

    From ``image`` ``(n, 1, SIZE, SIZE)`` to ``lungs``, of the same shape, and ``context`` ``(n, 4 widths[-1])``; with a
    gate also ``distance`` ``(n, 1)``, the context's squared Mahalanobis distance, and ``height`` ``(n, 1)`` over the
    plane. ``weights``: of :func:`~histcxr.networks.fit.get_weights`, ModelError for another network's; ``properties``:
    texts to keep.
    """
    widths = check_weights(weights)
    writer = GraphWriter()
    deepest = len(widths) - 1
    x, skips = "image", []
    for level in range(deepest + 1):
        if level:
            x = writer.node("MaxPool", [x], f"pool{level}", kernel_shape=[2, 2], strides=[2, 2])
        x = _write_block(writer, weights, x, "down", level)
        skips.append(x)
    half = SIZE >> (deepest + 1)
    pooled = writer.node("AveragePool", [x], "pooled", kernel_shape=[half, half], strides=[half, half])
    writer.node("Flatten", [pooled], "context", axis=1)
    for level in reversed(range(deepest)):
        # Keras keeps (height, width, out, in), ONNX (in, out, height, width).
        kernel, bias = (weights[f"up{level}_enlarge/{part}"] for part in ("kernel", "bias"))
        how = {"kernel_shape": [2, 2], "strides": [2, 2]}
        x = writer.layer("ConvTranspose", x, f"up{level}.enlarge", kernel.transpose(3, 2, 0, 1), bias, **how)
        x = writer.node("Concat", [x, skips[level]], f"up{level}.skip", axis=1)
        x = _write_block(writer, weights, x, "up", level)
    kernel = weights["lungs/kernel"].transpose(3, 2, 0, 1)
    last = [writer.tensor("lungs/kernel", kernel), writer.tensor("lungs/bias", weights["lungs/bias"])]
    logits = writer.node("Conv", [x, *last], "logits")
    writer.node("Sigmoid", [logits], "lungs")
    outputs: dict[str, Sequence[int | str]] = {
        "lungs": ["n", 1, SIZE, SIZE],
        "context": ["n", 4 * widths[-1]],
    }
    if gate is not None:
        whitening = gate.distribution.whitening
        matrix = writer.tensor("whitening", whitening.T)
        offset = writer.tensor("centre", -(whitening @ gate.distribution.centre))
        white = writer.node("Gemm", ["context", matrix, offset], "white")
        writer.node("ReduceSumSquare", [white], "distance", axes=[1], keepdims=1)
        plane = writer.tensor("plane", gate.plane[:, None])
        writer.node("Gemm", ["context", plane, writer.tensor("offset", np.array([gate.offset]))], "height")
        outputs |= {"distance": ["n", 1], "height": ["n", 1]}
    return writer.model("lungs", {"image": ["n", 1, SIZE, SIZE]}, outputs, properties)


def check_onnx(model: bytes) -> None:
    """Refuse (ModelError) an ONNX file that differs from :func:`write_onnx`'s in anything but numbers and widths.

    A file from elsewhere could loop for ever, ask for any memory, or name other files to read.
    """
    try:
        parts = read_graph(model)
        tensors = dict(part for field, part in parts if field == 5)
        widths: tuple[int, ...] = ()
        while (shape := tensors.get(f"down{len(widths)}.conv1/kernel")) is not None:
            widths += shape[:1]
        if not 2 <= len(widths) <= _MOST_LEVELS or not all(1 <= width <= _MOST_MAPS for width in widths):
            raise ValueError(f"levels of {widths!r:.80} maps")
        context, directions = 4 * widths[-1], min(tensors["centre"][0], 4 * widths[-1])
        nothing = OutOfDistribution(np.zeros(context), np.zeros((directions, context)), 0.0, 0.0)
        weights = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(widths).items()}
        if parts != read_graph(write_onnx(weights, Gate(nothing, np.zeros(context), 0.0, 0.0, 0.0))):
            raise ValueError("layers or shapes of another network")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"this is no ONNX file of a network that finds lungs, as histcxr segment-train writes it: {error}"
        ) from error


_MOST_LEVELS, _MOST_MAPS = 6, 512


def _write_block(writer: GraphWriter, weights: Weights, x: str, side: str, level: int) -> str:
    for layer in _convolutions(side, level):
        name = layer.replace("_", ".")
        norm = {part: weights[f"{layer}_norm/{part}"] for part in _NORM}
        kernel, bias = fold_norm(weights[f"{layer}/kernel"].transpose(3, 2, 0, 1), norm)
        x = writer.layer("Conv", x, name, kernel, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = writer.node("Relu", [x], f"{name}.relu")
    return x
