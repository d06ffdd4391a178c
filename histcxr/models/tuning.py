"""Search for the settings of a classifier: cross-validated by patient, within a budget, failures shown."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError
from histcxr.features.bands import Band
from histcxr.features.histograms import Zones
from histcxr.models.out_of_fold import patient_folds
from histcxr.models.registry import CLASSIFIERS, MEMBERS, make_classifier, make_stack, search_space
from histcxr.models.search import SEARCHES, Trial, best_trial, run_search

__all__ = ["SCORINGS", "SEARCHES", "TuningResult", "tune"]

#: What a search may maximise: figures of the order of the scores, which calibration does not change.
SCORINGS = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    Attributes
    ----------
    name : str
        The classifier.
    estimator : Pipeline
        With the best settings; fitted on all images unless ``refit=False``.
    parameters : dict of str to value
        The settings that the search chose; empty where the defaults won. For the stack by member, as
        ``MEMBER__PARAMETER``.
    score : float
        The cross-validated score of these settings. Chosen as the highest of several, so a little too high.
    trials : DataFrame
        One row a trial: ``classifier, trial`` (0: the defaults), ``status`` ("ok" or "failed"), ``error``
        (what went wrong), ``score, score_std`` (mean and spread over the folds), ``images`` (how many the
        score rests on: fewer where halving stopped a trial early), ``seconds``, then one column for each
        parameter.
    not_tried : int
        Trials that the time limit left out.
    seconds : float
        Wall time, refit included.
    """

    name: str
    estimator: Pipeline
    parameters: dict[str, Any]
    score: float
    trials: pd.DataFrame
    not_tried: int
    seconds: float


def tune(
    name: str,
    X: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    zones: Zones = 1,
    bands: bool | str | Iterable[str | Band] = (),
    n_trials: int | None = None,
    seconds: float | None = None,
    search: str = "halving",
    cv: int = 5,
    scoring: str = "roc_auc",
    space: Mapping[str, Sequence[Any] | Any] | None = None,
    members: Mapping[str, TuningResult] | None = None,
    random_state: int = 0,
    n_jobs: int = 1,
    device: str = "cpu",
    class_weight: Any = None,
    refit: bool = True,
) -> TuningResult:
    """Search for good settings of a classifier and fit it with the best.

    The defaults always compete, through to the end: what comes back is never worse than they are, as far as
    cross-validation can tell.

    Parameters
    ----------
    name : str
        A classifier of the registry. For ``"stack"`` each member is tuned, then the stack is built of them.
    X : array-like, shape (n, zones, 256)
        Counts.
    y : array-like, shape (n,)
        Two classes; the one that sorts last is the positive class.
    groups : array-like, shape (n,), optional
        The patient of each image. None: every image is a patient of its own.
    zones : {1, 2, 6, "1+2", "1+6"}, default=1
        What the rows of the counts stand for.
    bands : bool, str, or iterable of str or Band, default=()
        The bands whose rows follow.
    n_trials : int, optional
        Settings to try besides the defaults; for the stack, per member. 0: none, only measure the defaults.
        None: the classifier's own usual number.
    seconds : float, optional
        No trial begins later than this, except the defaults'. For the stack, the members share it.
    search : {"halving", "random"}, default="halving"
        ``"halving"``: all trials on a third of the patients, the better third of them on all.
        ``"random"``: all trials on all patients.
    cv : int, default=5
        Folds; no patient is in two of them.
    scoring : {"roc_auc", "average_precision"}, default="roc_auc"
    space : mapping, optional
        Parameters of the pipeline, each with a list of values or a distribution of scipy.stats. None:
        :func:`~histcxr.models.registry.search_space`. Not for the stack.
    members : mapping of str to TuningResult, optional
        For the stack: members already tuned, which need not be tuned again.
    random_state : int, default=0
    n_jobs : int, default=1
        Processes.
    device, class_weight
        As in :func:`~histcxr.models.registry.make_classifier`.
    refit : bool, default=True
        Whether to fit the best settings on all images.

    Returns
    -------
    TuningResult

    Warns
    -----
    HistcxrWarning
        When some trials failed: how many, and why the first one did.

    Raises
    ------
    InputError
        When an argument does not fit, a parameter of ``space`` is unknown, or there are too few patients.
    HistcxrError
        When every trial failed.
    """
    start = time.monotonic()
    _check_arguments(name, n_trials, seconds, search, scoring, space, members)
    target = column_or_1d(y)
    counts = np.asarray(X)
    check_consistent_length(counts, target, groups)
    if len(np.unique(target)) != 2:
        raise InputError(f"y must hold two classes; got {len(np.unique(target))}")
    patients = None if groups is None else column_or_1d(groups)
    settings: dict[str, Any] = {
        "zones": zones,
        "bands": bands,
        "random_state": random_state,
        "n_jobs": n_jobs,
        "device": device,
        "class_weight": class_weight,
    }
    if name == "stack":
        return _tune_stack(
            counts,
            target,
            patients,
            start,
            settings,
            dict(members or {}),
            {"n_trials": n_trials, "search": search, "cv": cv, "scoring": scoring},
            seconds,
            refit,
        )
    estimator = make_classifier(name, **settings)
    space = search_space(name, zones=zones, bands=bands) if space is None else dict(space)
    unknown = sorted(set(space) - set(estimator.get_params()))
    if unknown:
        raise InputError(f"space must name parameters of {name!r}; it has no {', '.join(unknown)}")
    trials, not_tried = run_search(
        estimator,
        space,
        counts,
        target,
        patients,
        n_trials=CLASSIFIERS[name].n_trials if n_trials is None else n_trials,
        halving=search == "halving",
        deadline=None if seconds is None else start + seconds,
        cv=cv,
        metric=SCORINGS[scoring],
        random_state=random_state,
        n_jobs=n_jobs,
    )
    table = _table(name, trials, list(space))
    _report_failures(name, trials)
    best = best_trial(trials)
    estimator.set_params(**best.parameters)
    if refit:
        estimator.fit(counts, target, classifier__groups=patients)
    return TuningResult(
        name, estimator, best.parameters, best.score, table, not_tried, time.monotonic() - start
    )


