"""A LeNet as the registry builds it, tuned with Keras Tuner, cross-validated and fitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from histcxr.models.keras_tuning import tune_lenet
from histcxr.models.search import Trial
from histcxr.models.tuning_result import TuningResult, fit_and_cross_validate, trials_table

__all__ = ["tuned_lenet"]


def tuned_lenet(
    estimator: Pipeline,
    counts: NDArray[Any],
    target: NDArray[Any],
    patients: NDArray[Any] | None,
    start: float,
    space: Callable[[Any], dict[str, Any]],
    defaults: dict[str, Any],
    how: dict[str, Any],
    folder: Path | None,
    metric: Callable[[Any, Any], float],
    random_state: int,
    refit: bool,
) -> TuningResult:
    """Search with Keras Tuner on one held-out part, then cross-validate and fit the best.

    Parameters
    ----------
    estimator : Pipeline
        From the registry, with the defaults that compete.
    counts, target, patients : ndarray
    start : float
        When tuning began, in seconds of :func:`time.monotonic`.
    space : callable
    defaults : dict
        What already differs from the registry.
    how : dict
        ``n_trials, method, seconds`` of :func:`~histcxr.models.keras_tuning.tune_lenet`.
    folder : Path or None
    metric : callable
        ``metric(is_positive, scores)``; higher is better.
    random_state : int
    refit : bool
        Whether to give the fitted pipeline back, or one that is not fitted.

    Returns
    -------
    TuningResult
    """
    best: dict[str, Any] = {}
    table = pd.DataFrame()
    if how["n_trials"]:
        found = tune_lenet(
            counts,
            target,
            groups=patients,
            estimator=estimator["classifier"].estimator,
            space=space,
            directory=folder,
            random_state=random_state,
            **how,
        )
        best = {f"classifier__estimator__{key}": value for key, value in found.best_params.items()}
        table = _lenet_table(found.table, found.n_judged)
    fitted = clone(estimator.set_params(**best))
    score, spread = fit_and_cross_validate(fitted, counts, target, patients, metric, random_state)
    seconds = time.monotonic() - start
    if not how["n_trials"]:
        table = trials_table("lenet", [Trial(0, {}, score, spread, len(target), seconds)], [])
    return TuningResult(
        name="lenet",
        estimator=fitted if refit else estimator,
        parameters={**defaults, **best},
        score=score,
        trials=table,
        not_tried=how["n_trials"] + 1 - len(table),
        seconds=seconds,
    )


def _lenet_table(trials: pd.DataFrame, n_judged: int) -> pd.DataFrame:
    """Bring Keras Tuner's table into the order of the others."""
    table = trials.assign(classifier="lenet", score_std=float("nan"), images=n_judged)
    first = ["classifier", "trial", "status", "error", "score", "score_std", "images", "seconds"]
    return table[[*first, *(name for name in table if name not in first)]]
