"""Small networks as ONNX models: written layer by layer from their weights, run by ONNX Runtime.

ONNX Runtime cannot write ONNX, and the packages that can are large and slow to import. This writes the bytes that the
onnx package writes. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; encoding:
https://protobuf.dev/programming-guides/encoding/; both are fixed for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import ModelError
from histcxr.networks.backend import import_neural

#: Added to a variance before its root is taken, by the networks' batch norms and in the ONNX model alike.
EPSILON: Final = 1e-3

# Versions of ONNX's operators (2021; every ONNX Runtime since 1.12 reads them) and of the file.
_OPSET, _IR_VERSION = 17, 8

_FLOAT = 1  # TensorProto.FLOAT
_INT, _INTS = 2, 7  # AttributeProto.AttributeType


class GraphWriter:
    """Collects nodes and float32 tensors of one graph. Each node has one output, which is also its name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with attributes that are whole numbers or sequences of them; return its output."""
        message = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(3, output)
        message += _text(4, operator)
        for name, value in attributes.items():
            if isinstance(value, int):
                content = _integer(3, value) + _integer(20, _INT)
            else:
                content = b"".join(_integer(8, number) for number in value) + _integer(20, _INTS)
            message += _bytes(5, _text(1, name) + content)
        self._nodes.append(message)
        return output

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """Add a tensor; return its name."""
        dims = b"".join(_integer(1, length) for length in values.shape)
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        self._tensors.append(dims + _integer(2, _FLOAT) + _text(8, name) + _bytes(9, raw))
        return name

    def layer(
        self, operator: str, x: str, name: str, kernel: NDArray[Any], bias: NDArray[Any], **attributes: Any
    ) -> str:
        """Add a node with a kernel and a bias of its own (Conv, ConvTranspose, Gemm); return its output."""
        inputs = [x, self.tensor(f"{name}/kernel", kernel), self.tensor(f"{name}/bias", bias)]
        return self.node(operator, inputs, name, **attributes)

    def model(
        self,
        name: str,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        properties: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the graph as an ONNX model; lengths in shapes may be names, ``properties`` become its metadata."""
        graph = b"".join(_bytes(1, message) for message in self._nodes) + _text(2, name)
        graph += b"".join(_bytes(5, message) for message in self._tensors)
        graph += b"".join(_bytes(11, _value_info(key, shape)) for key, shape in inputs.items())
        graph += b"".join(_bytes(12, _value_info(key, shape)) for key, shape in outputs.items())
        model = _integer(1, _IR_VERSION) + _text(2, "histcxr") + _bytes(7, graph)
        model += _bytes(8, _integer(2, _OPSET))
        for key, value in (properties or {}).items():
            model += _bytes(14, _text(1, key) + _text(2, value))
        return model


def fold_norm(
    kernel: NDArray[np.floating], norm: Mapping[str, NDArray[np.floating]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fold the batch normalisation after a convolution without bias into it; return its kernel and bias.

    Of a kernel (filters, ...) and ``gamma, beta, moving_mean, moving_variance``, each of shape (filters,).
    """
    values = {name: np.asarray(value, np.float64) for name, value in norm.items()}
    factor = values["gamma"] / np.sqrt(values["moving_variance"] + EPSILON)
    folded = kernel.astype(np.float64) * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    return folded, values["beta"] - values["moving_mean"] * factor


def open_session(model: bytes) -> Any:
    """Open the content of an ONNX file for prediction on the CPU, as an ``onnxruntime.InferenceSession``.

    It may be used from several threads, and has one of its own, best where callers run many images at once. ModelError
    when the bytes are no ONNX model that ONNX Runtime can run; MissingDependencyError without it. Strangers' bytes are
    for :func:`read_graph` first: a model may loop, ask for any memory and name other files to read.
    """
    runtime = import_neural("onnxruntime", "to run a network")  # late: it takes a tenth of a second to load
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise ModelError(f"this is no ONNX model that ONNX Runtime can run: {error}") from error


def read_graph(model: bytes) -> list[tuple[int, Any]]:
    """Read what :class:`GraphWriter` wrote: field number and bytes of each part; of tensors (field 5) name and shape.

    ValueError or TypeError for what it does not write, such as functions, subgraphs and tensors kept in other files.
    """
    parts: list[tuple[int, Any]] = []
    for field, content in _fields(model):
        if field in (2, 14):  # who wrote it, and texts
            continue
        if field != 7 or parts:
            if (field, content) not in ((1, _IR_VERSION), (8, _integer(2, _OPSET))):
                raise ValueError(f"a model with field {field}, or of another version")
            continue
        parts += ((one, _tensor_shape(part) if one == 5 else part) for one, part in _fields(content))
    return parts


def _tensor_shape(message: bytes) -> tuple[str, tuple[int, ...]]:
    """Return name and shape of a tensor that holds its own float32 numbers, or raise ValueError."""
    fields = list(_fields(message))
    shape = tuple(value for field, value in fields if field == 1 and isinstance(value, int))
    kept = fields[len(shape) :]
    if [field for field, _ in kept] != [2, 8, 9] or kept[0][1] != _FLOAT:
        raise ValueError("a tensor that is not written as float32")
    if len(kept[2][1]) != 4 * prod(shape):
        raise ValueError("a tensor that is not as long as its shape says")
    return kept[1][1].decode(), shape


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers and values, whole numbers or bytes; ValueError for what :func:`_varint` would not write."""
    place = 0

    def number() -> int:
        nonlocal place
        start, value = place, 0
        while place == start or message[place - 1] & 0x80:
            if place == len(message) or place - start == 9:
                raise ValueError("a number that does not end")
            value |= (message[place] & 0x7F) << 7 * (place - start)
            place += 1
        if _varint(value) != message[start:place]:
            raise ValueError("a number that is written in a longer way")
        return value

    while place < len(message):
        key = number()
        field, value = key >> 3, number()
        if key & 7 == 0:
            yield field, value
        elif key & 7 == 2 and place + value <= len(message):
            place += value
            yield field, message[place - value : place]
        else:
            raise ValueError("a field of another kind, or one that is cut off")


def _value_info(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(
        _bytes(1, _integer(1, length) if isinstance(length, int) else _text(2, length)) for length in shape
    )
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, _FLOAT) + _bytes(2, dims)))


def _varint(value: int) -> bytes:
    """Encode a number of at least 0 in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes([value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, content: str) -> bytes:
    return _bytes(field, content.encode())
