"""The classifiers by name: how each is built, and which of its settings are worth searching.

A further classifier takes one entry in :data:`CLASSIFIERS`: a function that builds its pipeline, such as those of
:mod:`histcxr.models.pipelines`, and a function that gives its search space. What it consists of joins the trust list
in :mod:`histcxr.store.weights`, so that it can be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from histcxr.exceptions import InputError, did_you_mean
from histcxr.features.filters import Band
from histcxr.features.histograms import Zones
from histcxr.features.recipe import Recipe
from histcxr.models import pipelines
from histcxr.models.out_of_fold import StackedClassifier
from histcxr.models.pipelines import Settings, sees_both_sides
from histcxr.networks.search import Space


@dataclass(frozen=True)
class ClassifierSpec:
    """What the registry knows of a classifier."""

    #: One line for a list.
    description: str
    #: Builds a pipeline whose last step is named ``classifier`` and takes the patients as ``groups``.
    build: Callable[[Settings], Pipeline]
    #: Returns parameters of the pipeline, and the values worth trying, for a recipe of the counts; for a network a
    #: function such as :func:`lenet_space`.
    space: Callable[[Recipe], dict[str, list[Any]] | Space]
    #: Settings that a search tries, unless it is told otherwise.
    n_trials: int


def make_classifier(
    name: str,
    *,
    zones: Zones = 1,
    bands: bool | str | Iterable[str | Band] = (),
    random_state: int | None = 0,
    n_jobs: int = 1,
    device: str = "cpu",
    class_weight: Any = None,
) -> Pipeline:
    """Build a classifier of :data:`CLASSIFIERS` with good defaults: a pipeline, unfitted.

    It takes counts ``(n, zones, 256)`` or ``(n, zones * 256)`` to probabilities of two classes. Give the patients, so
    that calibration keeps each one's images together (``fit(counts, sick, classifier__groups=patients)``), else each
    image counts as a patient. ``zones, bands``: see :class:`~histcxr.features.recipe.Recipe`; ``n_jobs``: threads or
    processes; ``device``: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, for XGBoost alone; ``class_weight``: scores are then
    probabilities among patients as the weights make them. InputError, MissingDependencyError: an argument does not fit,
    there is no such GPU, or XGBoost is missing.
    """
    spec, recipe = find_classifier(name), Recipe(zones, bands)
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise InputError(f"n_jobs must be a whole number other than 0; got {n_jobs!r}")
    return spec.build(Settings(recipe, random_state, n_jobs, class_weight, device))


def make_stack(
    members: Mapping[str, Pipeline],
    *,
    random_state: int | None = 0,
    n_jobs: int = 1,
    class_weight: Any = None,
) -> Pipeline:
    """Stack classifiers of one's own choice or tuning, as the step ``classifier`` of a pipeline, unfitted.

    Members are pipelines of :func:`make_classifier`: cloned, with their own random states and weights, uncalibrated,
    since the stack calibrates. Steps common to all come first, once. InputError: no member, or one is a stack.
    """
    if not members:
        raise InputError("members must hold at least one classifier; got none")
    parts = []
    for name, member in members.items():
        copy = clone(member)
        if "classifier__estimator" not in copy.get_params():
            raise InputError(f"members must be calibrated classifiers of the registry; {name!r} is not")
        if len(copy.steps) == 1:
            parts.append((name, copy["classifier"].estimator))
            continue
        copy.set_params(classifier__cv=None, classifier__n_jobs=None)
        # Members and folds run side by side, so each takes one thread.
        if "n_jobs" in copy["classifier"].estimator.get_params():
            copy.set_params(classifier__estimator__n_jobs=1)
        parts.append((name, copy))
    # What all members begin with is done once: half of the time, with two members.
    begun = [
        [(step, str(part.get_params())) for step, part in getattr(member, "steps", ())[:-1]]
        for _, member in parts
    ]
    shared: list[tuple[str, Any]] = []
    if len(parts) > 1 and begun[0] and begun.count(begun[0]) == len(begun):
        shared = parts[0][1].steps[:-1]
        parts = [(name, member[-1]) for name, member in parts]
    stack = StackedClassifier(parts, class_weight=class_weight, random_state=random_state, n_jobs=n_jobs)
    return Pipeline([*shared, ("classifier", stack)])


def stack_members(recipe: Recipe) -> tuple[str, ...]:
    """Name the stack's usual members: with the bands that travel the trees alone, for distances travel worse."""
    trees = ("random-forest", "xgboost")
    return trees if sees_both_sides(recipe) else ("knn", "svm", *trees)


def describe_classifiers() -> list[dict[str, Any]]:
    """Return one row for each classifier: ``name, description, searched, trials``; ready for a table."""
    return [
        {
            "name": name,
            "description": spec.description,
            "searched": "its layers and its training"
            if callable(space := spec.space(Recipe()))
            else ", ".join(parameter.rpartition("__")[2] for parameter in space) or "its members",
            "trials": spec.n_trials,
        }
        for name, spec in CLASSIFIERS.items()
    ]


def _stack(settings: Settings) -> Pipeline:
    alone = replace(settings, n_jobs=1)
    members = {name: CLASSIFIERS[name].build(alone) for name in stack_members(settings.recipe)}
    return make_stack(
        members,
        random_state=settings.random_state,
        n_jobs=settings.n_jobs,
        class_weight=settings.class_weight,
    )


