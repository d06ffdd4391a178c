"""Running ONNX models, imported late: ONNX Runtime takes a tenth of a second to load."""

from __future__ import annotations

from typing import Any

from histcxr.exceptions import ModelError
from histcxr.networks.backend import import_neural

__all__ = ["open_session"]


def open_session(model: bytes, *, threads: int = 1) -> Any:
    """Open an ONNX model for prediction on the CPU.

    A session may be used from several threads.

    Parameters
    ----------
    model : bytes
        The content of an ONNX file.
    threads : int, default=1
        Threads of the session itself. One is best where callers run many images at once.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    ModelError
        When the bytes are no ONNX model that ONNX Runtime can run.
    MissingDependencyError
        When ``onnxruntime`` is not installed.
    """
    runtime = import_neural("onnxruntime", "to run a network")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    errors = runtime.capi.onnxruntime_pybind11_state
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail, errors.InvalidArgument) as error:
        raise ModelError(f"this is no ONNX model that ONNX Runtime can run: {error}") from error
