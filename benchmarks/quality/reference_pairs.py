"""Histogram models and reference networks on the same patients: scores row by row, paired differences, stacks of both.

Imported by compare_cnn.py and where_it_looks.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from histcxr.decision.auc import auc, compare
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.exceptions import InputError
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import Cohort, Reading, read_cohort
from histcxr.study.seen import fitted_on, leave_out_seen

# A network's float32 reaches 0 and 1.
EDGE = 1e-4


@dataclass(frozen=True)
class Scores:
    """What each model says of the same images.

    Attributes
    ----------
    by_model : dict of str to ndarray of float, shape (n,)
    sick : ndarray of bool, shape (n,)
    patients : ndarray of object, shape (n,)
    table : DataFrame, n rows
    notes : list of str
        What was left out.
    """

    by_model: dict[str, NDArray[np.float64]]
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]
    table: pd.DataFrame
    notes: list[str]

    def stacked(self, name: str, first: str, then: str, weights: LogisticRegression) -> Scores:
        """Return the same with the scores of a stack of two of the models added."""
        both = np.column_stack([self.by_model[first], self.by_model[then]])
        found = weights.predict_proba(logits(both))[:, 1]
        return replace(self, by_model={**self.by_model, name: found})


def score_all(
    manifest: pd.DataFrame, models: Mapping[str, SavedModel], reading: Reading, *, certified: bool = True
) -> Scores:
    """Score the images that every model can score and none has seen.

    A patient of whom any model was trained or, where ``certified``, certified on any image is left out for all of them.
    Images that a histogram model would refuse for being unlike its training images are scored all the same.
    InputError: nothing is left.
    """
    by_model: dict[str, pd.Series] = {}
    unread = seen = 0
    one: Cohort | None = None
    for name, model in models.items():
        one = read_cohort(manifest, model, reading)
        unread = max(unread, sum(one.unusable.values()))
        parts = ("train", "val") if certified else fitted_on(model)
        one, left = leave_out_seen(one, model, parts)
        seen = max(seen, left["images"])
        by_model[name] = pd.Series(model.score(one.values), one.table.index)
    if one is None:
        raise InputError("models must be one or more, got none")
    together = pd.DataFrame(by_model).dropna().index
    if together.empty:
        raise InputError(f"data must hold images that no model has seen, got none of {len(manifest)}")
    last = one.part(one.table.index.isin(together))
    notes = [f"up to {unread} images left out that a model cannot read"] if unread else []
    if seen:
        notes.append(f"up to {seen} images left out whose patients a model was trained or certified on")
    scores = {name: values.loc[last.table.index].to_numpy() for name, values in by_model.items()}
    return Scores(scores, last.sick, last.patients, last.table.reset_index(drop=True), notes)


def logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a stack sees of scores in [0, 1], squeezed so that none is infinite and the order stays."""
    return np.asarray(logit(EDGE + (1 - 2 * EDGE) * scores))


def stack(scores: NDArray[np.float64], sick: NDArray[np.bool_]) -> LogisticRegression:
    """Weigh scores (n, models) in [0, 1] of images that none of the models has learnt from; nothing is chosen."""
    return LogisticRegression(C=1e3).fit(logits(scores), sick)


def figures(scores: Scores, name: str, *, sensitivity: float, draws: int) -> dict[str, Any]:
    """Return one model's AUC and its specificity at a sensitivity, with intervals over patients."""
    own = scores.by_model[name]
    area = auc(own, scores.sick, patient_ids=scores.patients)
    point = specificity_at_sensitivity(
        own, scores.sick, sensitivity=sensitivity, patient_ids=scores.patients, draws=draws
    )
    return {
        "auc": area.to_dict(),
        "specificity": point.specificity.to_dict(),
        "accuracy": float(((own >= 0.5) == scores.sick).mean()),
    }


def paired_difference(
    scores: Scores, name: str, other: str, *, sensitivity: float, draws: int
) -> dict[str, Any]:
    """Return how much better one model is than another on the same patients.

    Returns
    -------
    dict
        ``specificity`` and ``auc``, each a comparison (``first``, ``second``, ``difference`` with its paired interval,
        ``p_value``): bootstrap over patients, in each draw of which both models reach the sensitivity anew, and
        DeLong.
    """
    pair = scores.by_model[name], scores.by_model[other]
    found = compare(*pair, scores.sick, scores.patients, sensitivity=sensitivity, draws=draws).to_dict()
    return {"model": name, "minus": other, "specificity": found["specificity"], "auc": found["auc"]}


def judged(
    scores: Scores, pairs: Sequence[tuple[str, str]], *, sensitivity: float, draws: int
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return every model's figures and the paired differences asked for."""
    how: dict[str, Any] = {"sensitivity": sensitivity, "draws": draws}
    own = {name: figures(scores, name, **how) for name in scores.by_model}
    return own, [paired_difference(scores, *pair, **how) for pair in pairs]
