"""Scores of fitted classifiers by NumPy and ONNX Runtime alone: scikit-learn and XGBoost take seconds to import.

A part is a fitted object of scikit-learn, XGBoost or histcxr, or a plain one with the same attributes, as a
saved model gives it (:mod:`histcxr.store.plain`). Both are scored by the same lines, so what was certified in memory
and what a triage loads give the same scores to the last bit. A part of another type scores itself.

To the last bit like scikit-learn, too: features, scaling, components, forests and kernels. Within 1e-7: XGBoost, whose
exponential function may round the last bit of float32 otherwise. Within 1e-9: neighbours, whose distances scikit-learn
adds up in another order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError, ModelError
from histcxr.features import formulas
from histcxr.features.recipe import Recipe
from histcxr.models.trees import Trees, boosted_trees, forest_trees

_Floats = NDArray[np.float64]

# Probabilities are squeezed into [e, 1 - e] before they become logits, as votes may be 0 or 1; their order stays.
_EDGE: Final = 0.005

#: Probabilities are cut off here where an adapted model takes their logit: 0 and 1 have none.
CUT: Final = 1e-6

# Images scored at a time, always so many: products of one shape add up in one order, whatever is scored beside.
_BLOCK: Final = 64

# Points to which distances are found at a time: bounds the copy in float64.
_POINTS: Final = 1024


def covers(part: Any) -> bool:
    """Tell whether a part, and all that it is made of, is scored here rather than by its own methods."""
    path = _path(part)
    if path == _PIPELINE:
        inner = [step for _, step in part.steps]
    elif path == _UNION:
        inner = [one for _, one in part.transformer_list]
    elif path == _BOTH_SIDES:
        inner = [part.features_]
    elif path in _OUT_OF_FOLD:
        inner = list(part.estimators_)
    elif path == _ADAPTED:
        inner = [one for one in (part.estimator, part.features) if one is not None]
    else:
        return path in SCORED and _is_usual(part)
    return all(covers(one) for one in inner)


def positive(part: Any, X: NDArray[Any]) -> _Floats:
    """Return the probability of the second class, (n,), of inputs (n, ...)."""
    part, X = _last(part, X)
    path = _path(part)
    if path in _DECISIONS:
        return expit(_DECISIONS[path](part, X))
    if path in _PROBABILITIES:
        return _PROBABILITIES[path](part, X)
    probabilities = np.asarray(part.predict_proba(X), np.float64)
    if probabilities.shape != (len(X), 2):
        raise ModelError(
            f"{type(part).__name__}: predict_proba gave shape {probabilities.shape}, must be {(len(X), 2)}"
        )
    return probabilities[:, 1]


def case_logits(part: Any, X: NDArray[Any], views: int = 1) -> _Floats:
    """Return a score of each image for the second class: the decision function, or the logit of the probability.

    Probabilities are squeezed into [0.005, 0.995]; of several views, side by side in a row of ``X``, it is the mean.
    """
    if views > 1:
        logits: _Floats = np.mean([case_logits(part, view) for view in np.split(X, views, axis=1)], axis=0)
        return logits
    part, X = _last(part, X)
    path = _path(part)
    if path in _DECISIONS:
        return _DECISIONS[path](part, X)
    if path not in _PROBABILITIES and hasattr(part, "decision_function"):
        return np.asarray(part.decision_function(X), np.float64)
    squeezed = _EDGE + (1 - 2 * _EDGE) * positive(part, X)
    return np.log(squeezed / (1 - squeezed))


def transform(part: Any, X: NDArray[Any]) -> NDArray[Any]:
    """Return what a fitted transformer, or a pipeline of them, makes of inputs (n, ...)."""
    rule = _TRANSFORMS.get(_path(part))
    return rule(part, X) if rule else np.asarray(part.transform(X))


def expit(x: _Floats) -> _Floats:
    """Return ``1 / (1 + exp(-x))`` as SciPy does, by the exponential function of C."""
    return np.array([1 / (1 + math.exp(-value)) for value in np.clip(x, -709.0, 709.0).tolist()])


def _path(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _last(part: Any, X: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
    """Take inputs through a pipeline as far as its last step."""
    while _path(part) == _PIPELINE:
        X, part = _through(part.steps[:-1], X), part.steps[-1][1]
    return part, X


_prepared: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()


def _once(part: Any, content: Any, make: Callable[[], Any]) -> Any:
    """Return what is made of a fitted part's content, made again only after another fit."""
    known, made = _prepared.get(part, (None, None))
    if known is not content:
        made = make()
        _prepared[part] = content, made
    return made


