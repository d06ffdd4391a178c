"""Settings of a classifier: searched by cross-validation across patients, or taken as they are; then fitted.

Not by scikit-learn's search classes, which keep no error of a failed trial and halve images, not patients.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterSampler, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.data.splits import Fold, patient_folds
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.models.pipelines import sees_both_sides
from histcxr.models.registry import find_classifier, make_classifier, make_stack
from histcxr.models.scoring import case_logits
from histcxr.networks import search as networks
from histcxr.networks.search import FIRST_COLUMNS, SearchOptions, Space, TuningResult

#: The ways to search for settings of a classifier that is no network. ``"halving"``: all on a third of the patients,
#: the better third of them on all; only two rungs, since a kernel's best width depends on the number of images.
SEARCHES = ("halving", "random")
_FACTOR = 3
_LEAST = 2  # images of each class that a fold of that third must judge

# What a fit may raise over settings that do not go together; anything else is a bug and is not hidden.
# XGBoost's and LAPACK's errors and scikit-learn's InvalidParameterError are children of ValueError.
_FIT_ERRORS = (ArithmeticError, MemoryError, RuntimeError, ValueError)


@dataclass(frozen=True)
class TuningOptions(SearchOptions):
    """How to tune: as for :class:`~histcxr.networks.search.SearchOptions` (``method`` also of SEARCHES), and:

    ``recipe``: what the rows stand for; ``n_jobs, device, class_weight``: as in ``registry.make_classifier``.
    """

    recipe: Recipe = Recipe()
    n_jobs: int = 1
    device: str = "cpu"
    class_weight: Any = None


def tune(
    name: str,
    X: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    options: TuningOptions | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    members: Mapping[str, TuningResult] | None = None,
    refit: bool = True,
) -> TuningResult:
    """Search for good settings of a classifier of the registry and, with ``refit``, fit the best on all images.

    The defaults compete: what comes back is no worse, as far as cross-validation can tell; ``n_trials=0`` only judges
    them. ``X``: counts (n, rows, 256); ``y``: (n,), two classes, the one that sorts last is positive; ``groups``: (n,),
    patients (None: every image is its own); ``defaults``: parameters of the pipeline in place of the registry's, not
    for the stack; ``members``: what the stack, and nothing else, is built of.

    InputError, HistcxrError: an argument or parameter does not fit, too few patients, or every trial failed (a warning
    when only some do).
    """
    started = time.monotonic()
    options = options or TuningOptions()
    counts, target = np.asarray(X), column_or_1d(y)
    patients = None if groups is None else column_or_1d(groups)
    check_consistent_length(counts, target, patients)
    if len(np.unique(target)) != 2:
        raise InputError(f"y must hold two classes; got {len(np.unique(target))}")
    if name != "stack" and members is not None:
        raise InputError(f"members are for the stack only; got them for {name!r}")
    data = _Data(counts, target, patients)
    if name == "stack":
        if defaults is not None:
            raise InputError("defaults must be None for the stack: tune its members, and give those")
        found = _stack(options, members or {})
    else:
        found = _choose(name, data, options, defaults or {}, refit)
    fitted = clone(found.estimator)
    if np.isnan(found.score):  # the folds of the calibration give it, too
        *before, (_, classifier) = fitted.steps
        features = Pipeline(before).fit_transform(counts) if before else counts
        scores = classifier.fit_out_of_fold(features, target, patients)
        folds = patient_folds(target, patients, classifier.cv, options.random_state)
        by_fold = np.array([roc_auc_score(target[test], scores[test]) for _, test in folds])
        found = replace(found, score=float(by_fold.mean()))
        if not len(found.trials):
            row = _row(name, 0, "", by_fold, len(target), time.monotonic() - started)
            found = replace(found, trials=pd.DataFrame([row]))
    elif refit:
        fitted.fit(counts, target, classifier__groups=patients)
    estimator = fitted if refit else found.estimator
    return replace(found, estimator=estimator, seconds=time.monotonic() - started)


def prepare(
    name: str, options: TuningOptions, defaults: Mapping[str, Any] | None = None
) -> tuple[Pipeline, Mapping[str, Any] | Space, int]:
    """Return a classifier with its defaults, what is searched, and how many trials (none with the bands that travel).

    Raises what :func:`tune` raises, as far as that can be told without data.
    """
    spec, recipe = find_classifier(name), options.recipe
    space = spec.space(recipe)
    networks.check_method(options.method, networks.METHODS if callable(space) else SEARCHES, name)
    if options.seconds is not None and not callable(space):
        raise InputError(f"seconds are for networks only; give fewer trials for {name!r}")
    pipeline = make_classifier(
        name,
        zones=recipe.zones,
        bands=recipe.bands,
        random_state=options.random_state,
        n_jobs=options.n_jobs,
        device=options.device,
        class_weight=options.class_weight,
    )
    unknown = sorted(set(defaults or ()) - set(pipeline.get_params()))
    if unknown:
        raise InputError(f"defaults must name parameters of {name!r}; it has no {', '.join(unknown)}")
    usual = 0 if sees_both_sides(recipe) else spec.n_trials
    n_trials = usual if options.n_trials is None else options.n_trials
    return pipeline.set_params(**(defaults or {})), space, n_trials


class _Data(NamedTuple):
    X: NDArray[Any]
    target: NDArray[Any]
    patients: NDArray[Any] | None


def _row(
    name: str, number: int, error: str, scores: NDArray[Any], images: int, seconds: float
) -> dict[str, Any]:
    figures = "failed" if error else "ok", error, float(scores.mean()), float(scores.std()), images, seconds
    return dict(zip(FIRST_COLUMNS, (name, number, *figures), strict=True))


def _stack(options: TuningOptions, members: Mapping[str, TuningResult]) -> TuningResult:
    stack = make_stack(
        {name: one.estimator for name, one in members.items()},
        random_state=options.random_state,
        n_jobs=options.n_jobs,
        class_weight=options.class_weight,
    )
    parameters = {
        f"{name}__{key}": value for name, one in members.items() for key, value in one.parameters.items()
    }
    trials = pd.concat([one.trials for one in members.values()], ignore_index=True)
    return TuningResult("stack", stack, parameters, float("nan"), trials)


def _choose(
    name: str, data: _Data, options: TuningOptions, defaults: Mapping[str, Any], refit: bool
) -> TuningResult:
    """Search for the settings of one classifier, or leave it at its defaults."""
    pipeline, space, n_trials = prepare(name, options, defaults)
    result = TuningResult(name, pipeline, dict(defaults), float("nan"), pd.DataFrame())
    if not n_trials and (refit or callable(space)):
        return result  # the fit gives the score
    folds = patient_folds(data.target, data.patients, pipeline["classifier"].cv, options.random_state)
    if callable(space):
        network, how = pipeline["classifier"].estimator, replace(options, n_trials=n_trials)
        found = networks.search_networks(name, network, space, *data, folds[0][1], how)
        best = {f"classifier__estimator__{key}": value for key, value in found.parameters.items()}
        result = replace(result, trials=found.trials, not_tried=found.not_tried)
    else:
        if options.directory is not None:
            about = {"classifier": name}
            networks.claim_folder(Path(options.directory), pipeline, options.random_state, data, about)
        settings = [{}, *_draw(pipeline, space, n_trials, options.random_state)]
        trials = _try(name, pipeline, settings, data, folds, options)
        networks.report_failures(name, trials)
        whole = trials[trials["images"] == trials["images"][trials["status"] == "ok"].max()]
        row = whole.loc[whole["score"].idxmax()]
        best = settings[int(row["trial"])]
        result = replace(result, trials=trials, score=float(row["score"]))
    return replace(result, estimator=pipeline.set_params(**best), parameters={**defaults, **best})


def _draw(pipeline: Pipeline, space: Mapping[str, Any], n_trials: int, seed: int) -> list[dict[str, Any]]:
    """Draw settings at random, each once and none that are the defaults."""
    if not n_trials or not space:
        return []
    defaults = {key: value for key, value in pipeline.get_params().items() if key in space}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are fewer than asked for
        drawn = list(ParameterSampler(space, n_trials + 1, random_state=seed))
    return [values for values in drawn if values != defaults][:n_trials]


def _try(
    name: str,
    pipeline: Pipeline,
    settings: Sequence[dict[str, Any]],
    data: _Data,
    folds: Sequence[Fold],
    options: TuningOptions,
) -> pd.DataFrame:
    """Cross-validate settings, the first of which are the defaults; return a row each."""
    X, target, patients = data
    plain = clone(pipeline).set_params(classifier__cv=None, classifier__n_jobs=None)  # only the order counts
    if options.n_jobs != 1 and "n_jobs" in plain["classifier"].estimator.get_params():
        plain.set_params(classifier__estimator__n_jobs=1)
    if not any(key.startswith("features") for values in settings for key in values):
        X, plain = plain["features"].fit_transform(X), plain[1:]  # they learn nothing: once is enough
    how = {"scoring": _auc, "n_jobs": options.n_jobs, "error_score": "raise"}
    rows: dict[int, dict[str, Any]] = {}

    def judge(number: int, folds: Sequence[Fold]) -> None:
        started, error, scores = time.monotonic(), "", np.array([np.nan])
        try:
            estimator = clone(plain).set_params(**settings[number])
            scores = cross_validate(estimator, X, target, cv=folds, **how)["test_score"]
        except _FIT_ERRORS as problem:
            error = networks.error_line(problem)
        before = rows[number]["seconds"] if number in rows else 0.0
        images, seconds = sum(len(test) for _, test in folds), before + time.monotonic() - started
        rows[number] = _row(name, number, error, scores, images, seconds) | settings[number]

    numbers = list(range(1, len(settings)))
    # Halving: all but the defaults on a third of the patients, the better third of them on all.
    _, part = patient_folds(target, patients, _FACTOR, options.random_state)[0]
    third = [(np.intersect1d(train, part), np.intersect1d(test, part)) for train, test in folds]
    fewest = min((target[test] == value).sum() for _, test in third for value in np.unique(target))
    if options.method != "random" and len(settings) > _FACTOR and fewest >= _LEAST:
        for number in numbers:
            judge(number, third)
        fine = [number for number in numbers if rows[number]["status"] == "ok"]
        fine.sort(key=lambda number: -rows[number]["score"])
        numbers = fine[: -(-len(fine) // _FACTOR)]
    for number in [0, *numbers]:
        judge(number, folds)
    return pd.DataFrame([rows[number] for number in sorted(rows)])


def _auc(estimator: Any, X: NDArray[Any], target: NDArray[Any]) -> float:
    return float(roc_auc_score(target, case_logits(estimator, X)))
