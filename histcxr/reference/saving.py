"""A fitted reference classifier to a table of settings and the bytes of its arrays, and back.

Nothing that can run is ever loaded: the network is rebuilt from the name of its architecture, and the arrays are
read by name, each of the shape that the rebuilt network asks for.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError, ModelError, OutputError
from histcxr.reference import small_networks
from histcxr.reference.architectures import HeadOptions, build_architecture
from histcxr.reference.augmentation import Augmentation
from histcxr.reference.classifier import ReferenceClassifier, get_weights
from histcxr.reference.images import LARGEST_SIDE, InputSettings

__all__ = [
    "FORMAT",
    "NETWORK_FILE",
    "WEIGHTS_FILE",
    "classifier_from_parts",
    "classifier_to_parts",
    "load_classifier",
    "save_classifier",
]

#: Version of the format.
FORMAT: Final = 1

NETWORK_FILE: Final = "network.json"
WEIGHTS_FILE: Final = "weights.npz"

# Settings that are tables of their own, by the names of their kinds.
_TABLES: Final = {
    kind.__name__: kind
    for kind in (
        HeadOptions,
        Augmentation,
        InputSettings,
        small_networks.ConvOptions,
        small_networks.LeNetOptions,
        small_networks.RecurrentOptions,
        small_networks.ResidualOptions,
    )
}

# Beyond any real network: a damaged or foreign table must not fill the memory.
_MOST_CLASSES = 1000
_MOST_UNITS = 1 << 12
_MOST_NUMBERS = 64

# The header of an array in a .npz file, and more.
_HEADER_BYTES = 1024

# What reading a damaged .npz file can raise.
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def classifier_to_parts(classifier: ReferenceClassifier) -> tuple[dict[str, Any], bytes]:
    """Turn a fitted classifier into settings and weights.

    The same classifier gives the same bytes.

    Parameters
    ----------
    classifier : ReferenceClassifier
        Fitted.

    Returns
    -------
    meta : dict
        Ready for JSON: ``format, graph, classes, parameters, history, best_epoch, weights_sha256``.
    weights : bytes
        A ``.npz`` file.

    Raises
    ------
    ModelError
        When the classes are neither numbers, text nor booleans, or the network is beyond what is read back.
    """
    parameters = classifier.get_params(deep=False)
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None
    classes = classifier.classes_.tolist()
    try:
        _check_graph(classifier.graph_, classes)  # what is written must be read again
    except InputError as error:
        raise ModelError(f"the network cannot be saved: {error}") from error
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **classifier.weights_)
    weights = buffer.getvalue()
    meta = {
        "format": FORMAT,
        "graph": {name: _plain(value) for name, value in classifier.graph_.items()},
        "classes": classes,
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "history": {
            name: [None if math.isnan(value) else value for value in values]
            for name, values in classifier.history_.items()
        },
        "best_epoch": int(classifier.best_epoch_),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return meta, weights


def classifier_from_parts(meta: Mapping[str, Any], weights: bytes) -> ReferenceClassifier:
    """Rebuild a fitted classifier from what :func:`classifier_to_parts` gave.

    Parameters
    ----------
    meta : mapping
    weights : bytes

    Returns
    -------
    ReferenceClassifier
        It scores as the one that was saved.

    Raises
    ------
    ModelError
        When the settings are not those of one of the architectures, or the weights are damaged or not its own.
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    if meta.get("format") != FORMAT:
        raise ModelError(f"the network must be of format {FORMAT}; it says {meta.get('format')!r}")
    if hashlib.sha256(weights).hexdigest() != meta.get("weights_sha256"):
        raise ModelError("the weights are not those that were saved with the network: the file was changed")
    try:
        classifier = ReferenceClassifier(**_parameters(meta["parameters"]))
        graph = {name: _restored(value) for name, value in meta["graph"].items()}
        _check_graph(graph, meta["classes"])
        model = build_architecture(**graph)
        history = {
            str(name): [math.nan if value is None else float(value) for value in values]
            for name, values in meta["history"].items()
        }
        classes, best_epoch = np.array(meta["classes"]), int(meta["best_epoch"])
    except InputError as error:
        raise ModelError(f"the network's settings are refused: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the network's settings are damaged ({error!r})") from error
    arrays = _read_arrays(weights, get_weights(model))
    classifier.classes_ = classes
    classifier.image_shape_ = (graph["size"], graph["size"])
    classifier.n_features_in_ = graph["size"] ** 2
    classifier.graph_ = graph
    classifier.weights_ = arrays
    classifier.history_ = history
    classifier.best_epoch_ = best_epoch
    classifier.validation_rows_ = None
    return classifier


