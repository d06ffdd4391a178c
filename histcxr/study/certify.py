"""What a model promises, certified on patients like those it will judge."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import Certificates, certify
from histcxr.exceptions import InputError
from histcxr.store import Model
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import (
    Cohort,
    Data,
    Reading,
    image_hashes,
    labelled_manifest,
    only_split,
    unseen_cohort,
)

#: Value of a network's ``held_out``: the validation part itself says when to stop, and can then certify nothing.
ON_VAL: Final = "val"


@dataclass(frozen=True)
class Promise:
    """What rule_out and rule_in promise.

    Parameters
    ----------
    sensitivity, specificity, confidence : float in (0, 1)
    """

    sensitivity: float = 0.95
    specificity: float = 0.95
    confidence: float = 0.95

    def certify(self, scores: NDArray[np.float64], cohort: Cohort) -> Certificates:
        """Return both thresholds, as the scores (n,) of a cohort certify them or not."""
        return certify(scores, cohort.sick, cohort.patients, **asdict(self))


def calibrate(
    model: SavedModel,
    data: Data,
    *,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    split: str | None = None,
    views: int | None = None,
    lungs: str = "either",
    normal: str | None = None,
    cache: Any = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> SavedModel:
    """Certify a model's thresholds anew, on patients like those it will judge.

    Parameters
    ----------
    model : Model or ReferenceModel
    data : path or DataFrame
        Labelled radiographs. Images that the model was trained on are left out, with their patients.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    split : str, optional
        The part of the data; "all": all of it. By default ``val`` where the data name one, otherwise all.
    views : int, optional
        Networks only: how often an image is to be seen from now on; see
        :class:`~histcxr.reference.classifier.ReferenceClassifier`. None: as before.
    lungs, normal, cache, n_jobs, progress
        As in :func:`histcxr.evaluate`.

    Returns
    -------
    Model or ReferenceModel
        The same with new thresholds. Its test figures are gone: they belonged to the old ones.

    Raises
    ------
    InputError
        No such part, nobody that the model has not seen, one class only, too few patients for any certificate (the
        message says how many), or views of a histogram model.
    """
    training = dict(model.training)
    if views is not None:
        if isinstance(model, Model):
            raise InputError(f"views are for networks; {model.name} counts each image once")
        classifier = copy.copy(model.classifier)
        classifier.set_params(views=views)
        model = replace(model, classifier=classifier)
        training["settings"] = {**training.get("settings", {}), "views": views}
    reading = Reading(lungs, normal, cache, n_jobs, progress)
    manifest = labelled_manifest(data)
    if split is None:
        split = "val" if (manifest["split"].astype(str) == "val").any() else "all"
    on_val = training.get("settings", {}).get("held_out") == ON_VAL
    fitted_on = ("train", "val") if on_val else ("train",)
    cohort, left_out = unseen_cohort(model, only_split(manifest, split), reading, fitted_on)
    cohort.require_both_classes(f"the calibration patients (split {split})")
    promise = Promise(sensitivity, specificity, confidence)
    chosen = promise.certify(model.score(cohort.values), cohort)
    if not chosen.rule_out.certified and not chosen.rule_in.certified:
        raise InputError(f"{chosen.rule_out.message}; {chosen.rule_in.message}")
    training["val"] = {
        **cohort.describe(),
        "trained_on_and_left_out": left_out,
        "fingerprint": cohort.fingerprint(),
    }
    seen = training.get("seen", {})
    training["seen"] = {**seen, "val": sorted({*seen.get("val", ()), *image_hashes(cohort.values)})}
    return replace(model, rule_out=chosen.rule_out, rule_in=chosen.rule_in, metrics={}, training=training)
