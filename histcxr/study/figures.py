"""Figures of scores whose truth is known: with intervals, among the judged and among all, within groups, by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from histcxr.data.manifest import is_sick
from histcxr.decision.auc import areas, auc
from histcxr.decision.curves import (
    expected_calibration_error,
    recalibration,
    specificity_at_sensitivity,
)
from histcxr.decision.drawers import confusion, evaluate_decisions
from histcxr.decision.intervals import patient_bootstrap
from histcxr.decision.thresholds import REVIEW, RULE_OUT, ThresholdChoice, decide
from histcxr.exceptions import InputError
from histcxr.study.cohort import Cohort, groups_of

#: An AUC of fewer patients than this of either class is noise.
MIN_CLASS: Final = 10

#: Columns that may tell sick from normal without any disease: looked at unasked.
SUSPECTS: Final = ("view", "source", "age_group")

#: How far the mean AUC within groups must lie under that over all patients to be said.
_NOTABLE: Final = 0.02

_DRAWS: Final = 400

#: Points of a ROC curve that are kept: more than a plot can show.
_POINTS: Final = 200


def measure(
    scores: NDArray[np.float64],
    cohort: Cohort,
    rule_out: ThresholdChoice,
    rule_in: ThresholdChoice,
    *,
    drawers: NDArray[np.str_] | None = None,
    prevalence: float | None = None,
    rest: Cohort | None = None,
) -> dict[str, Any]:
    """Return all figures of the scores (n,) of a cohort's images, ready for JSON.

    ``drawers`` (n,) are the images', where groups have thresholds of their own; by default as the two thresholds say.
    ``prevalence`` is the share of sick patients where NPV and PPV should hold; by default as in the cohort. ``rest``
    are the images that could not be judged.

    The figures: ``accuracy`` (calls at 0.5, by image), ``auc`` with ``auc_low`` and ``auc_high`` (95 % interval that
    knows patients; None with fewer than 10 sick or normal ones), ``sensitivity`` and ``specificity`` at the rule-out
    threshold (by patient), ``specificity_at_95`` (by image, where these images reach 95 % sensitivity, with its
    interval; to compare models, it promises nothing), ``confusion`` at 0.5, ``confusion_at_rule_out`` (by image, sick
    from the certified threshold on; None without one), ``brier``, ``calibration_error``, ``calibration`` as
    :func:`~histcxr.decision.curves.recalibration` says (None with fewer than 10 of a class), ``decisions`` with every
    figure of the drawers and its interval, the ``prevalence`` at which NPV and PPV hold, and what the promises are
    worth ``among_judged`` and ``among_all``, as :func:`among` counts (the latter None without ``rest``).
    """
    sick, area, point = cohort.sick, None, None
    if enough(cohort):
        area = auc(scores, sick, patient_ids=cohort.patients)
        found = specificity_at_sensitivity(scores, sick, sensitivity=0.95, patient_ids=cohort.patients)
        point = {name: getattr(found.specificity, name) for name in ("value", "low", "high")}
    if drawers is None:
        drawers = decide(scores, rule_out, rule_in)
    decisions = evaluate_decisions(
        scores, sick, cohort.patients, rule_out, rule_in, drawers=drawers, prevalence=prevalence
    )
    called = confusion(drawers != RULE_OUT, sick).to_dict() if rule_out.certified else None
    return {
        "images": len(cohort),
        "sick": int(sick.sum()),
        "accuracy": float(np.mean((scores >= 0.5) == sick)),
        "auc": area.value if area else None,
        "auc_low": area.low if area else None,
        "auc_high": area.high if area else None,
        "sensitivity": decisions.sensitivity.value if decisions.sensitivity else None,
        "specificity": decisions.specificity.value if decisions.specificity else None,
        "specificity_at_95": point,
        "confusion": confusion(scores >= 0.5, sick).to_dict(),
        "confusion_at_rule_out": called,
        "brier": float(brier_score_loss(sick, scores)),
        "calibration_error": expected_calibration_error(scores, sick),
        "calibration": recalibration(scores, sick) if enough(cohort) else None,
        "decisions": decisions.to_dict(),
        "prevalence": decisions.n_sick / decisions.n_patients if prevalence is None else prevalence,
        "among_judged": among(cohort, drawers),
        "among_all": None if rest is None else among(cohort, drawers, rest),
    }


def enough(cohort: Cohort) -> bool:
    """Tell whether an AUC says anything: 10 patients with a sick and 10 with a normal image, however many images."""
    return min(len(set(cohort.patients[one])) for one in (cohort.sick, ~cohort.sick)) >= MIN_CLASS


def among(cohort: Cohort, drawers: NDArray[np.str_], rest: Cohort | None = None) -> dict[str, Any]:
    """Return what the promises are worth among the patients of a cohort with these drawers (n,), ready for JSON.

    Images of ``rest`` could not be judged: they count as triage has them, in review. ``sensitivity`` is the share of
    the sick who are not ruled out, ``specificity`` that of the normal who are, ``rule_in_specificity`` that of the
    normal who are not ruled in, each with its interval (None: nobody to count); ``images``; ``patients``, ``sick`` and
    ``normal`` count patients.
    """
    sick, patients = cohort.sick, cohort.patients
    if rest is not None:
        sick, patients = np.append(sick, rest.sick), np.append(patients, rest.patients)
        drawers = np.append(drawers, np.full(len(rest), REVIEW))
    found = evaluate_decisions(
        np.zeros(len(sick)), sick, patients, -np.inf, np.inf, drawers=drawers
    ).to_dict()
    counts = {"images": "n_images", "patients": "n_patients", "sick": "n_sick", "normal": "n_normal"}
    return {
        **{name: found[kept] for name, kept in counts.items()},
        **{name: found[name] for name in ("sensitivity", "specificity", "rule_in_specificity")},
    }


def within_groups(
    scores: NDArray[np.float64], cohort: Cohort, columns: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return by column what is left of the AUC of scores (n,) within the groups of the column, ready for JSON.

    Where the sick are mostly of one view (source, age) and the normal of another, the AUC over all patients also
    counts how well the scores tell the view. Within a view it cannot. Each column that is known and has several values
    (unknown is one, too) has ``groups``: value to ``auc, auc_low, auc_high, images, sick``, of groups with 10 sick and
    10 normal patients; ``auc``: their mean, weighted by the pairs of a sick and a normal image in each; ``overall``:
    the AUC over all images whose group is known; ``loss``: by how much ``auc`` lies under it; ``loss_low``: the lower
    end of its 95 % interval, a bootstrap of patients (None where the loss is small); and a ``verdict``:

    - ``"part"``: the loss is more than 0.02, and not by chance: part of the AUC is the column, not the disease;
    - ``"unknown"``: no group has 10 of both, so nobody can tell, and the other figures are None;
    - ``"none"``: neither.

    Empty where the AUC over all does not exist.
    """
    found: dict[str, dict[str, Any]] = {}
    if not enough(cohort):
        return found
    for column in columns:
        names = groups_of(cohort.table, column)
        known = names != ""
        if len(set(names)) < 2:
            continue
        groups: dict[str, dict[str, Any]] = {}
        for value in sorted(set(names[known])):
            part = cohort.part(names == value)
            if enough(part):
                area = auc(scores[names == value], part.sick, patient_ids=part.patients)
                limits = {"auc": area.value, "auc_low": area.low, "auc_high": area.high}
                groups[value] = {**limits, "images": len(part), "sick": int(part.sick.sum())}
        if not groups:
            nothing = dict.fromkeys(("auc", "overall", "loss", "loss_low"))
            found[column] = {"groups": groups, **nothing, "verdict": "unknown"}
            continue
        loss, low = partial(_loss, kept=tuple(groups)), None
        arrays, sick = (scores[known], names[known], cohort.sick[known]), cohort.sick[known]
        missing, overall = loss(*arrays), float(areas(scores[known], sick))
        if missing > _NOTABLE:
            ids = cohort.patients[known]
            low = patient_bootstrap(loss, *arrays, sick=sick, patient_ids=ids, draws=_DRAWS).low
        found[column] = {
            "groups": groups,
            "auc": overall - missing,
            "overall": overall,
            "loss": missing,
            "loss_low": low,
            "verdict": "part" if low is not None and low > 0 else "none",
        }
    return found


