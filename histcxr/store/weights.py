"""A fitted pipeline to bytes and back, through formats that hold data only.

The pipeline goes through skops, each XGBoost booster through XGBoost's own UBJSON. What a skops file may name
is the short table below: of each kind of node, only these types. Functions, methods, partial calls and
constructors with arguments are no part of it, whatever skops itself would accept.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from typing import Any

import numpy as np
import skops.io

from histcxr.exceptions import HistcxrWarning, MissingDependencyError, ModelError
from histcxr.store.aliases import OLD_PATHS
from histcxr.store.structure import check_booster, check_structure, walk_objects
from histcxr.store.ubjson import read_ubjson

ESTIMATOR_FILE = "estimator.skops"
MAX_UNPACKED = 2 << 30  # bytes of arrays in one skops file; the largest real models stay under a tenth

# What the registry's pipelines are made of, and a plain logistic regression.
_OBJECTS = {
    "histcxr.features.band_features.BandDensities",
    "histcxr.features.band_features.BandFeatures",
    "histcxr.features.band_features.BothSides",
    "histcxr.features.transformers.HistogramFeatures",
    "histcxr.features.transformers.LungIntensity",
    "histcxr.models.calibrated.CalibratedClassifier",
    "histcxr.models.gaussian_svc.GaussianSVC",
    "histcxr.models.lenet.LeNetClassifier",
    "histcxr.models.stack.StackedClassifier",
    "sklearn.decomposition._pca.PCA",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.neighbors._classification.KNeighborsClassifier",
    "sklearn.pipeline.FeatureUnion",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.svm._classes.SVC",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "xgboost.sklearn.XGBClassifier",
}
_SCALARS = {f"numpy.{name}" for name in ("bool", "bool_", "float32", "float64", "int32", "int64")}
TRUSTED: dict[str, set[str]] = {
    "DictNode": {"builtins.dict"},
    "JsonNode": {"builtins.str"},
    "ListNode": {"builtins.list"},
    "NdArrayNode": {"numpy.ndarray", *_SCALARS},
    "ObjectNode": _OBJECTS,
    "TreeNode": {"sklearn.tree._tree.Tree"},
    "TupleNode": {"builtins.tuple"},
    "TypeNode": {"builtins.bool", "builtins.float", "builtins.int", "builtins.str", *_SCALARS},
}
# What skops does not trust by itself, of the types above.
_BEYOND_SKOPS = sorted(_OBJECTS | TRUSTED["TreeNode"])

# What reading damaged bytes can raise; anything else would be a bug of ours and is not hidden.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def weights_to_bytes(estimator: Any) -> dict[str, bytes]:
    """Turn a fitted estimator into files that cannot run code.

    The same estimator gives the same bytes. It is not changed; what is saved scores on one CPU thread, so
    that a score never depends on the machine's load.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Made of the types in :data:`TRUSTED`.

    Returns
    -------
    dict of str to bytes
        File name to content: ``estimator.skops`` and a ``booster-N.ubj`` for each XGBoost booster.

    Raises
    ------
    ModelError
        The estimator holds something that is not on the list.
    """
    files: dict[str, bytes] = {}
    placeholders: dict[int, Any] = {}
    for part in walk_objects(estimator):
        if _is_xgboost(part) and "_Booster" in vars(part) and id(part._Booster) not in placeholders:
            name = f"booster-{len(files)}.ubj"
            files[name] = bytes(part._Booster.save_raw("ubj"))
            placeholders[id(part._Booster)] = name
    # A memo entry replaces the object in the copy: each booster by the name of its file.
    plain = copy.deepcopy(estimator, placeholders)
    for part in walk_objects(plain):
        if hasattr(part, "n_jobs"):
            part.n_jobs = 1
        if _is_xgboost(part):
            part.device = "cpu"
    try:
        dumped = skops.io.dumps(plain)
    except (TypeError, ValueError, AttributeError) as error:  # skops' ways to say that it cannot
        raise ModelError(f"the estimator cannot be saved: {error}") from error
    files[ESTIMATOR_FILE] = _canonical(dumped)
    return files


def weights_from_bytes(files: dict[str, bytes]) -> Any:
    """Rebuild the estimator, after checking what the files name and contain.

    Parameters
    ----------
    files : dict of str to bytes
        As :func:`weights_to_bytes` gave them.

    Returns
    -------
    scikit-learn estimator

    Raises
    ------
    ModelError
        A type or function outside the trust list, damaged content, an index outside its array.
    MissingDependencyError
        XGBoost is needed and not installed.
    """
    boosters = {name: content for name, content in files.items() if name != ESTIMATOR_FILE}
    content = _with_moved_classes(files[ESTIMATOR_FILE])
    _check_skops(content)
    try:
        with warnings.catch_warnings():
            # The folder's loader speaks about versions, once and in plain words.
            warnings.simplefilter("ignore")
            estimator = skops.io.loads(content, trusted=_BEYOND_SKOPS)
        check_structure(estimator)
        used = _attach_boosters(estimator, boosters)
    except _DAMAGE as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: cannot be loaded ({type(error).__name__}: {error}); "
            "get the model again, or train it anew with this version"
        ) from error
    if used != set(boosters):
        raise ModelError(f"{sorted(set(boosters) - used)[0]}: no part of the model uses this file; remove it")
    return estimator


def _is_xgboost(part: object) -> bool:
    """Tell an XGBoost estimator without importing XGBoost."""
    return any(base.__module__ == "xgboost.sklearn" for base in type(part).__mro__)


def _attach_boosters(estimator: Any, boosters: dict[str, bytes]) -> set[str]:
    """Give each XGBoost estimator its booster back; return the files used."""
    used: set[str] = set()
    for part in walk_objects(estimator):
        if not _is_xgboost(part) or "_Booster" not in vars(part):
            continue
        name = part._Booster
        if not isinstance(name, str) or name not in boosters:
            raise ModelError(f"{ESTIMATOR_FILE}: names the booster {name!r:.80}, which is not there")
        part._Booster = _load_booster(name, boosters[name])
        used.add(name)
    return used


def _load_booster(name: str, content: bytes) -> Any:
    try:
        from xgboost import Booster
        from xgboost.core import XGBoostError
    except ImportError as error:
        raise MissingDependencyError("this model needs xgboost: pip install xgboost") from error
    try:
        check_booster(read_ubjson(content), name)  # XGBoost's own reader may end the process over bad bytes
    except ValueError as error:
        raise ModelError(f"{name}: damaged ({error}); get the model again") from error
    booster = Booster({"nthread": 1, "verbosity": 0})
    try:
        booster.load_model(bytearray(content))
    except XGBoostError as error:
        raise ModelError(f"{name}: XGBoost cannot read it ({str(error).splitlines()[0]})") from error
    return booster


def _with_moved_classes(content: bytes) -> bytes:
    """Give classes that were moved their path of today; content without any, or damaged, is returned as it is."""
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            schema = json.loads(archive.read("schema.json"))
            nodes: list[dict[str, Any]] = []
            _collect_nodes(schema, nodes)
            moved = [node for node in nodes if _path(node) in OLD_PATHS]
            if not moved or sum(member.file_size for member in members) > MAX_UNPACKED:
                return content
            for node in moved:
                node["__module__"], _, node["__class__"] = OLD_PATHS[_path(node)].rpartition(".")
            with zipfile.ZipFile(packed, "w") as out:
                for member in members:
                    same = member.filename != "schema.json"
                    out.writestr(member, archive.read(member) if same else json.dumps(schema))
    except _DAMAGE:
        return content
    return packed.getvalue()


def _path(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _check_skops(content: bytes) -> None:
    """Check the archive and everything it names, before skops sees it. Constructs and imports nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_UNPACKED:
                raise ModelError(f"{ESTIMATOR_FILE}: unpacks to more than {MAX_UNPACKED >> 30} GiB; refused")
            schema = json.loads(archive.read("schema.json"))
            allowed = Counter(_check_nodes(schema)) | Counter(["schema.json"])
            for member in members:
                if member.filename not in allowed:
                    raise ModelError(
                        f"{ESTIMATOR_FILE}: holds {member.filename!r:.80}, which nothing uses; refused"
                    )
                if member.filename != "schema.json":
                    with archive.open(member) as array:
                        _check_array(array, member)
            if len(members) != len(allowed):
                raise ModelError(f"{ESTIMATOR_FILE}: holds a file twice or lacks one; get the model again")
    except _DAMAGE as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: damaged ({type(error).__name__}: {error}); get the model again"
        ) from error


