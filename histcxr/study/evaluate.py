"""What a model is worth on patients whose truth is known: figures with intervals, as a whole and by group."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import read_manifest
from histcxr.decision.auc import auc
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.decision.drawers import confusion, evaluate_decisions
from histcxr.decision.reliability import brier_score, expected_calibration_error
from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import InputError, Reason
from histcxr.store import Model
from histcxr.study.cohort import Cohort, leave_out, read_cohort

# An AUC of fewer patients than this of either class is noise.
MIN_CLASS = 10


def measure(
    scores: NDArray[np.float64],
    cohort: Cohort,
    rule_out: ThresholdChoice,
    rule_in: ThresholdChoice,
    *,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Return all figures of one set of scores, ready for JSON.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        One for each image of ``cohort``.
    cohort : Cohort
    rule_out, rule_in : ThresholdChoice
    prevalence : float, optional
        Share of sick patients where NPV and PPV should hold; by default as in the cohort.

    Returns
    -------
    dict
        ``accuracy`` (calls at 0.5, by image), ``auc`` with ``auc_low`` and ``auc_high`` (95 % interval that
        knows patients; None with fewer than 10 sick or normal images), ``sensitivity`` and ``specificity`` at
        the rule-out threshold (by patient), ``specificity_at_95`` (by image, where these images reach 95 %
        sensitivity, with its interval; to compare models, it promises nothing), ``confusion`` at 0.5,
        ``confusion_at_rule_out`` (by image, sick from the certified threshold on; None without one), ``brier``,
        ``calibration_error``, and ``decisions`` with every figure of the drawers and its interval.
    """
    sick = cohort.sick
    enough = min(int(sick.sum()), int((~sick).sum())) >= MIN_CLASS
    area = auc(scores, sick, patient_ids=cohort.patients) if enough else None
    point = (
        specificity_at_sensitivity(scores, sick, sensitivity=0.95, patient_ids=cohort.patients)
        if enough
        else None
    )
    decisions = evaluate_decisions(scores, sick, cohort.patients, rule_out, rule_in, prevalence=prevalence)
    return {
        "images": len(cohort),
        "sick": int(sick.sum()),
        "accuracy": float(np.mean((scores >= 0.5) == sick)),
        "auc": area.value if area else None,
        "auc_low": area.low if area else None,
        "auc_high": area.high if area else None,
        "sensitivity": decisions.sensitivity.value if decisions.sensitivity else None,
        "specificity": decisions.specificity.value if decisions.specificity else None,
        "specificity_at_95": {
            "value": point.specificity.value,
            "low": point.specificity.low,
            "high": point.specificity.high,
        }
        if point
        else None,
        "confusion": confusion(scores >= 0.5, sick).to_dict(),
        "confusion_at_rule_out": confusion(scores >= rule_out.threshold, sick).to_dict()
        if rule_out.certified
        else None,
        "brier": brier_score(scores, sick),
        "calibration_error": expected_calibration_error(scores, sick),
        "decisions": decisions.to_dict(),
    }


def evaluate(
    model: Model,
    data: str | PathLike[str] | pd.DataFrame,
    *,
    split: str | None = "test",
    by: Sequence[str] = (),
    prevalence: float | None = None,
    lungs: str = "either",
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on labelled radiographs that it has not seen.

    Parameters
    ----------
    model : Model
    data : path or DataFrame
        A folder, a CSV, or a manifest. Images that trained the model or certified its thresholds are left
        out, with their patients.
    split : str or None
        The part of the data; None, or data that names no split: all of it.
    by : sequence of str
        Manifest columns: measure also within each of their values.
    prevalence : float, optional
        Share of sick patients where NPV and PPV should hold.
    lungs : {"either", "given", "found"}
        Whose lung masks; ``"either"`` does what triage does: the network's where none is given.
    normal, cache, n_jobs, progress
        As in :func:`histcxr.train`.

    Returns
    -------
    dict
        ``overall`` and ``groups[COLUMN][VALUE]`` as :func:`measure` gives them, ``unusable`` (images that
        could not be judged, by reason: in a triage they go to review), ``refused`` (their share), ``seen`` (images
        left out),
        ``model``, ``split`` and ``thresholds``; ready for JSON.

    Raises
    ------
    InputError
        No such part or column, or nothing left to measure on.
    """
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    named = manifest["split"].astype(str)
    if split is not None and (named != "").any():
        manifest = manifest.loc[(named == split).to_numpy()].reset_index(drop=True)
        if not len(manifest):
            raise InputError(f"data must hold radiographs of split {split!r}, got {sorted(set(named))}")
    cohort = read_cohort(
        manifest,
        recipe=model.recipe,
        lungs=lungs,
        normal=normal,
        cache=cache,
        n_jobs=n_jobs,
        progress=progress,
    )
    seen = model.training.get("seen", {})
    cohort, left_out = leave_out(cohort, [*seen.get("train", ()), *seen.get("val", ())])
    if not len(cohort):
        raise InputError(
            f"data must hold radiographs of split {split!r} that the model has not seen, got none "
            f"({left_out} were left out because it has)"
        )
    strange = model.unfamiliar(cohort.counts)
    unusable = dict(cohort.unusable)
    if strange.any():
        unusable[Reason.UNLIKE_TRAINING.value] = int(strange.sum())
        cohort = cohort.part(~strange)
        if not len(cohort):
            raise InputError(
                f"not one of {len(strange)} images has lungs like those that the model was trained on"
            )
    unknown = [column for column in by if column not in cohort.table]
    if unknown:
        raise InputError(
            f"by must name columns of the data, got {unknown}; it has {', '.join(cohort.table.columns)}"
        )
    scores = model.score(cohort.counts)

    def figures(keep: NDArray[np.bool_]) -> dict[str, Any]:
        return measure(scores[keep], cohort.part(keep), model.rule_out, model.rule_in, prevalence=prevalence)

    groups = {
        column: {
            str(value): figures((cohort.table[column] == value).to_numpy())
            for value in sorted(cohort.table[column].unique(), key=str)
        }
        for column in by
    }
    return {
        "model": {"name": model.name, "hash": model.hash},
        "split": split or "all",
        "overall": figures(np.ones(len(cohort), dtype=bool)),
        "groups": groups,
        "unusable": unusable,
        "refused": sum(unusable.values()) / (sum(unusable.values()) + len(cohort)),
        "seen": left_out,
        "thresholds": {"rule_out": model.rule_out.to_dict(), "rule_in": model.rule_in.to_dict()},
    }
