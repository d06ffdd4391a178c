"""Checks on loaded weights that a list of types cannot make: indices that point outside their arrays.

scikit-learn's trees, libsvm and XGBoost follow the indices in their arrays without looking. A file of
trusted types could still send them outside the memory they own, so every index is checked before the first
prediction.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from histcxr.checks import whole_number
from histcxr.exceptions import InputError, ModelError
from histcxr.files.reading import parse_json


def walk_objects(root: object) -> Iterator[Any]:
    """Yield every object that an estimator holds: itself, its parts, theirs, each one once.

    Goes through attributes, dictionaries, lists, tuples and object arrays, in a fixed order.
    """
    seen: set[int] = set()
    stack = [root]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | bool | type | None):
            continue
        seen.add(id(item))
        if isinstance(item, list | tuple):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
        elif isinstance(item, np.ndarray):
            stack.extend(reversed(item.ravel()) if item.dtype == object else ())
        else:
            yield item
            stack.extend(reversed(getattr(item, "__dict__", {}).values()))


def check_structure(estimator: object) -> None:
    """Check every setting, tree, support vector machine, neighbour search and network inside ``estimator``.

    :class:`~histcxr.exceptions.ModelError` names a part in which an index or a shape cannot be right.
    """
    for part in walk_objects(estimator):
        check, fitted = _CHECKS.get(type(part).__name__, (None, ""))
        if check is not None and hasattr(part, fitted):
            check(part)
        for key, value in getattr(part, "__dict__", {}).items():
            large = isinstance(value, int | np.integer) and abs(int(value)) > _MOST_ANY
            if large and "_" not in (key[0], key[-1]) and key not in ("random_state", "seed"):
                _refuse(type(part).__name__, f"has the setting {key}={value!r:.40}, larger than any real one")


def read_booster(name: str, content: bytes, most: int) -> tuple[Any, int]:
    """Return what the JSON of a booster says, checked, and its bytes, at most ``most``."""
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: with gzip's header
        text = unpacker.decompress(content, max(most, 1))
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"it ends early, or holds more than {most >> 20} MiB")
        document = parse_json(text)
        check_booster(document, name)
    except (ValueError, RecursionError, zlib.error) as error:
        raise ModelError(f"{name}: damaged ({error}); get the model again") from error
    return document, len(text)


def check_booster(document: Any, name: str) -> None:
    """Check that an XGBoost model, read as JSON from the file ``name``, has plain trees for two classes.

    :class:`~histcxr.exceptions.ModelError` where an index leaves its array, or something else cannot be right.
    """
    try:
        _check_learner(document["learner"], name)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        _refuse(name, f"is not a model as XGBoost writes it ({type(error).__name__}: {error})")


def _check_learner(learner: dict[str, Any], name: str) -> None:
    booster, facts = learner["gradient_booster"], learner["learner_model_param"]
    if booster["name"] != "gbtree" or learner["objective"]["name"] != "binary:logistic":
        _refuse(name, "is not a model of plain trees (gbtree) for two classes (binary:logistic)")
    if int(facts["num_class"]) != 0 or int(facts.get("num_target", 1)) != 1:
        _refuse(name, "has more than one output")
    n_features = int(facts["num_feature"])
    if any(len(learner[key]) not in (0, n_features) for key in ("feature_names", "feature_types")):
        _refuse(name, "names other features than it uses")
    model = booster["model"]
    if any(len(part) for part in model.get("cats", {}).values()):
        _refuse(name, "splits on categories, which histograms do not have")
    trees, outputs = model["trees"], _whole(model["tree_info"])
    if len(trees) > _MOST_TREES:
        _refuse(name, f"has {len(trees)} trees, more than {_MOST_TREES}")
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees) or outputs.shape != (len(trees),):
        _refuse(name, "counts its trees wrongly")
    if outputs.any():
        _refuse(name, "assigns its trees to outputs that it does not have")
    rounds = _whole(model.get("iteration_indptr", [0, len(trees)]))
    if rounds.size == 0 or rounds[0] != 0 or rounds[-1] != len(trees) or (np.diff(rounds) < 0).any():
        _refuse(name, "numbers its boosting rounds wrongly")
    for tree in trees:
        _check_boosted_tree(tree, n_features, name)


def _check_boosted_tree(tree: dict[str, Any], n_features: int, name: str) -> None:
    facts = tree["tree_param"]
    if int(facts["num_feature"]) != n_features or int(facts["size_leaf_vector"]) not in (0, 1):
        _refuse(name, "has a tree for other features or outputs")
    n_nodes = int(facts["num_nodes"])
    if n_nodes < 1 or any(len(tree[key]) != n_nodes for key in _NODE_ARRAYS):
        _refuse(name, "has a tree whose arrays differ in length")
    if _whole(tree["split_type"]).any() or any(len(tree[key]) for key in _CATEGORY_ARRAYS):
        _refuse(name, "splits on categories, which histograms do not have")
    left, right, feature, parents = (
        _whole(tree[key]) for key in ("left_children", "right_children", "split_indices", "parents")
    )
    _check_nodes(left, right, feature, n_features, name)
    inner = np.flatnonzero(left != -1)
    if (
        parents[0] != _NO_PARENT
        or (parents[left[inner]] != inner).any()
        or (parents[right[inner]] != inner).any()
    ):
        _refuse(name, "has nodes whose parents are others")


_MOST_TREES = 100_000
_NO_PARENT = 2**31 - 1  # what XGBoost writes for the root
_CATEGORY_ARRAYS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_NODE_ARRAYS = (
    "base_weights",
    "default_left",
    "left_children",
    "loss_changes",
    "parents",
    "right_children",
    "split_conditions",
    "split_indices",
    "split_type",
    "sum_hessian",
)


def _whole(values: Any) -> NDArray[np.int64]:
    """Return an array of whole numbers, or raise."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"whole numbers were expected, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _check_tree(tree: Any) -> None:
    name = "a decision tree"
    if tree.n_outputs != 1 or tree.max_n_classes != 2 or tree.node_count < 1:
        _refuse(name, f"has {tree.n_outputs} outputs and {tree.max_n_classes} classes instead of 1 and 2")
    _check_nodes(tree.children_left, tree.children_right, tree.feature, tree.n_features, name)


