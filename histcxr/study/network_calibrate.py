"""Thresholds of a saved network, certified anew on patients like those it will judge."""

from __future__ import annotations

import copy
from dataclasses import replace
from os import PathLike

import pandas as pd

from histcxr.data.manifest import read_manifest
from histcxr.decision.thresholds import certify
from histcxr.exceptions import InputError
from histcxr.store.model import ReferenceModel, sick_score
from histcxr.study.network_cohort import pixel_hashes
from histcxr.study.network_evaluate import only_split, unseen_images
from histcxr.study.network_train import ON_VAL

__all__ = ["calibrate_reference"]


def calibrate_reference(
    model: ReferenceModel,
    data: str | PathLike[str] | pd.DataFrame,
    *,
    views: int | None = None,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    split: str | None = "val",
    lungs: str | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> ReferenceModel:
    """Certify a network's thresholds anew, as :func:`histcxr.study.train.calibrate` does for histogram models.

    Parameters
    ----------
    model : ReferenceModel
    data : path or DataFrame
        Labelled radiographs. Images that the network was trained on, or that said when to stop, are left out, with
        their patients.
    views : int, optional
        How often an image is to be seen from now on; see
        :class:`~histcxr.reference.classifier.ReferenceClassifier`. None: as before.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    split : str or None
        The part of the data; None, or data that name no split: all of it.
    lungs, n_jobs, progress
        As in :func:`~histcxr.study.network_evaluate.evaluate_reference`.

    Returns
    -------
    ReferenceModel
        The same network with new thresholds. Its test figures are gone: they belonged to the old ones.

    Raises
    ------
    InputError
        No such part, one class only, or too few patients for any certificate (the message says how many).
    """
    classifier = copy.copy(model.classifier)
    if views is not None:
        classifier.set_params(views=views)
    used = replace(model, classifier=classifier)
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    part = only_split(manifest, split)
    settings = model.training.get("settings", {})
    fitted_on = ("train", "val") if settings.get("held_out") == ON_VAL else ("train",)
    images, left_out = unseen_images(
        used, part, parts=fitted_on, lungs=lungs, n_jobs=n_jobs, progress=progress
    )
    cohort = images.cohort
    cohort.require_both_classes("the calibration patients", model.normal)
    chosen = certify(
        sick_score(used.probabilities(images.pixels)),
        cohort.sick,
        cohort.patients,
        sensitivity=sensitivity,
        specificity=specificity,
        confidence=confidence,
    )
    if not chosen.rule_out.certified and not chosen.rule_in.certified:
        raise InputError(f"{chosen.rule_out.message}; {chosen.rule_in.message}")
    seen = dict(model.training.get("seen", {}))
    seen["val"] = sorted({*seen.get("val", ()), *pixel_hashes(images.pixels)})
    training = {
        **model.training,
        "settings": {**settings, "views": classifier.views},
        "seen": seen,
        "calibrated_on": {**cohort.describe(), "trained_on_and_left_out": left_out},
    }
    return replace(used, rule_out=chosen.rule_out, rule_in=chosen.rule_in, metrics={}, training=training)
