"""The optional packages of the neural network: imported late, and named when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from histcxr.exceptions import InputError, MissingDependencyError, how_to_install

_DEFAULT_BACKEND, _OTHER_BACKENDS = "tensorflow", ("jax", "torch")


def import_neural(name: str, purpose: str) -> ModuleType:
    """Import a package of the ``neural`` extra, wanted for a purpose such as ``"to train a LeNet"``.

    Keras's backend: ``KERAS_BACKEND``, else ``~/.keras/keras.json``, else TensorFlow. MissingDependencyError: it, or
    what it needs, is not installed; InputError: Keras has no such backend.
    """
    # It would look up a host of its maker and keep a queue of messages under the home folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if name == "keras":
        # TensorFlow greets on stderr with the processor's features; a value set by the user stays.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        advice = f"install it with: {how_to_install('neural')}"
        if error.name in _OTHER_BACKENDS:  # the extra would bring TensorFlow
            advice = f"pip install {error.name}, or choose another backend with KERAS_BACKEND"
        raise MissingDependencyError(
            f"{name} is needed {purpose} and cannot be imported ({error}); {advice}", name=error.name
        ) from error
    except ValueError as error:
        backend = _backend()
        if name != "keras" or backend in (_DEFAULT_BACKEND, *_OTHER_BACKENDS):
            raise
        raise InputError(
            f"KERAS_BACKEND must be one of {', '.join((_DEFAULT_BACKEND, *_OTHER_BACKENDS))}; got {backend!r} ({error})"
        ) from error


def neural_problem() -> str | None:
    """Say why no network can be trained here, or None where one can; imports nothing, which takes seconds."""
    backend = _backend()
    missing = [name for name in ("keras", "keras_tuner", backend) if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    alone = missing == [backend] and backend in _OTHER_BACKENDS
    advice = f"pip install {backend}" if alone else how_to_install("neural")
    return f"{' and '.join(missing)} not installed; {advice}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what Keras draws while building follow from ``seed``: it uses Python's generator, put back afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _backend() -> str:
    """Name the backend that Keras will take, without importing it."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    folder = Path(os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras")))  # noqa: PTH111  # never raises
    try:
        settings = json.loads((folder / "keras.json").read_text())
    except (OSError, ValueError):
        return _DEFAULT_BACKEND
    return str(settings.get("backend", _DEFAULT_BACKEND)) if isinstance(settings, dict) else _DEFAULT_BACKEND
