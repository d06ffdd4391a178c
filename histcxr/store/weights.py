"""A fitted estimator to bytes and back, through formats that hold data only; see :mod:`histcxr.store`.

Networks go through skops like everything else, as settings and arrays, and are rebuilt from our own code: one guard for
both kinds of model. Keras' own file would add HDF5's C library to what hostile bytes reach, and is no smaller: VGG16
takes 53.7 MB here, 59.2 MB as ``.weights.h5``, the default network 2.6 and 3.0 MB.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from histcxr.exceptions import MissingDependencyError, ModelError
from histcxr.files.reading import parse_json
from histcxr.models.scoring import SCORED
from histcxr.store.structure import check_structure, read_booster, walk_objects

ESTIMATOR_FILE = "estimator.skops"
# Bytes of arrays in one skops file. What weighs more must weigh a quarter of it in the folder, too: trained numbers
# hardly shrink, and a small folder cannot ask for much memory.
MAX_UNPACKED, SMALL_UNPACKED, MAX_SHRUNK = 2 << 30, 256 << 20, 4
MAX_SCHEMA = 24 << 20  # bytes of JSON; the model in the box has 50,000
MAX_BOOSTER = 64 << 20  # bytes of JSON, all boosters together; the model in the box has 0.7 million

# What a skops file may name: of each kind of node, only these types. Functions, methods, partial calls and
# constructors with arguments are no part of it, whatever skops itself would accept.
# What scores histograms, :mod:`histcxr.models.scoring` knows by name.
_OBJECTS = {
    *SCORED,
    "histcxr.reference.augmentation.Augmentation",
    "histcxr.reference.classifier.ReferenceClassifier",
    "histcxr.reference.architectures.HeadOptions",
    "histcxr.reference.images.InputSettings",
    "histcxr.reference.small_networks.ConvOptions",
    "histcxr.reference.small_networks.LeNetOptions",
    "histcxr.reference.small_networks.RecurrentOptions",
    "histcxr.reference.small_networks.ResidualOptions",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.tree._classes.DecisionTreeClassifier",
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

# Two places in an estimator may hold one and the same object of these kinds.
_SHAREABLE = {"DictNode", "ListNode", "NdArrayNode", "ObjectNode", "TreeNode"}

# What reading damaged bytes can raise; anything else would be a bug of ours and is not hidden.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


#: Dotted path under which a saved model may know a class, and the path of that class today. Whoever moves a class
#: of the trust list (``TRUSTED``) adds its old path here, and points older entries to the
#: new place, too: a path is looked up once.
OLD_PATHS: dict[str, str] = {
    "histcxr.features.band_densities.BandDensities": "histcxr.features.band_features.BandDensities",
    "histcxr.features.both_sides.BothSides": "histcxr.features.band_features.BothSides",
    "histcxr.models.calibrated.CalibratedClassifier": "histcxr.models.out_of_fold.CalibratedClassifier",
    "histcxr.models.gaussian_svc.GaussianSVC": "histcxr.models.pipelines.GaussianSVC",
    "histcxr.models.level.IntensityLevel": "histcxr.features.transformers.LungIntensity",
    "histcxr.models.stack.StackedClassifier": "histcxr.models.out_of_fold.StackedClassifier",
}


def weights_to_bytes(estimator: Any) -> dict[str, bytes]:
    """Turn a fitted estimator into files that cannot run code: ``estimator.skops`` and ``booster-N.json.gz``.

    The same estimator gives the same bytes. It is not changed; what is saved scores on one CPU thread, so
    that a score never depends on the machine's load. :class:`~histcxr.exceptions.ModelError` where it holds something
    that is not in :data:`TRUSTED`.
    """
    import skops.io

    files: dict[str, bytes] = {}
    placeholders: dict[int, Any] = {}
    for part in walk_objects(estimator):
        if _is_xgboost(part) and "_Booster" in vars(part) and id(part._Booster) not in placeholders:
            name = f"booster-{len(files)}.json.gz"
            files[name] = gzip.compress(bytes(part._Booster.save_raw("json")), mtime=0)
            placeholders[id(part._Booster)] = name
    # A memo entry replaces the object in the copy: each booster by the name of its file.
    plain = copy.deepcopy(estimator, placeholders)
    for part in walk_objects(plain):
        if hasattr(part, "n_jobs"):
            part.n_jobs = 1
        if _is_xgboost(part):
            part.device = "cpu"
        if type(part).__name__ == "ReferenceClassifier":
            _forget_training(part)
    try:
        dumped = skops.io.dumps(plain)
    except (TypeError, ValueError, AttributeError) as error:  # skops' ways to say that it cannot
        raise ModelError(f"the estimator cannot be saved: {error}") from error
    files[ESTIMATOR_FILE] = _canonical(dumped)
    return files


def weights_from_bytes(files: dict[str, bytes]) -> Any:
    """Rebuild the estimator of :func:`weights_to_bytes`, after checking what the files name and contain.

    :class:`~histcxr.exceptions.ModelError` for a type or function outside the trust list, damaged content, an index
    outside its array; :class:`~histcxr.exceptions.MissingDependencyError` without XGBoost or Keras where it is needed.
    """
    import skops.io

    return rebuilt(files, lambda content: skops.io.loads(content, trusted=_BEYOND_SKOPS), _load_booster)


def rebuilt(
    files: dict[str, bytes], read: Callable[[bytes], Any], load_booster: Callable[[str, Any], Any]
) -> Any:
    """Check files and build what they hold: by ``read``, of a skops archive, and ``load_booster``, of a name and JSON.

    Raises what :func:`weights_from_bytes` raises.
    """
    boosters = {name: content for name, content in files.items() if name != ESTIMATOR_FILE}
    checked = _check_skops(files[ESTIMATOR_FILE])
    try:
        with warnings.catch_warnings():
            # The folder's loader speaks about versions, once and in plain words.
            warnings.simplefilter("ignore")
            estimator = read(checked)
        check_structure(estimator)
        used: dict[str, Any] = {}
        left = MAX_BOOSTER
        for part in walk_objects(estimator):
            if hasattr(part, "n_jobs"):
                part.n_jobs = 1
            if type(part).__name__ == "ReferenceClassifier":
                _forget_training(part)
            if _is_xgboost(part) and "_Booster" in vars(part):
                name = part._Booster
                if not isinstance(name, str) or name not in boosters:
                    raise ModelError(f"{ESTIMATOR_FILE}: names the booster {name!r:.80}, which is not there")
                if name not in used:
                    document, size = read_booster(name, boosters[name], left)
                    used[name], left = load_booster(name, document), left - size
                part._Booster = used[name]
    except _DAMAGE as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: cannot be loaded ({type(error).__name__}: {error}); "
            "get the model again, or train it anew with this version"
        ) from error
    if set(used) != set(boosters):
        raise ModelError(
            f"{sorted(set(boosters) - set(used))[0]}: no part of the model uses this file; remove it"
        )
    return estimator


def _is_xgboost(part: object) -> bool:
    """Tell an XGBoost estimator without importing XGBoost."""
    return any(base.__module__ == "xgboost.sklearn" for base in type(part).__mro__)


def _forget_training(network: Any) -> None:
    """Drop of a copied network what cannot be saved and is of no use for scoring."""
    network.validation_rows_ = None
    if isinstance(network.random_state, np.random.RandomState):
        network.random_state = None
    if network.weights != "imagenet":  # a path: the numbers that it led to were trained on and are kept
        network.weights = None


def _load_booster(name: str, document: Any) -> Any:
    """Return XGBoost's booster of a checked document."""
    try:
        from xgboost import Booster
        from xgboost.core import XGBoostError
    except ImportError as error:
        raise MissingDependencyError("this model needs xgboost: pip install xgboost") from error
    # Written anew, so that XGBoost reads what was checked, without a key that comes twice.
    plain = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    booster = Booster({"nthread": 1, "verbosity": 0})
    try:
        booster.load_model(bytearray(plain))
    except XGBoostError as error:
        raise ModelError(f"{name}: XGBoost cannot read it ({str(error).splitlines()[0]})") from error
    return booster


