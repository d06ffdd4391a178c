"""What a saved network is worth on patients whose truth is known, as a whole and by group."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.store.model import ReferenceModel, sick_score
from histcxr.study.class_figures import class_figures, class_numbers
from histcxr.study.evaluate import measure
from histcxr.study.network_cohort import StudyImages, read_study

__all__ = ["evaluate_reference", "only_split", "unseen_images"]


def evaluate_reference(
    model: ReferenceModel,
    data: str | PathLike[str] | pd.DataFrame,
    *,
    split: str | None = "test",
    by: Sequence[str] = (),
    prevalence: float | None = None,
    lungs: str | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a network on labelled radiographs that it has not seen.

    Parameters
    ----------
    model : ReferenceModel
    data : path or DataFrame
        Images that the network was trained or certified on are left out, with their patients.
    split : str or None
        The part of the data; None, or data that name no split: all of it.
    by : sequence of str
        Manifest columns: measure also within each of their values.
    prevalence : float, optional
        Share of sick patients where PPV and NPV should hold.
    lungs : {"given", "found", "either"}, optional
        Whose lung masks; by default as it was trained.
    n_jobs, progress
        As in :func:`~histcxr.study.network_train.train_reference`.

    Returns
    -------
    dict
        As :func:`histcxr.study.evaluate.evaluate` gives it, and in each group ``classes`` as
        :func:`~histcxr.study.class_figures.class_figures`.

    Raises
    ------
    InputError
        No such part or column, a label that the network does not know, or nothing left to measure on.
    """
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    images, left_out = unseen_images(
        model, only_split(manifest, split), lungs=lungs, n_jobs=n_jobs, progress=progress
    )
    table = images.cohort.table
    unknown = [column for column in by if column not in table]
    if unknown:
        raise InputError(
            f"by must name columns of the data, got {unknown}; it has {', '.join(table.columns)}"
        )
    probabilities = model.probabilities(images.pixels)
    targets = class_numbers(table["label"], model.classes, model.normal)

    def figures(keep: NDArray[np.bool_]) -> dict[str, Any]:
        found = measure(
            sick_score(probabilities[keep]),
            images.cohort.part(keep),
            model.rule_out,
            model.rule_in,
            prevalence=prevalence,
        )
        return {**found, "classes": class_figures(targets[keep], probabilities[keep], model.classes)}

    groups = {
        column: {
            str(value): figures((table[column] == value).to_numpy())
            for value in sorted(table[column].unique(), key=str)
        }
        for column in by
    }
    unusable = dict(images.cohort.unusable)
    return {
        "model": {"name": model.name, "hash": model.hash, "inputs": model.inputs.to_dict()},
        "split": split or "all",
        "overall": figures(np.ones(len(images), dtype=bool)),
        "groups": groups,
        "unusable": unusable,
        "refused": sum(unusable.values()) / (sum(unusable.values()) + len(images)),
        "seen": left_out,
        "thresholds": {"rule_out": model.rule_out.to_dict(), "rule_in": model.rule_in.to_dict()},
    }


def only_split(manifest: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return one part of the data; all of it where ``split`` is None or the data name no split.

    Raises
    ------
    InputError
        When there is no such part.
    """
    named = manifest["split"].astype(str)
    if split is None or not (named != "").any():
        return manifest
    part = manifest.loc[(named == split).to_numpy()].reset_index(drop=True)
    if not len(part):
        raise InputError(f"data must hold radiographs of split {split!r}, got {sorted(set(named))}")
    return part


def unseen_images(
    model: ReferenceModel,
    manifest: pd.DataFrame,
    *,
    parts: Sequence[str] = ("train", "val"),
    lungs: str | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> tuple[StudyImages, int]:
    """Read the images of a manifest that a network has not seen in these parts; also return how many were left out.

    Raises
    ------
    InputError
        When nothing is left.
    """
    known = str(model.training.get("lungs", "given"))
    # Given masks are the same ones under "given" and "either"; those that a network finds are others.
    if lungs is not None and (lungs == "found") != (known == "found") and model.inputs.region != "full":
        warnings.warn(
            f"the network was trained with lungs={known}; by lungs={lungs} its training images look different and "
            "cannot be recognised: make sure yourself that none of them is among these",
            HistcxrWarning,
            stacklevel=3,
        )
    images = read_study(
        manifest,
        model.inputs,
        lungs=lungs or known,
        normal=model.normal,
        n_jobs=n_jobs,
        progress=progress,
    )
    seen = model.training.get("seen", {})
    images, left_out = images.leave_out([code for part in parts for code in seen.get(part, ())])
    if not len(images):
        raise InputError(
            f"data must hold radiographs that the network has not seen, got none ({left_out} were left out "
            "because it has)"
        )
    return images, left_out