def save_classifier(classifier: ReferenceClassifier, folder: str | os.PathLike[str]) -> Path:
    """Write a fitted classifier into a folder: ``network.json`` and ``weights.npz``.

    Parameters
    ----------
    classifier : ReferenceClassifier
    folder : path-like
        Made where it is missing; a network in it is replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    meta, weights = classifier_to_parts(classifier)
    top = Path(folder)
    try:
        top.mkdir(parents=True, exist_ok=True)
        # The settings last: they name the weights by their hash, so half a network is never taken for a whole.
        for name, data in (
            (WEIGHTS_FILE, weights),
            (NETWORK_FILE, json.dumps(meta, indent=2, allow_nan=False).encode()),
        ):
            unfinished = top / f"{name}.part"
            unfinished.write_bytes(data)
            unfinished.replace(top / name)
    except OSError as error:
        raise OutputError(f"{top}: the network cannot be written ({error.strerror or error})") from error
    return top


def load_classifier(folder: str | os.PathLike[str]) -> ReferenceClassifier:
    """Read a classifier that :func:`save_classifier` wrote.

    Raises
    ------
    ModelError
        When there is none, or it is damaged or not one of ours.
    """
    top = Path(folder)
    try:
        text, weights = (top / NETWORK_FILE).read_bytes(), (top / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise ModelError(f"{top}: no network can be read here ({error.strerror or error})") from error
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{top / NETWORK_FILE} is damaged ({error}); save the network again") from error
    if not isinstance(meta, dict):
        raise ModelError(f"{top / NETWORK_FILE} must hold a table; it holds a {type(meta).__name__}")
    try:
        return classifier_from_parts(meta, weights)
    except ModelError as error:
        raise ModelError(f"{top}: {error}") from error


def _plain(value: Any) -> Any:
    """Return a setting as JSON knows it; a table keeps the name of its kind."""
    if type(value).__name__ in _TABLES:
        return {"kind": type(value).__name__, **{name: _plain(v) for name, v in asdict(value).items()}}
    if isinstance(value, Mapping):
        return {"kind": "mapping", "items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _restored(value: Any) -> Any:
    """Return what :func:`_plain` was given."""
    if isinstance(value, list):
        return tuple(_restored(item) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {name: _restored(item) for name, item in value.items()}
    kind = fields.pop("kind", None)
    if kind == "mapping":
        return dict(fields["items"])
    if kind not in _TABLES:
        raise InputError(f"a table must be one of {', '.join(_TABLES)}; got {kind!r}")
    return _TABLES[kind](**fields)


def _parameters(saved: Mapping[str, Any]) -> dict[str, Any]:
    known = ReferenceClassifier().get_params(deep=False)
    unknown = sorted(saved.keys() - known.keys())  # what an earlier version did not know yet has its default
    if unknown:
        raise InputError(f"parameters must be those of the classifier; got also {', '.join(unknown)}")
    return {name: _restored(value) for name, value in saved.items()}


def _check_graph(graph: Mapping[str, Any], classes: Any) -> None:
    """Refuse what would fill the memory before :func:`build_architecture` refuses the rest."""
    size, n_classes = graph["size"], graph["n_classes"]
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIDE:
        raise InputError(f"size must be a whole number of pixels up to {LARGEST_SIDE}; got {size!r}")
    if not isinstance(classes, list) or not 2 <= len(classes) <= _MOST_CLASSES or len(classes) != n_classes:
        raise InputError(
            f"classes must be a list of {n_classes!r}, from 2 to {_MOST_CLASSES}; got {classes!r}"
        )
    if len({type(value) for value in classes}) != 1 or not isinstance(classes[0], bool | int | float | str):
        raise InputError(f"classes must be all numbers, all text or all booleans; got {classes!r}")
    if sorted(set(classes)) != classes:
        raise InputError(f"classes must be different and in order; got {classes!r}")
    for name in ("head", "options"):
        layers = {} if graph[name] is None else asdict(graph[name])
        numbers = [n for value in layers.values() for n in (value if isinstance(value, tuple) else (value,))]
        if len(numbers) > _MOST_NUMBERS or any(isinstance(n, int) and n > _MOST_UNITS for n in numbers):
            raise InputError(f"{name} must have layers of at most {_MOST_UNITS} units; got {graph[name]!r}")


def _read_arrays(data: bytes, wanted: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Read arrays by name, each of its shape and type, and nothing else."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name in sorted(wanted.keys() ^ found.keys()):
                raise ModelError(
                    f"the weights must be those of the network; {name} is "
                    f"{'missing' if name in wanted else 'no part of it'}"
                )
            for name, model in wanted.items():
                if found[name].file_size > model.nbytes + _HEADER_BYTES:
                    raise ModelError(f"the weights must be those of the network; {name} is too large")
                with archive.open(found[name]) as file:
                    arrays[name] = _read_array(file, name, model)
    except _DAMAGE as error:
        raise ModelError(f"the weights are damaged ({error})") from error
    return arrays


def _read_array(file: Any, name: str, model: NDArray[Any]) -> NDArray[Any]:
    # The header first: what it promises decides how much memory the rest takes.
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ModelError(f"the weights must be of NumPy's format 1.0; {name} is of {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != model.shape or dtype != model.dtype or fortran and model.ndim > 1:
        raise ModelError(
            f"the weights must be those of the network; {name} is {dtype} of shape {shape}, not {model.dtype} of "
            f"{model.shape}"
        )
    array = np.frombuffer(file.read(model.nbytes), model.dtype).reshape(shape).copy()
    if not np.isfinite(array).all():
        raise ModelError(f"the weights must be finite; {name} is not")
    return array
