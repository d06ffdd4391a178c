"""The 1-D LeNet as an ONNX model: written from the numbers of its graph, run by ONNX Runtime.

The model is written layer by layer, not traced from Keras: so it is the same from every backend, and can be
made wherever the weights are, without Keras or TensorFlow. It holds only the standard operators Conv, Relu or
Tanh, MaxPool or AveragePool, Flatten, Gemm, Sigmoid and Mean. Batch normalisation is folded into the
convolution before it, and the networks of several seeds become one graph whose score is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.models.lenet_graph import EPSILON, LeNetGraph, Weights
from histcxr.networks import onnx_file

__all__ = ["OPSET", "run_session", "write_onnx"]

#: Version of ONNX's operators that the file is written in (2021; every ONNX Runtime since 1.12 reads it).
OPSET = 17
_IR_VERSION = 8


def write_onnx(graph: LeNetGraph, members: Sequence[Weights]) -> bytes:
    """Write networks of one graph as one ONNX model, whose score is the mean of theirs.

    Parameters
    ----------
    graph : LeNetGraph
    members : sequence of dict
        The weights of each network, as :func:`~histcxr.models.lenet_graph.get_weights` gives them.

    Returns
    -------
    bytes
        An ONNX model with one input ``histograms``, float32 ``(n, channels, bins)`` in the representation
        that the network was trained on, and one output ``score``, float32 ``(n, 1)``.

    Raises
    ------
    InputError
        When there is no network, or a weight is missing or of another shape than the graph's.
    """
    if not members:
        raise InputError("members must hold the weights of at least one network; got none")
    for weights in members:
        graph.check_weights(weights)
    writer = _Writer()
    scores = [writer.network(f"member{i}", graph, weights) for i, weights in enumerate(members, start=1)]
    writer.node("Mean", scores, "score")
    return onnx_file.model_bytes(
        writer.nodes,
        writer.tensors,
        [onnx_file.value_info("histograms", ["n", graph.channels, graph.bins])],
        [onnx_file.value_info("score", ["n", 1])],
        name="lenet",
        opset=OPSET,
        ir_version=_IR_VERSION,
    )


class _Writer:
    """Collects nodes and tensors of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx_file.node(operator, inputs, output, attributes))
        return output

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        self.tensors.append(onnx_file.tensor(name, np.asarray(values, np.float32)))
        return name

    def network(self, name: str, graph: LeNetGraph, weights: Weights) -> str:
        """Add one network; return the name of its score."""
        activation = {"relu": "Relu", "tanh": "Tanh"}[graph.activation]
        x, lengths = "histograms", graph.lengths()
        for i, (width, pool) in enumerate(zip(graph.kernel_size, graph.pool_size, strict=True), start=1):
            at = f"{name}/conv{i}"
            kernel, bias = _convolution(weights, i, graph.batch_norm)
            inputs = [x, self.tensor(f"{at}/kernel", kernel), self.tensor(f"{at}/bias", bias)]
            x = self.node("Conv", inputs, at, kernel_shape=[width], pads=_pads(width - 1))
            x = self.node(activation, [x], f"{at}/{graph.activation}")
            if pool > 1:
                options: dict[str, Any] = {} if graph.pooling == "max" else {"count_include_pad": 0}
                x = self.node(
                    "MaxPool" if graph.pooling == "max" else "AveragePool",
                    [x],
                    f"{name}/pool{i}",
                    kernel_shape=[pool],
                    strides=[pool],
                    pads=_pads(-lengths[i - 1] % pool),
                    **options,
                )
        x = self.node("Flatten", [x], f"{name}/flatten", axis=1)
        for i in range(1, len(graph.dense) + 2):
            layer = f"dense{i}" if i <= len(graph.dense) else "output"
            kernel = weights[f"{layer}/kernel"]
            if i == 1:
                # Keras flattens (bins, filters); here the filters come first.
                shape = (lengths[-1], graph.filters[-1], -1)
                kernel = kernel.reshape(shape).transpose(1, 0, 2).reshape(kernel.shape)
            at = f"{name}/{layer}"
            inputs = [
                x,
                self.tensor(f"{at}/kernel", kernel),
                self.tensor(f"{at}/bias", weights[f"{layer}/bias"]),
            ]
            x = self.node("Gemm", inputs, at)
            if layer != "output":
                x = self.node(activation, [x], f"{at}/{graph.activation}")
        return self.node("Sigmoid", [x], f"{name}/score")


def _convolution(weights: Weights, i: int, batch_norm: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return kernel (filters, channels, width) and bias of a block, batch normalisation folded in."""
    kernel = weights[f"conv{i}/kernel"].astype(np.float64).transpose(2, 1, 0)
    if not batch_norm:
        return kernel, weights[f"conv{i}/bias"]
    norm = {
        key: weights[f"norm{i}/{key}"].astype(np.float64)
        for key in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + EPSILON)
    return kernel * factor[:, None, None], norm["beta"] - norm["moving_mean"] * factor


def _pads(total: int) -> list[int]:
    """Share padding out as Keras's ``"same"`` does: the odd one at the end."""
    return [total // 2, total - total // 2]


def run_session(session: Any, histograms: NDArray[np.float32], batch_size: int = 256) -> NDArray[np.float64]:
    """Score histograms.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    histograms : ndarray of float32, shape (n, channels, bins)
    batch_size : int, default=256
        Rows run at a time: bounds the memory for activations.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    scores = np.empty(len(histograms), np.float64)
    for start in range(0, len(histograms), batch_size):
        part = np.ascontiguousarray(histograms[start : start + batch_size], np.float32)
        scores[start : start + batch_size] = session.run(["score"], {"histograms": part})[0][:, 0]
    return scores