def _is_usual(part: Any) -> bool:
    """Tell whether a part has no setting that is unknown here."""
    path = _path(part)
    if path == _NEIGHBOURS:
        return _metric(part) is not None
    return path != _BOOSTED or math.isnan(part.missing)


# ---- features


def _from_counts(
    compute: Callable[[Any, NDArray[Any]], NDArray[Any]], dtype: str | None
) -> Callable[[Any, NDArray[Any]], NDArray[Any]]:
    """Make the rule of a transformer of counts from its formula; ``dtype``: where it has no setting."""

    def rule(part: Any, X: NDArray[Any]) -> NDArray[Any]:
        rows = len(Recipe(part.zones, getattr(part, "bands", ())).names)
        if X[0].size != part.n_features_in_ or X[0].size % rows or (X.ndim == 3 and X.shape[1] != rows):
            raise InputError(
                f"X must have {rows} rows and {part.n_features_in_} counts an image, got {X.shape}"
            )
        counts = X.reshape(len(X), rows, -1)
        ignored = getattr(part, "ignore_bins", ())
        kind = getattr(part, "dtype", dtype)
        return formulas.in_blocks(lambda block: compute(part, block), counts, part.zones, ignored, kind)

    return rule


def _both_sides(part: Any, counts: NDArray[Any]) -> NDArray[Any]:
    mirrored = formulas.mirror_counts(counts, zones=part.zones, bands=part.bands)
    return np.hstack([transform(part.features_, counts), transform(part.features_, mirrored)])


def _through(steps: Any, X: NDArray[Any]) -> NDArray[Any]:
    for _, step in steps:
        X = transform(step, X)
    return X


def _scaled(part: Any, X: NDArray[Any]) -> NDArray[Any]:
    scaled = np.array(X)
    if part.with_mean:
        scaled -= part.mean_.astype(X.dtype)
    if part.with_std:
        scaled /= part.scale_.astype(X.dtype)
    return scaled


def _components(part: Any, X: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = X @ part.components_.T
    found -= part.mean_.reshape(1, -1) @ part.components_.T
    if part.whiten:
        scale = np.sqrt(part.explained_variance_)
        found /= np.maximum(scale, np.finfo(scale.dtype).eps)
    return found


# ---- trees


def _boosted(part: Any, X: NDArray[Any]) -> _Floats:
    if not _is_usual(part):
        return np.asarray(part.predict_proba(X)[:, 1], np.float64)
    booster = part._Booster
    if not isinstance(booster, Trees):
        trees = _once(part, booster, lambda: boosted_trees(json.loads(bytes(booster.save_raw("json")))))
    else:
        trees = booster
    margins = np.minimum(-trees.sums(X), np.float32(88.7)).tolist()
    powers = np.array([math.exp(value) for value in margins], np.float32)
    return (np.float32(1) / (powers + np.float32(1))).astype(np.float64)


def _forest(part: Any, X: NDArray[Any]) -> _Floats:
    trees = _once(part, part.estimators_, lambda: forest_trees(part))
    return np.asarray(trees.sums(X) / len(trees), np.float64)


# ---- distances


def _metric(part: Any) -> str | None:
    """Return SciPy's name of the metric of neighbours; None for one that is not known here."""
    if part.weights not in ("uniform", "distance") or part.metric_params:
        return None
    name = f"minkowski {part.p}" if part.metric == "minkowski" else str(part.metric)
    euclidean = dict.fromkeys(("euclidean", "minkowski 2"), "euclidean")
    return {**euclidean, "manhattan": "cityblock", "minkowski 1": "cityblock"}.get(name)


def _neighbours(part: Any, X: NDArray[Any]) -> _Floats:
    from scipy.spatial.distance import cdist

    if not _is_usual(part):
        return np.asarray(part.predict_proba(X)[:, 1], np.float64)
    metric, points, sick = _metric(part), part._fit_X, part._y == 1
    if part.n_neighbors > len(points):
        raise ValueError(
            f"n_neighbors must be at most {len(points)}, the training images; got {part.n_neighbors}"
        )
    found = np.empty(len(X))
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK]
        parts = [cdist(block, points[at : at + _POINTS], metric) for at in range(0, len(points), _POINTS)]
        for row, distances in enumerate(np.concatenate(parts, axis=1), start):
            farthest = np.partition(distances, part.n_neighbors - 1)[part.n_neighbors - 1]
            near = np.flatnonzero(distances <= farthest)
            near = near[np.argsort(distances[near], kind="stable")][: part.n_neighbors]
            weights = np.ones(len(near))
            if part.weights == "distance":
                touching = distances[near] == 0
                weights = touching.astype(float) if touching.any() else 1 / distances[near]
            votes = [np.add.accumulate(weights[sick[near] == kind])[-1:].sum() for kind in (False, True)]
            found[row] = votes[1] / (votes[0] + votes[1])
    return found


