"""The weights of a saved model read as numbers alone, without scikit-learn, skops or XGBoost, to score by.

What is read are the same files, checked by the same guards as for the estimator
(:func:`histcxr.store.weights.rebuilt`): there is no second form of a model that could say something else. No class is
looked up and no code of a package runs; an object becomes a :class:`Plain` one.
"""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache, cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.models.scoring import covers, positive
from histcxr.models.trees import boosted_trees
from histcxr.store.weights import rebuilt, weights_from_bytes

_SCALARS: Final[dict[str, Any]] = {
    "builtins.bool": bool,
    "builtins.float": float,
    "builtins.int": int,
    "builtins.str": str,
    **{
        f"numpy.{name}": getattr(np, name)
        for name in ("bool", "bool_", "float32", "float64", "int32", "int64")
    },
}


# Of skops; in what a model may hold they are alike.
_PROTOCOLS: Final = (0, 1, 2)


class Plain:
    """A part of a saved model as its attributes alone; its class has the name of the one that was saved."""


@cache
def _plain_type(path: str) -> type[Plain]:
    """Return the class of plain parts that stands for the class of a dotted path."""
    module, _, name = path.rpartition(".")
    return type(name, (Plain,), {"__module__": module})


class Saved:
    """The estimator of a saved model, from the files of :func:`histcxr.store.weights.weights_to_bytes`.

    It scores as it is. :attr:`fitted` makes the objects of scikit-learn and XGBoost, which take seconds to import.
    ModelError: the files are refused.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._plain = rebuilt(files, _read, lambda _, document: boosted_trees(document))
        self._covered = covers(self._plain)

    def __reduce__(self) -> tuple[type[Saved], tuple[dict[str, bytes]]]:
        """Travel to another process as files; they are checked there, too."""
        return type(self), (self.files,)

    @cached_property
    def fitted(self) -> Any:
        """The fitted estimator."""
        return weights_from_bytes(self.files)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of both classes, (n, 2), of counts (n, rows, 256)."""
        score = positive(self._plain if self._covered else self.fitted, np.asarray(X))
        return np.column_stack([1 - score, score])


class EstimatorField:
    """The field ``estimator`` of a model, in place of a saved one the objects of scikit-learn and XGBoost."""

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            raise AttributeError("estimator")
        held = vars(model)["estimator"]
        return held.fitted if isinstance(held, Saved) else held

    def __set__(self, model: Any, value: Any) -> None:
        vars(model)["estimator"] = value


def _read(content: bytes) -> Any:
    """Build what a checked skops archive holds, nodes that share an object once, in the order of skops."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        built: dict[Any, Any] = {}

        def build(node: dict[str, Any]) -> Any:
            identity = node.get("__id__")
            if identity not in built or identity is None:
                built[identity] = make(node)
            return built[identity]

        def make(node: dict[str, Any]) -> Any:
            content: Any
            loader, content = node["__loader__"], node.get("content")
            path = f"{node['__module__']}.{node['__class__']}"
            if loader == "DictNode":
                kinds = build(node["key_types"])
                return {
                    kind(key): build(value) for kind, (key, value) in zip(kinds, content.items(), strict=True)
                }
            if loader in ("ListNode", "TupleNode"):
                items = [build(item) for item in content]
                return items if loader == "ListNode" else tuple(items)
            if loader == "JsonNode":
                return json.loads(content)
            if loader == "TypeNode":
                return _SCALARS[path]
            if loader == "NdArrayNode" and node["type"] == "numpy":
                array = np.load(io.BytesIO(archive.read(node["file"])), allow_pickle=False)
                return array if path == "numpy.ndarray" else _SCALARS[path](array)
            if loader == "NdArrayNode":
                objects: NDArray[Any] = np.empty(len(content), object)
                for place, item in enumerate(content):
                    objects[place] = build(item)
                return objects.reshape(build(node["shape"]))
            attributes = build(content) if content else {}
            if loader == "TreeNode":
                attributes = _tree(*build(node["__reduce__"]["args"]), **attributes)
            part = _plain_type(path)()
            vars(part).update(attributes)
            return part

        schema = json.loads(archive.read("schema.json"))
        if schema["protocol"] not in _PROTOCOLS:
            raise ValueError(f"it has the protocol {schema['protocol']!r:.40}, which is not known")
        return build(schema)


def _tree(
    n_features: int,
    n_classes: NDArray[Any],
    n_outputs: int,
    *,
    nodes: NDArray[Any],
    values: NDArray[Any],
    **rest: Any,
) -> dict[str, Any]:
    """Return the attributes of a scikit-learn tree that scoring and its checks look at; ValueError: it is none."""
    kinds = {"left_child": "i", "right_child": "i", "feature": "i", "threshold": "f"}
    if any(nodes.dtype[name].kind != kind for name, kind in kinds.items()) or nodes.ndim != 1:
        raise ValueError("a tree whose nodes are none")
    if values.shape != (len(nodes), 1, 2) or values.dtype.kind != "f":
        raise ValueError("a tree whose values are none")
    return {
        "n_features": n_features,
        "n_outputs": n_outputs,
        "max_n_classes": int(n_classes.max()),
        "node_count": len(nodes),
        "children_left": nodes["left_child"],
        "children_right": nodes["right_child"],
        "feature": nodes["feature"],
        "threshold": nodes["threshold"],
        "value": values,
    }