def _loss(
    scores: NDArray[np.float64], names: NDArray[np.object_], sick: NDArray[np.bool_], kept: Sequence[str]
) -> float:
    """Return how far the mean AUC within the groups ``kept`` lies under that over all: what the groups add to it."""
    each, pairs = [], []
    for own in (names == value for value in kept):
        n_sick = int(sick[own].sum())
        if 0 < n_sick < own.sum():
            each.append(areas(scores[own], sick[own]))
            pairs.append(n_sick * (own.sum() - n_sick))
    if not pairs:
        return 0.0  # a draw of patients without a pair in any group tells nothing
    return float(areas(scores, sick) - np.average(each, weights=pairs))


def class_numbers(labels: pd.Series[Any], classes: Sequence[str], normal: str) -> NDArray[np.int64]:
    """Turn labels into the numbers of a network's classes, of which the first is normal.

    InputError: a network of several classes does not know a label.
    """
    sick = is_sick(labels, normal)
    if len(classes) == 2:
        return sick.astype(np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    names = labels.astype(str).str.strip().where(sick, classes[0])
    unknown = sorted(set(names) - set(numbers))
    if unknown:
        raise InputError(
            f"label must be one of the network's classes {', '.join(classes)}; got also {', '.join(unknown)}"
        )
    return np.array([numbers[name] for name in names], np.int64)


def class_figures(
    targets: NDArray[np.integer], probabilities: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """Count calls of the most probable of k classes: targets are numbers (n,), probabilities (n, k).

    Ready for JSON: ``names``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes there are),
    ``macro_f1``, ``loss`` (mean negative log likelihood), ``matrix`` (rows: truth, columns: calls), ``classes`` (per
    class ``images, precision, recall, f1, auc``, the last against the rest, None where it does not exist) and ``roc``
    (per class ``fpr`` and ``tpr``; of two classes the second one alone). A precision without any call is 0.
    """
    numbers = np.arange(len(names))
    calls = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, calls, labels=numbers, zero_division=0
    )
    there = np.unique(targets)
    counted = {"images": support, "precision": precision, "recall": recall, "f1": f1}
    classes: list[dict[str, Any]] = []
    curves = {}
    for number, name in enumerate(names):
        own = targets == number
        defined = 0 < own.sum() < len(own)
        area = float(roc_auc_score(own, probabilities[:, number])) if defined else None
        figures = {key: values[number].item() for key, values in counted.items()}
        classes.append({"class": name, **figures, "auc": area})
        if defined and (len(names) > 2 or number == 1):
            fpr, tpr, _ = roc_curve(own, probabilities[:, number])
            kept = np.unique(np.linspace(0, len(fpr) - 1, min(_POINTS, len(fpr))).round().astype(int))
            curves[name] = {"fpr": np.round(fpr[kept], 5).tolist(), "tpr": np.round(tpr[kept], 5).tolist()}
    return {
        "names": list(names),
        "accuracy": float(np.mean(calls == targets)),
        "balanced_accuracy": float(np.mean(recall[there])),
        "macro_f1": float(np.mean(f1[there])),
        "loss": float(log_loss(targets, probabilities, labels=numbers)),
        "matrix": confusion_matrix(targets, calls, labels=numbers).tolist(),
        "classes": classes,
        "roc": curves,
    }
