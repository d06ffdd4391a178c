"""Random and successive-halving search over a pipeline's settings: trials in, scored trials out.

scikit-learn's searches know neither a time limit nor a table of what failed and why; its sampler and its
pipelines do the rest here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterSampler
from sklearn.pipeline import Pipeline

from histcxr.data.splits import Fold, patient_folds
from histcxr.models.fit_log import FitLog
from histcxr.models.out_of_fold import case_logits

__all__ = ["SEARCHES", "Trial", "best_trial", "run_search"]

#: The ways to search there are.
SEARCHES = ("halving", "random")

# Successive halving by thirds, in two rungs: a kernel's best width depends on the number of images, so
# ranks on a ninth of them mean little.
_FACTOR = 3

# What a fit may raise over settings that do not go together; anything else is a bug and is not hidden.
# XGBoost's and LAPACK's errors and scikit-learn's InvalidParameterError are children of ValueError.
_FIT_ERRORS = (ArithmeticError, MemoryError, RuntimeError, ValueError)


@dataclass
class Trial:
    """One setting and what became of it.

    Attributes
    ----------
    number : int
        0 for the defaults.
    parameters : dict of str to value
        What differs from the defaults or repeats them; empty for trial 0.
    score, spread : float
        Mean and standard deviation over the folds, of the last rung; NaN where the trial failed.
    images : int
        Images in the last rung.
    seconds : float
        Time of all fits.
    error : str
        Why it failed; "" where it did not.
    """

    number: int
    parameters: dict[str, Any] = field(default_factory=dict)
    score: float = float("nan")
    spread: float = float("nan")
    images: int = 0
    seconds: float = 0.0
    error: str = ""


def run_search(
    estimator: Pipeline,
    space: Mapping[str, Any],
    X: NDArray[Any],
    y: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    n_trials: int,
    halving: bool,
    deadline: float | None,
    cv: int,
    metric: Callable[[Any, Any], float],
    random_state: int,
    n_jobs: int,
    log: FitLog | None = None,
) -> tuple[list[Trial], int]:
    """Try the defaults and ``n_trials`` settings drawn at random.

    Parameters
    ----------
    estimator : Pipeline
        From the registry: a step ``features`` that learns nothing, so that it runs once for all trials, and a
        calibrated ``classifier``, which goes without calibration here: the order of scores is its own.
    space : mapping
        As for :func:`histcxr.models.tuning.tune`.
    X, y, groups : ndarray
        Counts, classes, patients.
    n_trials : int
    halving : bool
    deadline : float or None
        In seconds of :func:`time.monotonic`.
    cv : int
    metric : callable
        ``metric(is_positive, scores)``; higher is better.
    random_state, n_jobs : int
    log : FitLog, optional
        Fits found there are not done again; others are written down.

    Returns
    -------
    list of Trial
        Those that were begun.
    int
        How many were not, for want of time.
    """
    log = FitLog(None) if log is None else log
    plain = clone(estimator).set_params(classifier__cv=None, classifier__n_jobs=None)
    if n_jobs != 1 and "n_jobs" in plain["classifier"].estimator.get_params():
        plain.set_params(classifier__estimator__n_jobs=1)
    if not any(parameter.split("__")[0] == "features" for parameter in space):
        X = plain["features"].fit_transform(X)
        plain = plain[1:]
    positive = y == np.unique(y)[1]
    trials = [Trial(0)]
    if space and n_trials:
        total = _size(space)
        drawn = ParameterSampler(space, min(n_trials + 1, total), random_state=random_state)
        defaults = {key: value for key, value in estimator.get_params().items() if key in space}
        others = [dict(values) for values in drawn if values != defaults][:n_trials]
        trials += [Trial(number, values) for number, values in enumerate(others, start=1)]
    folds = patient_folds(positive, groups, cv, random_state)

    def rung(members: list[Trial], parts: list[Fold], limit: float | None) -> int:
        """Score trials on one set of folds, the defaults at any time; return how many were begun."""
        images = sum(len(test) for _, test in parts)
        tasks = _tasks(plain, members, X, positive, parts, metric, limit, log)
        results = Parallel(n_jobs=n_jobs, pre_dispatch="n_jobs", return_as="generator")(tasks)
        found = []
        for place, result in enumerate(results):
            number, fold = divmod(place, len(parts))
            log.add(_fit_name(members[number], images, fold), result)
            found.append(result)
        for trial, start in zip(members, range(0, len(found), len(parts)), strict=False):
            _note(trial, found[start : start + len(parts)], images)
        return len(found) // len(parts)

    small = _subset(positive, groups, cv, random_state) if halving and len(trials) > _FACTOR else None
    if small is None:
        begun = rung(trials, folds, deadline)
        return trials[:begun], len(trials) - begun
    now = time.monotonic()
    halfway = None if deadline is None else now + (deadline - now) / 2
    begun = rung(trials[1:], small, halfway)
    ranked = sorted(
        (trial for trial in trials[1 : begun + 1] if not trial.error), key=lambda trial: -trial.score
    )
    # The defaults need no first rung: they always reach the last.
    rung([trials[0], *ranked[: -(-len(ranked) // _FACTOR)]], folds, deadline)
    return trials[: begun + 1], len(trials) - 1 - begun


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the highest score among those that were scored on the most images."""
    scored = [trial for trial in trials if not trial.error]
    most = max(trial.images for trial in scored)
    return max((trial for trial in scored if trial.images == most), key=lambda trial: trial.score)


