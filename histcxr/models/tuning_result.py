"""What a search for settings gives, whichever way it searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from histcxr.data.splits import patient_folds
from histcxr.models.search import Trial

__all__ = ["SCORINGS", "TuningResult", "fit_and_cross_validate", "trials_table"]

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
        The settings that differ from the registry's: what was given as ``defaults`` and what the search chose.
        For the stack by member, as ``MEMBER__PARAMETER``.
    score : float
        The cross-validated score of these settings. Chosen as the highest of several, so a little too high.
    trials : DataFrame
        One row a trial: ``classifier, trial`` (0: the defaults), ``status`` ("ok" or "failed"), ``error``
        (what went wrong), ``score, score_std`` (mean and spread over the folds), ``images`` (how many the
        score rests on: fewer where halving stopped a trial early), ``seconds``, then one column for each
        parameter. A LeNet's trials are judged on one held-out part, so ``score_std`` is missing.
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


def trials_table(name: str, trials: Sequence[Trial], columns: Sequence[str]) -> pd.DataFrame:
    """Return one row a trial, with a column for each parameter in ``columns``."""
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


def fit_and_cross_validate(
    estimator: Pipeline,
    counts: NDArray[Any],
    target: NDArray[Any],
    patients: NDArray[Any] | None,
    metric: Callable[[Any, Any], float],
    random_state: int,
) -> tuple[float, float]:
    """Fit a pipeline whose last step makes its own folds; return mean and spread of its score over them."""
    *before, (_, classifier) = estimator.steps
    features = Pipeline(before).fit_transform(counts) if before else counts
    scores = classifier.fit_out_of_fold(features, target, patients)
    positive = target == np.unique(target)[1]
    folds = patient_folds(positive, patients, classifier.cv, random_state)
    by_fold = [float(metric(positive[test], scores[test])) for _, test in folds]
    return float(np.mean(by_fold)), float(np.std(by_fold))