def _check_nodes(
    left: NDArray[np.int64], right: NDArray[np.int64], feature: NDArray[np.int64], n_features: int, name: str
) -> None:
    """Check that the nodes form a tree: children exist, no node has two parents, the root has none."""
    inner = left != -1
    if ((right != -1) != inner).any():
        _refuse(name, "has a node with one child")
    children = np.concatenate([left[inner], right[inner]])
    # One parent each and none for the root: then no path from the root can run in a circle.
    if children.size and (
        children.min() < 1 or children.max() >= left.size or np.unique(children).size != children.size
    ):
        _refuse(name, "has nodes that point to a wrong place")
    if inner.any() and (feature[inner].min() < 0 or feature[inner].max() >= n_features):
        _refuse(name, "asks for features that do not exist")


def _check_gaussian_svc(svc: Any) -> None:
    name = "the support vector machine"
    vectors, coefficients = np.asarray(svc.support_vectors_), np.asarray(svc.dual_coef_)
    width = svc.n_features_in_
    if svc.n_components is not None:
        mean, components = np.asarray(svc.mean_), np.asarray(svc.components_)
        if components.ndim != 2 or components.shape[1] != width or mean.shape != (width,):
            _refuse(name, f"has components of shape {components.shape} for {width} features")
        if {mean.dtype, components.dtype} != {np.dtype(np.float32)} or not (
            np.isfinite(mean).all() and np.isfinite(components).all()
        ):
            _refuse(name, "has components that no training gives")
        width = len(components)
    if vectors.ndim != 2 or vectors.shape[1] != width or vectors.dtype != np.float32:
        _refuse(name, f"has support vectors of shape {vectors.shape} for {width} features")
    if coefficients.shape != (len(vectors),) or coefficients.dtype != np.float64:
        _refuse(name, "counts its support vectors wrongly")
    if not (np.isfinite(vectors).all() and np.isfinite(coefficients).all() and np.isfinite(svc.intercept_)):
        _refuse(name, "has numbers that are not finite")
    if np.shape(svc.classes_) != (2,) or not 0 < svc.gamma < np.inf:
        _refuse(name, "has a kernel or classes that do not fit")


