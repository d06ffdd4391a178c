"""Histogram models and reference networks on the same patients: scores row by row, and paired differences.

Imported by compare_cnn.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick
from histcxr.data.splits import patient_groups
from histcxr.decision.auc import auc, compare
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.exceptions import InputError
from histcxr.features.extraction import extract_features
from histcxr.reference.images import read_images
from histcxr.store import Model
from histcxr.store.model import ReferenceModel
from histcxr.study.cohort import image_hashes


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


def score_all(
    manifest: pd.DataFrame,
    histograms: Mapping[str, Model],
    references: Mapping[str, ReferenceModel],
    *,
    lungs: str = "given",
    normal: str = "Normal",
    cache: str | None = None,
) -> Scores:
    """Score the images that every model can score and none has seen.

    A patient of whom any model was trained or certified on any image is left out for all of them. Images that a
    histogram model would refuse for being unlike its training images are scored all the same.
    InputError: nothing is left.
    """
    patients = patient_groups(manifest)
    usable = np.ones(len(manifest), bool)
    seen: set[Any] = set()
    by_model: dict[str, NDArray[np.float64]] = {}
    for name, model in histograms.items():
        features = extract_features(manifest, model.recipe, lungs=lungs, cache=cache)
        usable &= features.usable
        by_model[name] = model.score(features.counts)
        seen |= _seen(model.training, image_hashes(features.counts), patients)
    read: dict[Any, Any] = {}
    for name, network in references.items():
        if network.inputs not in read:
            read[network.inputs] = read_images(manifest, network.inputs, lungs=lungs)
        images = read[network.inputs]
        usable &= images.usable
        by_model[name] = network.score(images.pixels)
        seen |= _seen(network.training, image_hashes(images.pixels), patients)
    fresh = np.array([patient not in seen for patient in patients], bool)
    keep = usable & fresh
    notes = []
    if not usable.all():
        notes.append(f"{int((~usable).sum())} images left out that not every model can read")
    if not fresh.all():
        notes.append(
            f"{int((~fresh).sum())} images left out whose patients a model was trained or certified on"
        )
    if not keep.any():
        raise InputError(f"data must hold images that no model has seen, got none of {len(manifest)}")
    table = manifest.loc[keep].reset_index(drop=True)
    return Scores(
        {name: scores[keep] for name, scores in by_model.items()},
        is_sick(table["label"], normal),
        patients[keep],
        table,
        notes,
    )


def figures(scores: Scores, name: str, *, sensitivity: float, draws: int) -> dict[str, Any]:
    """Return one model's AUC and its specificity at a sensitivity, with intervals over patients."""
    area = auc(scores.by_model[name], scores.sick, patient_ids=scores.patients)
    point = specificity_at_sensitivity(
        scores.by_model[name], scores.sick, sensitivity=sensitivity, patient_ids=scores.patients, draws=draws
    )
    calls = scores.by_model[name] >= 0.5
    return {
        "auc": area.to_dict(),
        "specificity": point.specificity.to_dict(),
        "accuracy": float((calls == scores.sick).mean()),
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


def _seen(training: Mapping[str, Any], own: list[str], patients: NDArray[np.object_]) -> set[Any]:
    """Return the patients of images that a model was trained or certified on."""
    seen = training.get("seen", {})
    known = {*seen.get("train", ()), *seen.get("val", ())}
    return {patient for patient, code in zip(patients, own, strict=True) if code in known}