_KNN_SPACE: dict[str, list[Any]] = {
    "classifier__estimator__n_neighbors": [15, 20, 25, 35, 50, 70],
    "classifier__estimator__weights": ["distance", "uniform"],
}
_FOREST_SPACE: dict[str, list[Any]] = {
    "classifier__estimator__max_features": ["sqrt", 0.05, 0.15],
    "classifier__estimator__min_samples_leaf": [1, 2, 4, 8],
}
_XGBOOST_SPACE: dict[str, list[Any]] = {
    "classifier__estimator__n_estimators": [300, 600, 900],
    "classifier__estimator__max_depth": [3, 4, 5, 6],
    "classifier__estimator__min_child_weight": [1, 3, 8],
    "classifier__estimator__subsample": [0.5, 0.7, 0.9],
    "classifier__estimator__colsample_bytree": [0.05, 0.1, 0.3],
    "classifier__estimator__reg_lambda": [1.0, 3.0, 10.0],
}


def lenet_space(values: Any) -> dict[str, Any]:
    """Ask a ``keras_tuner.HyperParameters`` for parameters of a :class:`~histcxr.models.lenet.LeNetClassifier`.

    Cumulative input is left out: in searches on real lungs its best network stayed behind the median of the others.
    """
    blocks = values.Int("blocks", 1, 3, default=2)
    filters = [
        values.Choice("filters_1", [8, 16, 32], default=16),
        values.Choice("filters_2", [16, 32, 64], default=32, parent_name="blocks", parent_values=[2, 3]),
        values.Choice("filters_3", [32, 64], default=32, parent_name="blocks", parent_values=[3]),
    ]
    widths = [
        values.Choice("kernel_1", [5, 9, 15, 25], default=15),
        values.Choice("kernel_2", [3, 5, 9, 15], default=9, parent_name="blocks", parent_values=[2, 3]),
        values.Choice("kernel_3", [3, 5], default=3, parent_name="blocks", parent_values=[3]),
    ]
    layers = values.Int("dense_layers", 1, 3, default=1)
    units = [16, 32, 64, 128, 256, 512, 1024, 2048]
    dense = [
        values.Choice("dense_1", units, default=128),
        values.Choice("dense_2", units, default=64, parent_name="dense_layers", parent_values=[2, 3]),
        values.Choice("dense_3", units, default=32, parent_name="dense_layers", parent_values=[3]),
    ]
    jitter = values.Choice("jitter", [0.0, 0.5, 1.0, 2.0], default=1.0)
    return {
        "representation": values.Choice("representation", ["sqrt", "density"]),
        "smoothing": values.Choice("smoothing", [0.0, 1.0, 2.0]),
        "filters": tuple(filters[:blocks]),
        "kernel_size": tuple(widths[:blocks]),
        "pool_size": values.Choice("pool_size", [2, 4], default=4),
        "pooling": values.Choice("pooling", ["max", "average"]),
        "activation": values.Choice("activation", ["relu", "tanh"]),
        "batch_norm": values.Boolean("batch_norm", default=True),
        "conv_dropout": values.Choice("conv_dropout", [0.0, 0.1, 0.2, 0.3]),
        "dense": tuple(dense[:layers]),
        "dense_dropout": values.Choice("dense_dropout", [0.0, 0.2, 0.3, 0.4, 0.5], default=0.3),
        "learning_rate": values.Float("learning_rate", 3e-4, 1e-2, sampling="log", default=2e-3),
        "weight_decay": values.Float("weight_decay", 1e-5, 1e-2, sampling="log", default=1e-3),
        "label_smoothing": values.Choice("label_smoothing", [0.0, 0.05, 0.1]),
        "batch_size": values.Choice("batch_size", [64, 128, 256], default=128),
        "shift": 0.04 * jitter,
        "gamma": 0.15 * jitter,
        "contrast": 0.1 * jitter,
    }


#: The classifiers by name.
CLASSIFIERS: dict[str, ClassifierSpec] = {
    "knn": ClassifierSpec("nearest neighbours", pipelines.knn, lambda recipe: dict(_KNN_SPACE), 8),
    "svm": ClassifierSpec(
        "support vector machine with a Gaussian kernel",
        pipelines.svm,
        lambda recipe: {
            "classifier__estimator__C": [1.0, 3.0, 10.0, 30.0],
            "classifier__estimator__gamma": pipelines.svm_gammas(recipe),
        },
        8,
    ),
    "random-forest": ClassifierSpec("random forest", pipelines.forest, lambda recipe: dict(_FOREST_SPACE), 6),
    "xgboost": ClassifierSpec(
        "gradient-boosted trees", pipelines.xgboost, lambda recipe: dict(_XGBOOST_SPACE), 10
    ),
    "lenet": ClassifierSpec(
        "1-D convolutional network on the histograms (extra neural)",
        pipelines.lenet,
        lambda recipe: lenet_space,
        12,
    ),
    "stack": ClassifierSpec(
        "several of those above, weighed by a logistic regression", _stack, lambda recipe: {}, 0
    ),
}


def find_classifier(name: str) -> ClassifierSpec:
    """Return what is known of a classifier; InputError where there is none of this name."""
    if name not in CLASSIFIERS:
        raise InputError(
            f"name must be one of {', '.join(CLASSIFIERS)}; got {name!r}{did_you_mean(name, CLASSIFIERS)}"
        )
    return CLASSIFIERS[name]