def gaussian_margins(part: Any, X: NDArray[Any]) -> _Floats:
    """Return the distance from the border, (n,), of a ``GaussianSVC`` for features (n, n_features)."""
    if X.ndim != 2 or X.shape[1] != part.n_features_in_:
        raise InputError(f"X must have {part.n_features_in_} features an image, got shape {X.shape}")
    distance = np.empty(len(X))
    block = np.zeros((_BLOCK, X.shape[1]), np.float32)
    for start in range(0, len(X), _BLOCK):
        images = X[start : start + _BLOCK]
        block[: len(images)] = images
        seen = reduced(part, block)
        kernel = _gaussian_kernel(seen, part.support_vectors_, part.gamma)
        weighed = kernel.astype(np.float64) * part.dual_coef_
        distance[start : start + _BLOCK] = weighed.sum(axis=1)[: len(images)] + part.intercept_
    return distance


def reduced(part: Any, X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the main components that a ``GaussianSVC`` sees of features, where it sees no more."""
    if part.n_components is None:
        return X
    found: NDArray[np.float32] = (X - part.mean_) @ part.components_.T
    return found


def _gaussian_kernel(X: NDArray[np.float32], Y: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
    """Return ``exp(-gamma * ||x - y||**2)`` for rows of both, as scikit-learn's ``rbf_kernel``.

    Its steps, too: squared distances in float64, a part of ``Y`` at a time, kept as float32.
    """
    found = np.empty((len(X), len(Y)), np.float32)
    # Parts of scikit-learn's size, for the last bit: the product of a larger part may add up in another order.
    width = 2 * X.shape[1]
    most = max(((len(X) + len(Y)) * X.shape[1] + len(X) * len(Y)) / 10, 10 * 2**17)
    size = max(int((-width + math.sqrt(width**2 + 4 * most)) / 2), 1)
    for top in range(0, len(X), size):
        x = X[top : top + size].astype(np.float64)
        for start in range(0, len(Y), size):
            y = Y[start : start + size].astype(np.float64)
            squares = -2 * (x @ y.T)
            squares += np.einsum("ij,ij->i", x, x)[:, None]
            squares += np.einsum("ij,ij->i", y, y)[None, :]
            found[top : top + size, start : start + size] = squares
    np.maximum(found, 0, out=found)
    found *= -gamma
    return np.exp(found, out=found)


# ---- what is built of them


def combined(part: Any, X: NDArray[Any]) -> _Floats:
    """Return the calibrated logit, (n,), of a classifier of :mod:`histcxr.models.out_of_fold`."""
    views = getattr(part, "views", 1)
    logits = np.column_stack([case_logits(member, X, views) for member in part.estimators_])
    # Not a matrix product, whose order of summation depends on the number of images.
    found: _Floats = (logits * part.coef_).sum(axis=1) + part.intercept_
    return found


def adapted_inputs(part: Any, counts: NDArray[Any]) -> tuple[NDArray[np.floating], _Floats]:
    """Return features (n, p) and the estimator's logits (n,), by which an ``AdaptedClassifier`` judges."""
    from scipy.special import logit

    if part.features is not None:
        found, first = transform(part.features, counts), part.features
        probability = positive(part.estimator, counts)
    else:
        classifier, found = _last(part.estimator, counts)
        first, probability = part.estimator, positive(classifier, found)
    if _path(first) == _PIPELINE:
        first = first.steps[0][1]
    if _path(first) == _BOTH_SIDES:
        found = np.mean(np.split(found, 2, axis=1), axis=0)
    return found, logit(np.clip(probability, CUT, 1 - CUT))


def linear(
    coef: _Floats, slope: float, intercept: float, features: NDArray[np.floating], logits: _Floats
) -> _Floats:
    """Return ``features @ coef + slope * logits + intercept``, (n,)."""
    # Not a matrix product, whose order of summation depends on the number of images.
    part = (features * coef).sum(axis=1) if coef.any() else 0.0
    return np.asarray(part + slope * logits + intercept, dtype=np.float64)


def adapted(part: Any, counts: NDArray[Any]) -> _Floats:
    """Return the adapted logit, (n,), of an ``AdaptedClassifier``."""
    return linear(part.coef_, part.slope_, part.intercept_, *adapted_inputs(part, counts))


def network(part: Any, X: NDArray[Any]) -> _Floats:
    """Return the scores, (n,), of a ``LeNetClassifier`` for counts (n, zones, bins), flat or not."""
    from histcxr.models.lenet_network import LeNetGraph, run_session, write_onnx
    from histcxr.networks.onnx_model import open_session

    if X[0].size != part.n_zones_ * part.n_bins_:
        raise InputError(f"X must have {part.n_zones_} rows of {part.n_bins_} bins, got shape {X.shape}")
    graph, members = part.graph_, part.members_
    session = _once(part, members, lambda: open_session(write_onnx(LeNetGraph(**graph), members)))
    return run_session(session, network_input(part, X))


def network_input(part: Any, X: NDArray[Any]) -> NDArray[np.float32]:
    """Return what a ``LeNetClassifier`` sees of counts, (n, zones, bins)."""
    cube = X.reshape(len(X), part.n_zones_, part.n_bins_ // part.bin_width, part.bin_width)
    return formulas.histogram_tensor(
        cube[..., 0] if part.bin_width == 1 else cube.sum(axis=3),
        part.representation,
        smoothing=part.smoothing,
        scale=part.scale,
        areas=part.areas,
    )


_PIPELINE: Final = "sklearn.pipeline.Pipeline"
_UNION: Final = "sklearn.pipeline.FeatureUnion"
_BOOSTED: Final = "xgboost.sklearn.XGBClassifier"
_NEIGHBOURS: Final = "sklearn.neighbors._classification.KNeighborsClassifier"
_BOTH_SIDES: Final = "histcxr.features.band_features.BothSides"
_ADAPTED: Final = "histcxr.models.adapted.AdaptedClassifier"
_OUT_OF_FOLD: Final = (
    "histcxr.models.out_of_fold.CalibratedClassifier",
    "histcxr.models.out_of_fold.StackedClassifier",
)

_Rule = Callable[[Any, NDArray[Any]], NDArray[Any]]

_TRANSFORMS: dict[str, _Rule] = {
    _PIPELINE: lambda part, X: _through(part.steps, X),
    _BOTH_SIDES: _from_counts(_both_sides, None),
    "histcxr.features.band_features.BandDensities": _from_counts(formulas.band_densities, "float32"),
    "histcxr.features.band_features.BandFeatures": _from_counts(formulas.band_quantiles, "float64"),
    "histcxr.features.transformers.HistogramFeatures": _from_counts(formulas.histogram_features, "float64"),
    "histcxr.features.transformers.LungIntensity": _from_counts(formulas.lung_intensity, "float64"),
    "sklearn.decomposition._pca.PCA": _components,
    _UNION: lambda part, X: np.hstack([transform(one, X) for _, one in part.transformer_list]),
    "sklearn.preprocessing._data.StandardScaler": _scaled,
}
_DECISIONS: dict[str, _Rule] = {
    **dict.fromkeys(_OUT_OF_FOLD, combined),
    _ADAPTED: adapted,
    "histcxr.models.pipelines.GaussianSVC": gaussian_margins,
}
_PROBABILITIES: dict[str, _Rule] = {
    _NEIGHBOURS: _neighbours,
    "histcxr.models.lenet.LeNetClassifier": network,
    "sklearn.ensemble._forest.RandomForestClassifier": _forest,
    _BOOSTED: _boosted,
}

#: The classes, by dotted path, that are scored here: of histcxr's, scikit-learn's and XGBoost's those that a model of
#: histograms is made of.
SCORED: Final = frozenset({*_TRANSFORMS, *_DECISIONS, *_PROBABILITIES})