def _check_nodes(schema: Any) -> set[str]:
    """Check every node of a skops schema against :data:`TRUSTED`; return the array files that it names."""
    arrays: set[str] = set()
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        if not isinstance(item, dict):
            continue
        stack.extend(item.values())
        if "__loader__" not in item:
            continue
        loader, name = item["__loader__"], f"{item.get('__module__')}.{item.get('__class__')}"
        if name not in TRUSTED.get(loader if isinstance(loader, str) else "", ()):
            raise ModelError(
                f"{ESTIMATOR_FILE}: names {name} (as {loader}), which is not on the list of types that a "
                "model may hold; do not use this file"
            )
        if loader == "NdArrayNode" and item.get("type") == "numpy":
            arrays.add(str(item["file"]))
    return arrays


def _check_array(stream: Any, member: zipfile.ZipInfo) -> None:
    """Check that a .npy file is as long as its header says, so that reading it cannot ask for more memory."""
    major, _ = np.lib.format.read_magic(stream)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(major)
    if read is None:
        raise ValueError(f"{member.filename} has an unknown array format")
    shape, _, dtype = read(stream)
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    if dtype.hasobject or size < 0 or size != member.file_size - stream.tell():
        raise ValueError(f"{member.filename} is not the array that its header announces")


def _canonical(content: bytes) -> bytes:
    """Rewrite a skops archive so that equal estimators give equal bytes.

    skops names arrays and objects by their address in memory, which differs from run to run. Here they are
    numbered as they come; an address is kept only where two places share one object.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        arrays: dict[str, str] = {}
        nodes: list[dict[str, Any]] = []
        _collect_nodes(schema, nodes)
        shared = Counter(node["__id__"] for node in nodes if node["__loader__"] in _SHAREABLE)
        numbers: dict[int, int] = {}
        for node in nodes:
            identity = node.pop("__id__", None)
            if node["__loader__"] in _SHAREABLE and shared[identity] > 1:
                node["__id__"] = numbers.setdefault(identity, len(numbers) + 1)
            if "file" in node:
                node["file"] = arrays.setdefault(node["file"], f"{len(arrays)}.npy")
        _check_nodes(schema)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as out:
            _write_member(out, "schema.json", json.dumps(schema, separators=(",", ":")).encode())
            for old, new in arrays.items():
                _write_member(out, new, _without_padding(archive.read(old)))
    return packed.getvalue()


_SHAREABLE = {"DictNode", "ListNode", "NdArrayNode", "ObjectNode", "TreeNode"}


def _collect_nodes(item: Any, nodes: list[dict[str, Any]]) -> None:
    if isinstance(item, dict):
        if "__loader__" in item:
            nodes.append(item)
        for value in item.values():
            _collect_nodes(value, nodes)
    elif isinstance(item, list):
        for value in item:
            _collect_nodes(value, nodes)


def _without_padding(content: bytes) -> bytes:
    """Clear the gaps between the fields of a structured array: they hold whatever was in memory before."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(clean))
    return out.getvalue() + clean.tobytes()


def _write_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o600 << 16
    archive.writestr(member, content)


def warn_version(message: str) -> None:
    """Warn about a package version, from the line that loads the model."""
    warnings.warn(message, HistcxrWarning, stacklevel=4)