def _tune_stack(
    counts: NDArray[Any],
    target: NDArray[Any],
    patients: NDArray[Any] | None,
    start: float,
    settings: dict[str, Any],
    members: dict[str, TuningResult],
    how: dict[str, Any],
    seconds: float | None,
    refit: bool,
) -> TuningResult:
    """Tune the members that are not tuned yet, and measure and fit the stack of all."""
    open_ = [name for name in MEMBERS if name not in members] if not members else []
    for place, name in enumerate(open_):
        left = None if seconds is None else max(0.001, start + seconds - time.monotonic())
        share = None if left is None else left / (len(open_) - place)
        members[name] = tune(name, counts, target, patients, seconds=share, refit=False, **how, **settings)
    estimator = make_stack(
        {name: member.estimator for name, member in members.items()},
        random_state=settings["random_state"],
        n_jobs=settings["n_jobs"],
        class_weight=settings["class_weight"],
    )
    estimator.set_params(classifier__cv=how["cv"])
    # The stack's own folds give its score; they are those on which the members were compared.
    fitted = clone(estimator["classifier"])
    scores = fitted.fit_out_of_fold(counts, target, patients)
    positive = target == np.unique(target)[1]
    by_fold = [
        float(SCORINGS[how["scoring"]](positive[test], scores[test]))
        for _, test in patient_folds(positive, patients, how["cv"], settings["random_state"])
    ]
    parameters = {
        f"{name}__{key}": value
        for name, member in members.items()
        for key, value in member.parameters.items()
    }
    return TuningResult(
        "stack",
        Pipeline([("classifier", fitted)]) if refit else estimator,
        parameters,
        float(np.mean(by_fold)),
        pd.concat([member.trials for member in members.values()], ignore_index=True),
        sum(member.not_tried for member in members.values()),
        time.monotonic() - start,
    )


def _table(name: str, trials: Sequence[Trial], columns: Sequence[str]) -> pd.DataFrame:
    rows = [
        {
            "classifier": name,
            "trial": trial.number,
            "status": "failed" if trial.error else "ok",
            "error": trial.error,
            "score": trial.score,
            "score_std": trial.spread,
            "images": trial.images,
            "seconds": trial.seconds,
            **{column: trial.parameters.get(column) for column in columns},
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(columns, object))


def _report_failures(name: str, trials: Sequence[Trial]) -> None:
    failed = [trial for trial in trials if trial.error]
    if len(failed) == len(trials):
        raise HistcxrError(f"{name}: each of {len(trials)} trials failed; the first with: {failed[0].error}")
    if failed:
        warnings.warn(
            f"{name}: {len(failed)} of {len(trials)} trials failed; the first with: {failed[0].error}",
            HistcxrWarning,
            stacklevel=3,
        )


def _check_arguments(
    name: str,
    n_trials: int | None,
    seconds: float | None,
    search: str,
    scoring: str,
    space: object,
    members: Mapping[str, TuningResult] | None,
) -> None:
    if name not in CLASSIFIERS:
        raise InputError(f"name must be one of {', '.join(CLASSIFIERS)}; got {name!r}")
    if n_trials is not None and (
        not isinstance(n_trials, int | np.integer) or isinstance(n_trials, bool) or n_trials < 0
    ):
        raise InputError(f"n_trials must be an integer of at least 0, or None; got {n_trials!r}")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds must be above 0, or None; got {seconds!r}")
    if search not in SEARCHES:
        raise InputError(f"search must be one of {', '.join(SEARCHES)}; got {search!r}")
    if scoring not in SCORINGS:
        raise InputError(f"scoring must be one of {', '.join(SCORINGS)}; got {scoring!r}")
    if name == "stack" and space is not None:
        raise InputError("space must be None for the stack: tune its members, and give them as members")
    if name != "stack" and members is not None:
        raise InputError(f"members are for the stack only; got them for {name!r}")
