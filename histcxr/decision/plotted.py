"""Curves over thresholds and prevalences, ready for JSON and for plots."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from histcxr.checks import BoolArray, FloatArray, open_unit, scores_and_sick
from histcxr.decision.auc import auc
from histcxr.decision.curves import checked_probabilities
from histcxr.decision.drawers import confusion
from histcxr.decision.intervals import draw_statistic
from histcxr.exceptions import InputError

# Where curves are told, from 0 to 1.
_GRID: Final = np.linspace(0, 1, 101)
_DRAWS: Final = 300  # of patients, for the band of a ROC curve


def roc(
    scores: ArrayLike, sick: ArrayLike, *, patient_ids: ArrayLike | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return the ROC curve of scores (n,), by image, ready for JSON; InputError: as :func:`~histcxr.decision.auc.auc`.

    ``tpr`` (sensitivity) at ``fpr`` (1 - specificity) for ``thresholds``, from strict to lenient, of which the first,
    infinity, is left out; ``low`` and ``high``, the ends of the sensitivity's 95 % interval at each 1 - specificity of
    the ``grid`` (pointwise, patient bootstrap); ``auc``, ``auc_low`` and ``auc_high``.
    """
    from sklearn.metrics import roc_curve

    values, truth = scores_and_sick(scores, sick)
    fpr, tpr, thresholds = roc_curve(truth, values)
    area = auc(values, truth, patient_ids=patient_ids)

    def at_grid(drawn: FloatArray, labels: BoolArray) -> tuple[float, ...]:
        x, y, _ = roc_curve(labels, drawn)
        return tuple(np.interp(_GRID, x, y).tolist())

    drawn = draw_statistic(at_grid, [values, truth], truth, patient_ids, draws=_DRAWS, seed=seed)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    lists = {"fpr": fpr, "tpr": tpr, "thresholds": thresholds[1:], "grid": _GRID, "low": low, "high": high}
    limits = {"auc": area.value, "auc_low": area.low, "auc_high": area.high}
    return {**{name: values.tolist() for name, values in lists.items()}, **limits}


def score_spread(scores: ArrayLike, sick: ArrayLike) -> dict[str, Any]:
    """Count scores in [0, 1], shape (n,), in 40 bins: ``edges``, and images of the ``normal`` and the ``sick``."""
    values, truth = checked_probabilities(scores, sick)
    edges = np.linspace(0, 1, 41)
    counts = {
        name: np.histogram(values[truth == own], edges)[0] for name, own in (("normal", 0), ("sick", 1))
    }
    return {"edges": edges.round(6).tolist(), **{name: count.tolist() for name, count in counts.items()}}


def decision_curve(scores: ArrayLike, sick: ArrayLike, *, prevalence: float | None = None) -> dict[str, Any]:
    """Return net benefits over the threshold probability (Vickers and Elkin, Medical Decision Making 26, 2006).

    Whoever works up a patient from a probability t on holds a false alarm for t / (1 - t) of a missed patient. ``at``
    are such t; ``model``, ``treat_all`` the net benefit, in true positives a patient, of the scores (n,) and of working
    everybody up, at a ``prevalence`` (by default as in the data). Ready for JSON.
    """
    values, truth = scores_and_sick(scores, sick)
    share = float(truth.mean()) if prevalence is None else open_unit(prevalence, "prevalence")
    at = _GRID[1:-1]
    called = np.sort(values[truth]), np.sort(values[~truth])
    caught, alarms = (1 - one.searchsorted(at) / one.size for one in called)
    odds = at / (1 - at)
    return {
        "at": at.round(6).tolist(),
        "model": (caught * share - alarms * (1 - share) * odds).tolist(),
        "treat_all": (share - (1 - share) * odds).tolist(),
        "prevalence": share,
    }


def predictive_values(positive: ArrayLike, sick: ArrayLike, *, kind: str = "npv") -> dict[str, Any]:
    """Return the NPV or PPV (``kind``) of calls, bool (n,), over the ``prevalence``, with its 95 % interval.

    ``value, low, high`` as :meth:`histcxr.decision.drawers.Confusion.npv` gives them at each; ``here``: the data's own
    share of sick. Ready for JSON. InputError: another kind, a missing class, or nobody who is called so.
    """
    if kind not in ("npv", "ppv"):
        raise InputError(f"kind must be npv or ppv, got {kind!r}")
    counts = confusion(positive, sick)
    found = [getattr(counts, kind)(float(share)) for share in _GRID[1:-1]]
    return {
        "kind": kind,
        "prevalence": _GRID[1:-1].round(6).tolist(),
        **{name: [getattr(one, name) for one in found] for name in ("value", "low", "high")},
        "here": (counts.tp + counts.fn) / (counts.tp + counts.fn + counts.tn + counts.fp),
    }