def _check_skops(content: bytes) -> bytes:
    """Check a skops archive before skops sees it, constructing nothing; return it with today's paths of classes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            most = min(MAX_UNPACKED, max(SMALL_UNPACKED, MAX_SHRUNK * len(content)))
            if sum(member.file_size for member in members) > most:
                raise ModelError(f"{ESTIMATOR_FILE}: unpacks to more than {most >> 20} MiB; refused")
            # Other packings than these have dictionaries of gigabytes.
            if {member.compress_type for member in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError("it is packed in another way than histcxr does")
            if archive.getinfo("schema.json").file_size > MAX_SCHEMA:
                raise ValueError(f"its schema has more than {MAX_SCHEMA >> 20} MiB")
            schema = parse_json(archive.read("schema.json"))
            nodes = _nodes(schema)
            _check_shared(schema, nodes)
            moved = [node for node in nodes if _path(node) in OLD_PATHS]
            for node in moved:
                node["__module__"], _, node["__class__"] = OLD_PATHS[_path(node)].rpartition(".")
            allowed = Counter(_check_nodes(nodes)) | Counter(["schema.json"])
            shapes = {}
            for member in members:
                if member.filename not in allowed:
                    raise ModelError(
                        f"{ESTIMATOR_FILE}: holds {member.filename!r:.80}, which nothing uses; refused"
                    )
                if member.filename != "schema.json":
                    with archive.open(member) as array:
                        shapes[member.filename] = _check_array(array, member)
            if len(members) != len(allowed):
                raise ModelError(f"{ESTIMATOR_FILE}: holds a file twice or lacks one; get the model again")
            for node in nodes:
                if node["__loader__"] == "TreeNode":
                    _check_counts(node, shapes)
            if not moved:
                return content
            return _archive(schema, {name: archive.read(name) for name in allowed if name != "schema.json"})
    except _DAMAGE as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: damaged ({type(error).__name__}: {error}); get the model again"
        ) from error


def _nodes(schema: Any) -> list[dict[str, Any]]:
    """Return every node of a skops schema, in the order of the text."""
    found = []
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if "__loader__" in item:
                found.append(item)
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))
    return found


def _path(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _check_nodes(nodes: list[dict[str, Any]]) -> set[str]:
    """Check every node against :data:`TRUSTED`; return the array files that they name."""
    arrays: set[str] = set()
    for node in nodes:
        loader = node["__loader__"]
        if _path(node) not in TRUSTED.get(loader if isinstance(loader, str) else "", ()):
            raise ModelError(
                f"{ESTIMATOR_FILE}: names {_path(node)} (as {loader}), which is not on the list of types that a "
                "model may hold; do not use this file"
            )
        if loader == "NdArrayNode" and node.get("type") == "numpy":
            arrays.add(str(node["file"]))
    return arrays


def _check_shared(schema: Any, nodes: list[dict[str, Any]]) -> None:
    """Check that what is built is no larger than the text, and that nothing holds itself.

    Nodes of one ``__id__`` become one object, so they must be equally large; an array file belongs to one object.
    """
    sizes: dict[int, int] = {}
    _weigh(schema, sizes)
    first: dict[Any, int] = {}
    owners: dict[Any, Any] = {}
    for number, node in enumerate(nodes):
        identity = node.get("__id__")
        if identity is not None and first.setdefault(identity, sizes[id(node)]) != sizes[id(node)]:
            raise ValueError(f"what it calls {identity!r:.20} are two things")
        owner = -number if identity is None else identity
        if "file" in node and owners.setdefault(node["file"], owner) != owner:
            raise ValueError(f"{node['file']!r:.80} is part of several objects")


def _weigh(item: Any, sizes: dict[int, int]) -> int:
    """Count the nodes in a part of a schema, itself included, and remember the count of each by its address."""
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    size = int(isinstance(item, dict) and "__loader__" in item) + sum(_weigh(part, sizes) for part in parts)
    sizes[id(item)] = size
    return size


def _check_counts(node: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Check the counts of a scikit-learn tree against its arrays: its constructor follows them without looking."""
    _, classes, outputs = node["__reduce__"]["args"]["content"]
    state = node["content"]["content"]
    n_nodes = parse_json(state["node_count"]["content"].encode())
    found = (outputs["content"], shapes[classes["file"]], shapes[state["nodes"]["file"]])
    if type(n_nodes) is not int or found != ("1", (1,), (n_nodes,)):
        raise ValueError("a tree whose counts are not those of its arrays")


