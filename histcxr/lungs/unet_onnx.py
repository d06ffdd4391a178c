"""The network that finds lungs as an ONNX file: written from its weights, without Keras, run by ONNX Runtime.

Only the standard operators Conv, ConvTranspose, Relu, MaxPool, Concat, Sigmoid, AveragePool, Flatten, Gemm and
ReduceSumSquare are used. Batch normalisation is folded into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.lungs.gate import Gate
from histcxr.lungs.segmenter import SIZE
from histcxr.lungs.unet import EPSILON, Weights, check_weights, convolutions
from histcxr.networks import onnx_file

__all__ = ["write_onnx"]

_OPSET = 17
_IR_VERSION = 8


def write_onnx(
    weights: Weights,
    gate: Gate | None = None,
    *,
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Write the network as one ONNX model.

    Parameters
    ----------
    weights : dict of str to ndarray
        As :func:`~histcxr.lungs.unet.get_weights` gives them.
    gate : Gate, optional
        What to compute from the context.
    properties : mapping of str to str, optional
        Texts to keep in the file.

    Returns
    -------
    bytes
        An ONNX model of float32 with one input ``image`` ``(n, 1, SIZE, SIZE)``, and the outputs ``lungs`` ``(n, 1,
        SIZE, SIZE)`` and ``context`` ``(n, 4 widths[-1])``, the mean of each of the deepest maps over each quarter of
        the picture; with a gate also ``distance`` ``(n, 1)``, the squared Mahalanobis distance of the context, and
        ``height`` ``(n, 1)``, its height over the gate's plane.

    Raises
    ------
    ModelError
        When the weights are not those of such a network.
    """
    widths = check_weights(weights)
    writer = _Writer(weights)
    deepest = len(widths) - 1
    x, skips = "image", []
    for level in range(deepest + 1):
        if level:
            x = writer.node("MaxPool", [x], f"pool{level}", kernel_shape=[2, 2], strides=[2, 2])
        x = writer.block(x, "down", level)
        skips.append(x)
    half = SIZE >> (deepest + 1)
    pooled = writer.node("AveragePool", [x], "pooled", kernel_shape=[half, half], strides=[half, half])
    writer.node("Flatten", [pooled], "context", axis=1)
    for level in reversed(range(deepest)):
        x = writer.enlarge(x, f"up{level}.enlarge")
        x = writer.node("Concat", [x, skips[level]], f"up{level}.skip", axis=1)
        x = writer.block(x, "up", level)
    kernel = writer.tensor("lungs/kernel", weights["lungs/kernel"].transpose(3, 2, 0, 1))
    logits = writer.node("Conv", [x, kernel, writer.tensor("lungs/bias", weights["lungs/bias"])], "logits")
    writer.node("Sigmoid", [logits], "lungs")
    outputs = [
        onnx_file.value_info("lungs", ["n", 1, SIZE, SIZE]),
        onnx_file.value_info("context", ["n", 4 * widths[-1]]),
    ]
    if gate is not None:
        whitening = gate.distribution.whitening
        matrix = writer.tensor("whitening", whitening.T)
        offset = writer.tensor("centre", -(whitening @ gate.distribution.centre))
        white = writer.node("Gemm", ["context", matrix, offset], "white")
        writer.node("ReduceSumSquare", [white], "distance", axes=[1], keepdims=1)
        plane = writer.tensor("plane", gate.plane[:, None])
        writer.node("Gemm", ["context", plane, writer.tensor("offset", np.array([gate.offset]))], "height")
        outputs += [onnx_file.value_info(name, ["n", 1]) for name in ("distance", "height")]
    return onnx_file.model_bytes(
        writer.nodes,
        writer.tensors,
        [onnx_file.value_info("image", ["n", 1, SIZE, SIZE])],
        outputs,
        name="lungs",
        opset=_OPSET,
        ir_version=_IR_VERSION,
        properties=properties,
    )


class _Writer:
    """Collects nodes and tensors of the graph."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []
        self._weights = weights

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx_file.node(operator, inputs, output, attributes))
        return output

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        self.tensors.append(onnx_file.tensor(name, np.asarray(values, np.float32)))
        return name

    def block(self, x: str, side: str, level: int) -> str:
        for i in range(1, convolutions(level) + 1):
            name = f"{side}{level}.conv{i}"
            kernel, bias = self._folded(name)
            inputs = [x, self.tensor(f"{name}/kernel", kernel), self.tensor(f"{name}/bias", bias)]
            x = self.node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            x = self.node("Relu", [x], f"{name}.relu")
        return x

    def enlarge(self, x: str, name: str) -> str:
        # Keras keeps (height, width, out, in), ONNX (in, out, height, width).
        kernel = self._weights[f"{name}/kernel"].transpose(3, 2, 0, 1)
        inputs = [
            x,
            self.tensor(f"{name}/kernel", kernel),
            self.tensor(f"{name}/bias", self._weights[f"{name}/bias"]),
        ]
        return self.node("ConvTranspose", inputs, name, kernel_shape=[2, 2], strides=[2, 2])

    def _folded(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return kernel (out, in, 3, 3) and bias of a convolution with its batch normalisation."""
        norm = {
            key: self._weights[f"{name}.norm/{key}"].astype(np.float64)
            for key in ("gamma", "beta", "moving_mean", "moving_variance")
        }
        factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + EPSILON)
        kernel = self._weights[f"{name}/kernel"].astype(np.float64).transpose(3, 2, 0, 1)
        return kernel * factor[:, None, None, None], norm["beta"] - norm["moving_mean"] * factor
