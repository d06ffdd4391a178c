"""The optional packages of the neural network: imported late, and named when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from histcxr.exceptions import MissingDependencyError

__all__ = ["import_neural", "neural_problem"]


def import_neural(name: str, purpose: str) -> ModuleType:
    """Import a package of the ``neural`` extra.

    Parameters
    ----------
    name : str
        The module, e.g. ``"keras"``. Keras takes its backend from the environment variable ``KERAS_BACKEND``
        (TensorFlow where it is unset).
    purpose : str
        What it is wanted for, for the message: ``"to train a LeNet"``.

    Raises
    ------
    MissingDependencyError
        When the package, or one that it needs (Keras's backend), is not installed.
    """
    if name == "keras":
        # TensorFlow greets on stderr with the processor's features; a value set by the user stays.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} is needed {purpose} and cannot be imported ({error}); "
            "install it with: pip install histcxr[neural]",
            name=error.name,
        ) from error


def neural_problem() -> str | None:
    """Say why no network can be trained here, or None where one can.

    Looks for the packages without importing them, which takes seconds.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    missing = [name for name in ("keras", "keras_tuner", backend) if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} not installed; pip install histcxr[neural]"