def _check_array(stream: Any, member: zipfile.ZipInfo) -> tuple[int, ...]:
    """Check that a .npy file is as long as its header says, so that reading it asks for no more; return its shape."""
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
    return tuple(shape)


def _canonical(content: bytes) -> bytes:
    """Number a skops archive's memory addresses as they come, shared ones alike: equal estimators, equal bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        nodes = _nodes(schema)
        _check_nodes(nodes)
        shared = Counter(node["__id__"] for node in nodes if node["__loader__"] in _SHAREABLE)
        arrays: dict[str, str] = {}
        numbers: dict[int, int] = {}
        for node in nodes:
            identity = node.pop("__id__", None)
            if node["__loader__"] in _SHAREABLE and shared[identity] > 1:
                node["__id__"] = numbers.setdefault(identity, len(numbers) + 1)
            if "file" in node:
                node["file"] = arrays.setdefault(node["file"], f"{len(arrays)}.npy")
        return _archive(schema, {new: _without_padding(archive.read(old)) for old, new in arrays.items()})


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


def _archive(schema: Any, arrays: dict[str, bytes]) -> bytes:
    """Pack a skops file, with equal bytes for equal content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        text = json.dumps(schema, separators=(",", ":")).encode()
        for name, content in {"schema.json": text, **arrays}.items():
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o600 << 16
            out.writestr(member, content)
    return packed.getvalue()