def _tasks(
    plain: Pipeline,
    trials: Sequence[Trial],
    X: NDArray[Any],
    positive: NDArray[np.bool_],
    folds: Sequence[Fold],
    metric: Callable[[Any, Any], float],
    limit: float | None,
    log: FitLog,
) -> Iterator[Any]:
    """Yield the fits of one trial after the other; those of the defaults at any time, others before a limit."""
    images = sum(len(test) for _, test in folds)
    for trial in trials:
        if trial.number and limit is not None and time.monotonic() > limit:
            return
        for number, fold in enumerate(folds):
            known = log.get(_fit_name(trial, images, number))
            yield delayed(_fit_and_score)(plain, trial.parameters, X, positive, fold, metric, known)


def _fit_name(trial: Trial, images: int, fold: int) -> str:
    """Name a fit of a search: its setting, how many images its rung judges, and the fold."""
    return f"{sorted(trial.parameters.items())!r} on {images}, fold {fold}"


def _fit_and_score(
    plain: Pipeline,
    parameters: Mapping[str, Any],
    X: NDArray[Any],
    positive: NDArray[np.bool_],
    fold: Fold,
    metric: Callable[[Any, Any], float],
    known: tuple[float, float, str] | None,
) -> tuple[float, float, str]:
    """Return score, seconds and error ("" for none) of one fit, or what is known of it."""
    if known is not None:
        return known
    train, test = fold
    start = time.perf_counter()
    try:
        estimator = clone(plain).set_params(**parameters)
        estimator.fit(X[train], positive[train])
        scores = case_logits(estimator, X[test])
        if not np.isfinite(scores).all():
            return float("nan"), time.perf_counter() - start, "some scores are not finite"
        return float(metric(positive[test], scores)), time.perf_counter() - start, ""
    except _FIT_ERRORS as error:
        lines = str(error).strip().splitlines() or [""]
        return float("nan"), time.perf_counter() - start, f"{type(error).__name__}: {lines[0]}"


def _note(trial: Trial, found: Sequence[tuple[float, float, str]], images: int) -> None:
    scores = [score for score, _, _ in found]
    trial.error = next((error for _, _, error in found if error), "")
    trial.score = float("nan") if trial.error else float(np.mean(scores))
    trial.spread = float("nan") if trial.error else float(np.std(scores))
    trial.seconds += sum(seconds for _, seconds, _ in found)
    trial.images = images


def _subset(
    positive: NDArray[np.bool_], groups: NDArray[Any] | None, cv: int, random_state: int
) -> list[Fold] | None:
    """Return folds over a third of the patients, or None where these are too few for so many folds."""
    patients = np.arange(len(positive)) if groups is None else groups
    fewest = min(len(np.unique(patients[positive == value])) for value in (False, True))
    if fewest < 2 * _FACTOR * cv:
        return None
    _, rows = patient_folds(positive, groups, _FACTOR, random_state)[0]
    part = patient_folds(positive[rows], None if groups is None else groups[rows], cv, random_state)
    return [(rows[train], rows[test]) for train, test in part]


def _size(space: Mapping[str, Any]) -> int:
    """Return how many settings a space of lists holds; with a distribution, more than anyone tries."""
    if any(hasattr(values, "rvs") for values in space.values()):
        return int(np.iinfo(np.int32).max)
    return int(np.prod([len(values) for values in space.values()]))