def _check_neighbours(knn: Any) -> None:
    name = "the nearest-neighbour search"
    points, classes = np.asarray(knn._fit_X), np.asarray(knn._y)
    if knn._fit_method != "brute" or knn._tree is not None:
        _refuse(name, "keeps a search tree; build it with algorithm='brute'")
    if points.ndim != 2 or points.shape[1] != knn.n_features_in_ or knn.n_samples_fit_ != len(points):
        _refuse(name, f"has points of shape {points.shape} for {knn.n_features_in_} features")
    if not 1 <= knn.n_neighbors <= len(points):
        _refuse(name, f"asks for {knn.n_neighbors} neighbours among {len(points)} points")
    if classes.shape != (len(points),) or classes.dtype.kind not in "iu" or np.shape(knn.classes_) != (2,):
        _refuse(name, "has labels that do not fit its points")
    if classes.min() < 0 or classes.max() > 1:
        _refuse(name, "has labels outside its two classes")


def _check_lenet(lenet: Any) -> None:
    """Check that the weights are those of the graph: ONNX Runtime is given what is written from them."""
    from histcxr.features.formulas import REPRESENTATIONS
    from histcxr.models.lenet_network import LeNetGraph

    name = "the 1-D LeNet"
    try:
        graph = LeNetGraph(**lenet.graph_)
        for weights in lenet.members_:
            graph.check_weights(weights)
    except (InputError, TypeError, AttributeError) as error:
        _refuse(name, f"has a graph and weights that do not belong together ({error})")
    if (
        not lenet.members_
        or (graph.bins * lenet.bin_width, graph.channels) != (lenet.n_bins_, lenet.n_zones_)
        or lenet.n_bins_ * lenet.n_zones_ != lenet.n_features_in_
    ):
        _refuse(name, "is made for other histograms than it says")
    if max(graph.pool_size) > graph.bins or any(
        values.dtype != np.float32 for weights in lenet.members_ for values in weights.values()
    ):
        _refuse(name, "has numbers that no training gives")
    if (
        lenet.representation not in REPRESENTATIONS
        or lenet.scale not in ("raw", "own")
        or lenet.areas not in (False, True, "size")
    ):
        _refuse(name, "reads its input in an unknown way")
    if not 0 <= lenet.smoothing <= graph.bins or np.shape(lenet.classes_) != (2,):
        _refuse(name, "has a smoothing or classes that do not fit")


def _check_network(network: Any) -> None:
    """Check settings and arrays against the network that our own code builds, before Keras is given any array."""
    from histcxr.reference.classifier import ReferenceClassifier

    name = "the network"
    parameters = ReferenceClassifier().get_params(deep=False)
    for parameter, default in parameters.items():  # what an earlier version did not know yet
        vars(network).setdefault(parameter, default)
    for attribute in vars(network):  # what was fitted ends in _; anything else could stand before a method
        if attribute not in parameters and (attribute.startswith("_") or not attribute.endswith("_")):
            _refuse(name, f"has {attribute!r:.80}, which no network has")
    try:
        for part in walk_objects(network):
            if is_dataclass(part) and not isinstance(part, type):
                replace(part)  # skops does not ask the constructor, which refuses wrong settings
        _check_size(network)
        wanted = _planned_weights(network.graph_)
    except (ArithmeticError, AttributeError, InputError, LookupError, TypeError, ValueError) as error:
        _refuse(name, f"has settings that cannot be ({error})")
    if not isinstance(network.weights_, dict) or list(network.weights_) != list(wanted):
        _refuse(name, "has weights of other names")
    for key, model in wanted.items():
        array = network.weights_[key]
        if not isinstance(array, np.ndarray) or (array.shape, str(array.dtype)) != model:
            _refuse(name, f"has {key} that is not {model[1]} of shape {model[0]}")
        if not np.isfinite(array).all():
            _refuse(name, "has numbers that are not finite")


