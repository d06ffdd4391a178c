"""The few messages of an ONNX file that a small network needs, in Protocol Buffers' wire format.

ONNX Runtime reads ONNX but cannot write it, and the ``onnx`` package, which can, would be needed wherever a
saved network is loaded: the file is made anew there from the weights, so that none is taken on trust. The
field numbers are those of ``onnx.proto`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), the encoding
that of https://protobuf.dev/programming-guides/encoding/; both are fixed for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["model_bytes", "node", "tensor", "value_info"]

_FLOAT = 1  # TensorProto.FLOAT
_INT, _INTS = 2, 7  # AttributeProto.AttributeType


def tensor(name: str, values: NDArray[np.float32]) -> bytes:
    """Encode a TensorProto of float32."""
    dims = b"".join(_integer(1, length) for length in values.shape)
    raw = np.ascontiguousarray(values, "<f4").tobytes()
    return dims + _integer(2, _FLOAT) + _text(8, name) + _bytes(9, raw)


def node(
    operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, int | Sequence[int]]
) -> bytes:
    """Encode a NodeProto with one output, which is also its name."""
    message = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(3, output)
    message += _text(4, operator)
    for name, value in attributes.items():
        if isinstance(value, int):
            content = _integer(3, value) + _integer(20, _INT)
        else:
            content = b"".join(_integer(8, number) for number in value) + _integer(20, _INTS)
        message += _bytes(5, _text(1, name) + content)
    return message


def value_info(name: str, shape: Sequence[int | str]) -> bytes:
    """Encode a ValueInfoProto of float32; a length may be a name."""
    dims = b"".join(
        _bytes(1, _integer(1, length) if isinstance(length, int) else _text(2, length)) for length in shape
    )
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, _FLOAT) + _bytes(2, dims)))


def model_bytes(
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    *,
    name: str,
    opset: int,
    ir_version: int,
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Encode a ModelProto with its graph, and texts that ONNX Runtime gives back as its metadata."""
    graph = b"".join(_bytes(1, message) for message in nodes) + _text(2, name)
    graph += b"".join(_bytes(5, message) for message in tensors)
    graph += b"".join(_bytes(11, message) for message in inputs)
    graph += b"".join(_bytes(12, message) for message in outputs)
    model = _integer(1, ir_version) + _text(2, "histcxr") + _bytes(7, graph)
    model += _bytes(8, _integer(2, opset))
    for key, value in (properties or {}).items():
        model += _bytes(14, _text(1, key) + _text(2, value))
    return model


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
