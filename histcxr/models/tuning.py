"""Search for the settings of a classifier: cross-validated by patient, within a budget, failures shown."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError
from histcxr.features.filters import Band
from histcxr.features.histograms import Zones
from histcxr.models.fit_log import FitLog
from histcxr.models.keras_tuning import lenet_space
from histcxr.models.registry import (
    CLASSIFIERS,
    make_classifier,
    make_stack,
    search_space,
    stack_members,
    usual_trials,
)
from histcxr.models.search import SEARCHES, Trial, best_trial, run_search
from histcxr.models.tuned_lenet import tuned_lenet
from histcxr.models.tuning_result import SCORINGS, TuningResult, fit_and_cross_validate, trials_table
from histcxr.networks.search import METHODS
from histcxr.networks.search_folder import claim_folder, fingerprint

__all__ = ["SCORINGS", "SEARCHES", "TuningResult", "tune"]


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
    search: str | None = None,
    cv: int = 5,
    scoring: str = "roc_auc",
    space: Mapping[str, Sequence[Any] | Any] | Callable[[Any], dict[str, Any]] | None = None,
    defaults: Mapping[str, Any] | None = None,
    members: Mapping[str, TuningResult] | None = None,
    directory: str | Path | None = None,
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
        None: the classifier's own usual number, which is 0 with the bands that travel.
    seconds : float, optional
        No trial begins later than this, except the defaults'. For the stack, the members share it.
    search : {"halving", "random"} or, for the LeNet, {"hyperband", "random", "bayesian"}, optional
        ``"halving"``: all trials on a third of the patients, the better third of them on all.
        ``"random"``: all trials on all patients. For the LeNet see
        :func:`~histcxr.models.keras_tuning.tune_lenet`. None: the first.
    cv : int, default=5
        Folds; no patient is in two of them.
    scoring : {"roc_auc", "average_precision"}, default="roc_auc"
    space : mapping, or callable for the LeNet, optional
        Parameters of the pipeline, each with a list of values or a distribution of scipy.stats. None:
        :func:`~histcxr.models.registry.search_space`; for the LeNet
        :func:`~histcxr.models.keras_tuning.lenet_space`. Not for the stack.
    defaults : mapping, optional
        Parameters of the pipeline that take the place of the registry's, e.g. those of an earlier search. Not
        for the stack.
    members : mapping of str to TuningResult, optional
        For the stack: members already tuned, which need not be tuned again.
    directory : path-like, optional
        Where fits are written down as they are done. A search found there is gone on with, if it was on the same
        data with the same settings. For the stack one folder a member. None: nothing is kept.
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
    _check_arguments(name, n_trials, seconds, search, scoring, space, defaults, members)
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
            {"n_trials": n_trials, "cv": cv, "scoring": scoring},
            seconds,
            None if directory is None else Path(directory),
            refit,
        )
    estimator = make_classifier(name, **settings)
    known = estimator.get_params()
    for argument, given in (("space", space), ("defaults", defaults)):
        unknown = sorted(set(given) - set(known)) if isinstance(given, Mapping) else []
        if unknown:
            raise InputError(f"{argument} must name parameters of {name!r}; it has no {', '.join(unknown)}")
    estimator.set_params(**(defaults or {}))
    trials_wanted = usual_trials(name, zones=zones, bands=bands) if n_trials is None else int(n_trials)
    folder = None if directory is None else Path(directory)
    if name == "lenet":
        return tuned_lenet(
            estimator.set_params(classifier__cv=cv),
            counts,
            target,
            patients,
            start,
            space if callable(space) else lenet_space,
            dict(defaults or {}),
            {"n_trials": trials_wanted, "method": search or METHODS[0], "seconds": seconds},
            folder,
            SCORINGS[scoring],
            random_state,
            refit,
        )
    if not trials_wanted and refit and folder is None and estimator["classifier"].cv == cv:
        # Nothing to choose: the folds of the calibration give the score, too.
        score, spread = fit_and_cross_validate(
            estimator, counts, target, patients, SCORINGS[scoring], random_state
        )
        taken = time.monotonic() - start
        table = trials_table(name, [Trial(0, {}, score, spread, len(target), taken)], [])
        return TuningResult(name, estimator, dict(defaults or {}), score, table, 0, taken)
    values = dict(space) if isinstance(space, Mapping) else search_space(name, zones=zones, bands=bands)
    if folder is not None:
        claim_folder(
            folder,
            {
                "classifier": name,
                "estimator": repr(sorted((key, str(value)) for key, value in known.items())),
                "defaults": repr(sorted((defaults or {}).items())),
                "folds": f"{cv} from {random_state}",
                "scoring": scoring,
                "data": fingerprint(counts, target, patients),
            },
        )
    trials, not_tried = run_search(
        estimator,
        values,
        counts,
        target,
        patients,
        n_trials=trials_wanted,
        halving=search != "random",
        deadline=None if seconds is None else start + seconds,
        cv=cv,
        metric=SCORINGS[scoring],
        random_state=random_state,
        n_jobs=n_jobs,
        log=FitLog(folder),
    )
    table = trials_table(name, trials, list(values))
    _report_failures(name, trials)
    best = best_trial(trials)
    estimator.set_params(**best.parameters)
    if refit:
        estimator.fit(counts, target, classifier__groups=patients)
    parameters = {**(defaults or {}), **best.parameters}
    return TuningResult(name, estimator, parameters, best.score, table, not_tried, time.monotonic() - start)


def _tune_stack(
    counts: NDArray[Any],
    target: NDArray[Any],
    patients: NDArray[Any] | None,
    start: float,
    settings: dict[str, Any],
    members: dict[str, TuningResult],
    how: dict[str, Any],
    seconds: float | None,
    folder: Path | None,
    refit: bool,
) -> TuningResult:
    """Tune the members that are not tuned yet, and measure and fit the stack of all."""
    open_ = [] if members else list(stack_members(settings["zones"], settings["bands"]))
    for place, name in enumerate(open_):
        left = None if seconds is None else max(0.001, start + seconds - time.monotonic())
        share = None if left is None else left / (len(open_) - place)
        directory = None if folder is None else folder / name
        members[name] = tune(
            name,
            counts,
            target,
            patients,
            seconds=share,
            directory=directory,
            refit=False,
            **how,
            **settings,
        )
    estimator = make_stack(
        {name: member.estimator for name, member in members.items()},
        random_state=settings["random_state"],
        n_jobs=settings["n_jobs"],
        class_weight=settings["class_weight"],
    )
    estimator.set_params(classifier__cv=how["cv"])
    # The stack's own folds give its score; they are those on which the members were compared.
    fitted = clone(estimator)
    score, _ = fit_and_cross_validate(
        fitted, counts, target, patients, SCORINGS[how["scoring"]], settings["random_state"]
    )
    parameters = {
        f"{name}__{key}": value
        for name, member in members.items()
        for key, value in member.parameters.items()
    }
    return TuningResult(
        "stack",
        fitted if refit else estimator,
        parameters,
        score,
        pd.concat([member.trials for member in members.values()], ignore_index=True),
        sum(member.not_tried for member in members.values()),
        time.monotonic() - start,
    )


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
    search: str | None,
    scoring: str,
    space: object,
    defaults: object,
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
    searches = METHODS if name == "lenet" else SEARCHES
    if search is not None and (search not in searches or name == "stack"):
        known = "None for the stack" if name == "stack" else f"one of {', '.join(searches)} for {name!r}"
        raise InputError(f"search must be {known}; got {search!r}")
    if scoring not in SCORINGS:
        raise InputError(f"scoring must be one of {', '.join(SCORINGS)}; got {scoring!r}")
    if name == "stack" and space is not None:
        raise InputError("space must be None for the stack: tune its members, and give them as members")
    if name == "stack" and defaults is not None:
        raise InputError("defaults must be None for the stack: tune its members, and give them as members")
    if space is not None and callable(space) != (name == "lenet"):
        raise InputError(
            f"space must be a {'function of keras_tuner.HyperParameters' if name == 'lenet' else 'mapping'} "
            f"for {name!r}; got {type(space).__name__}"
        )
    if name != "stack" and members is not None:
        raise InputError(f"members are for the stack only; got them for {name!r}")