def _planned_weights(graph: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of each weight of a network, by the names that ``get_weights`` gives, making no number.

    InputError where one image would fill the memory on its way through the layers.
    """
    from histcxr.networks.backend import import_neural
    from histcxr.reference.architectures import build_architecture

    keras = import_neural("keras", "to build a network")
    with keras.StatelessScope(initialize_variables=False):
        model = build_architecture(**graph)
    layers = [model]
    for layer in layers:
        layers += getattr(layer, "layers", ())  # a backbone is a layer that has its own
    most = max(int(np.prod(layer.output.shape[1:], dtype=float)) for layer in layers)
    if most > _MOST_ACTIVATIONS:
        raise InputError(f"a layer must give at most {_MOST_ACTIVATIONS:,} numbers an image; got {most:,}")
    return {
        f"{number:04d}/{variable.name}": (tuple(variable.shape), str(variable.dtype))
        for number, variable in enumerate(model.weights)
    }


def _check_size(network: Any) -> None:
    """Refuse what would fill the memory, before the network is built."""
    from histcxr.reference.images import LARGEST_SIDE

    graph, classes = network.graph_, network.classes_
    if set(graph) != {"name", "size", "n_classes", "head", "options"}:  # nothing to read or to fetch
        raise InputError(f"graph must name the network alone; got {sorted(graph)!r:.200}")
    size = whole_number(graph["size"], "size", least=1, most=LARGEST_SIDE)
    if network.image_shape_ != (size, size) or network.n_features_in_ != size**2:
        raise InputError(f"size must be that of the images; got {size}")
    whole_number(network.views, "views", least=1, most=_MOST_VIEWS)
    n_classes = whole_number(graph["n_classes"], "n_classes", least=2, most=_MOST_CLASSES)
    if np.shape(classes) != (n_classes,) or classes.dtype.kind not in "biu":
        raise InputError(f"classes must be {n_classes} numbers")
    for part in ("head", "options"):
        layers = {} if graph[part] is None else asdict(graph[part])
        numbers = [n for value in layers.values() for n in (value if isinstance(value, tuple) else (value,))]
        if len(numbers) > _MOST_NUMBERS or any(isinstance(n, int) and n > _MOST_UNITS for n in numbers):
            raise InputError(
                f"{part} must have layers of at most {_MOST_UNITS} units; got {graph[part]!r:.200}"
            )


# Beyond any real network.
_MOST_CLASSES = 1000
_MOST_UNITS = 1 << 12
_MOST_NUMBERS = 64
_MOST_VIEWS = 64
_MOST_ANY = 1 << 14
_MOST_ACTIVATIONS = 1 << 25  # of float32: 128 MiB for an image

# By the class's name, wherever it lives: the check, and what a fitted one has.
_CHECKS: dict[str, tuple[Callable[[Any], None], str]] = {
    "Tree": (_check_tree, "children_left"),
    "KNeighborsClassifier": (_check_neighbours, "_fit_X"),
    "GaussianSVC": (_check_gaussian_svc, "support_vectors_"),
    "LeNetClassifier": (_check_lenet, "members_"),
    "ReferenceClassifier": (_check_network, "weights_"),
}


def _refuse(part: str, problem: str) -> NoReturn:
    raise ModelError(
        f"{part} {problem}: the weights are damaged or were built to do harm; get the model again"
    )
