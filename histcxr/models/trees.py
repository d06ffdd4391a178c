"""The trees of random forests and of XGBoost as arrays, which NumPy goes down for many images at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError, ModelError

# Images scored at a time: what lies between features and leaves stays in the processor's cache.
_BLOCK: Final = 64

# No real tree is so deep; a chain of nodes without end would take hours.
_MOST_DEPTH: Final = 4096


class Nodes(NamedTuple):
    """The arrays of one tree, all of a length: children (-1: none), and of each node what it asks or says."""

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[np.float32]  # it goes to the right where the feature is greater
    value: NDArray[np.floating]


class Trees:
    """Many trees laid out for NumPy: images go down all of them at once, level by level.

    ``width``: how many features they know. Children exist and form trees: :mod:`histcxr.store.structure` saw to it.
    """

    def __init__(
        self, trees: Sequence[Nodes], width: int, base: float = 0.0, dtype: type = np.float64
    ) -> None:
        sizes = np.array([len(one.left) for one in trees])
        self._roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
        left, right, feature, threshold, value = (np.concatenate(part) for part in zip(*trees, strict=True))
        offset, here = np.repeat(self._roots, sizes), np.arange(len(left))
        leaf = left == -1  # which is its own child
        child = np.stack([np.where(leaf, here, one + offset) for one in (left, right)], axis=1)
        self._child = child.astype(np.intp).ravel()
        self._feature = np.where(leaf, 0, feature).astype(np.intp)
        self._threshold = threshold.astype(np.float32)
        self._value: NDArray[Any] = value.astype(dtype)
        self._base, self._width, self._depth = dtype(base), width, 0
        level = self._roots[~leaf[self._roots]]
        while level.size:
            self._depth += 1
            if self._depth > _MOST_DEPTH:
                raise ModelError(f"a tree has more than {_MOST_DEPTH} levels, which no real one has")
            level = child[level].ravel()
            level = level[~leaf[level]]

    def __len__(self) -> int:
        return len(self._roots)

    def sums(self, X: NDArray[Any]) -> NDArray[np.floating]:
        """Return the base and the leaves of all trees, added up one after the other, for features (n, width): (n,)."""
        if X.ndim != 2 or X.shape[1] != self._width:
            raise InputError(f"X must have {self._width} features an image, got shape {X.shape}")
        found = np.empty(len(X), self._value.dtype)
        for start in range(0, len(X), _BLOCK):
            part = np.ascontiguousarray(X[start : start + _BLOCK], np.float32)
            flat, row = part.ravel(), np.arange(len(part)) * self._width
            at = np.repeat(self._roots[:, None], len(part), axis=1)
            for _ in range(self._depth):
                seen = flat.take(self._feature.take(at) + row)
                at = self._child.take(2 * at + (seen > self._threshold.take(at)))
            leaves = self._value.take(at)
            leaves[0] += self._base
            # Not a sum, whose order depends on the number of images.
            found[start : start + _BLOCK] = np.add.accumulate(leaves, axis=0)[-1]
        return found


def boosted_trees(document: dict[str, Any]) -> Trees:
    """Lay out the trees of an XGBoost model, read as JSON and checked, for the margins of two classes."""
    learner = document["learner"]
    model, facts = learner["gradient_booster"]["model"], learner["learner_model_param"]
    trees = model["trees"]
    if best := learner.get("attributes", {}).get("best_iteration"):  # it stopped early
        trees = trees[: model["iteration_indptr"][int(best) + 1]]
    score = np.float32(float(facts["base_score"].strip("[]")))
    if not 0 < score < 1:
        raise ValueError(f"a base score of {score}, which is no probability")
    odds = np.float32(1) / score - np.float32(1)
    nodes = []
    for one in trees:
        cuts = np.array(one["split_conditions"], np.float32)
        # It goes to the left below the cut.
        below = np.nextafter(cuts, np.float32(-np.inf))
        left, right, asked = (
            np.array(one[key], np.intp) for key in ("left_children", "right_children", "split_indices")
        )
        nodes.append(Nodes(left, right, asked, below, cuts))
    return Trees(nodes, int(facts["num_feature"]), -math.log(odds), np.float32)


def forest_trees(part: Any) -> Trees:
    """Lay out the trees of a random forest for the sums of P(second class)."""
    nodes = []
    for one in part.estimators_:
        tree = one.tree_
        # The largest float32 not above the threshold: features are float32.
        cut = tree.threshold.astype(np.float32)
        cut = np.where(cut > tree.threshold, np.nextafter(cut, np.float32(-np.inf)), cut)
        sick = tree.value[:, 0, 1]
        nodes.append(Nodes(tree.children_left, tree.children_right, tree.feature, cut, sick))
    return Trees(nodes, part.n_features_in_)
