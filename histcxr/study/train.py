"""From labelled radiographs to a model that may be trusted: fit, calibrate, certify, evaluate once, save.

Each part of the data has one use. Training patients fit, tune and calibrate the scores (by cross-validation
among them); validation patients certify the thresholds and nothing else; test patients are scored once.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from histcxr.decision.out_of_distribution import MIN_RADIOGRAPHS, OutOfDistribution, fit_out_of_distribution
from histcxr.decision.thresholds import certify
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.curves import reference_quantiles
from histcxr.features.histograms import Zones
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import CLASSIFIERS, stack_members
from histcxr.models.tuning import TuningResult, tune
from histcxr.networks.backend import neural_problem
from histcxr.store import Model
from histcxr.study.cohort import Cohort, histogram_hashes, leave_out, read_cohort, split_cohort
from histcxr.study.evaluate import measure

# Largest difference between sick and normal in the share of given masks that passes without a note.
MAX_MASK_DIFFERENCE = 0.05


@dataclass(frozen=True)
class TrainingResult:
    """What :func:`train` found.

    Attributes
    ----------
    models : dict of str to Model
        Every trained classifier, ready to use or to save.
    best : Model
        The one with the highest cross-validated AUC on the training patients; neither validation nor test
        patients had a say.
    report : dict
        All figures, ready for JSON; ``report["classifiers"][NAME]["test"]`` holds those of the test patients.
    trials : dict of str to DataFrame
        Every setting that was tried.
    """

    models: dict[str, Model]
    best: Model
    report: dict[str, Any]
    trials: dict[str, pd.DataFrame]


def train(
    data: str | PathLike[str] | pd.DataFrame,
    *,
    classifiers: str | Sequence[str] = ("xgboost",),
    zones: Zones = 1,
    bands: bool | str = False,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    trials: int | None = None,
    tuned: Mapping[str, Mapping[str, Any]] | None = None,
    lungs: str | None = None,
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = False,
) -> TrainingResult:
    """Train, tune, certify and measure classifiers.

    Parameters
    ----------
    data : path or DataFrame
        Labelled radiographs with lung masks: a folder, a CSV, or a manifest.
    classifiers : str or sequence of str
        Names from the registry, or ``"all"`` that can be trained here. A stack consists of the others, where two
        or more are named; alone, of its usual members for the recipe.
    zones : {1, 2, 6, "1+2", "1+6"}
        How the lungs are divided.
    bands : bool or str
        Filtered images to count beside the intensity: none, ``"travel"`` (or True) or ``"full"``; see
        :mod:`histcxr.features.recipe`.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    trials : int, optional
        Settings to try for each classifier; 0 keeps its defaults; None takes its own usual number, which is 0
        with the bands that travel: a search at home finds what is best at home.
    tuned : mapping, optional
        Classifier to parameters found before (:attr:`~histcxr.models.tuning.TuningResult.parameters`), which take
        the place of its defaults. It is not searched again.
    lungs : {"given", "found", "either"}, optional
        Whose lung masks: the data's, the network's for every image, or the network's where the data have none. By
        default the data's where they have any. Where sick and normal differ in whose they are, a note says so.
    normal : str
        The label that means normal; every other one is sick.
    cache : path, optional
        Folder that keeps extracted histograms.
    device : {"cpu", "cuda"}
        For XGBoost.
    seed, n_jobs, progress
        Random seed, parallel workers, progress bar on stderr.

    Returns
    -------
    TrainingResult

    Raises
    ------
    InputError
        Unknown classifier, missing labels, or a part of the data without both classes.
    """
    names = classifier_names(classifiers)
    recipe = Recipe(zones, bands)
    idle = sorted(set(tuned or {}) - set(order_of_training(names, recipe)))
    if idle:
        raise InputError(
            f"tuned must be for classifiers that are trained, got {', '.join(idle)} besides {names}"
        )
    cohort = read_cohort(
        data, recipe=recipe, lungs=lungs, normal=normal, cache=cache, n_jobs=n_jobs, progress=progress
    )
    parts, notes = split_cohort(cohort, seed=seed)
    for part, members in parts.items():
        members.require_both_classes(f"the {part} part", normal)
    notes = [*notes, *one_class_sources(parts["train"]), *unequal_masks(parts["train"])]
    about: dict[str, Any] = {part: members.describe() for part, members in parts.items()}
    about |= {"unusable": dict(cohort.unusable), "fingerprint": fingerprint(parts["train"]), "notes": notes}
    settings = {"normal": normal, "seed": seed, "zones": zones, "bands": list(recipe.bands)}
    familiar = _familiarity(parts, recipe)
    settings["lungs"] = cohort.lungs
    if cohort.lungs != "given":
        settings["segmenter"] = load_segmenter().digest
    if familiar is None:
        about["notes"] = [
            *notes,
            f"fewer than {MIN_RADIOGRAPHS} training or validation images: no image will be "
            "refused for being unlike them",
        ]
    else:
        settings["familiarity"] = familiar.to_dict()
    promise = {"sensitivity": sensitivity, "specificity": specificity, "confidence": confidence}

    models: dict[str, Model] = {}
    figures: dict[str, dict[str, Any]] = {}
    results: dict[str, TuningResult] = {}
    for name in order_of_training(names, recipe):
        stacked = None
        if name == "stack":
            stacked = {member: results[member] for member in members_of_stack(names, recipe)}
        known = (tuned or {}).get(name)
        results[name] = tune(
            name,
            parts["train"].counts,
            parts["train"].sick.astype(np.int64),
            parts["train"].patients,
            zones=zones,
            bands=bands,
            n_trials=trials if known is None else 0,
            defaults=known,
            members=stacked,
            random_state=seed,
            n_jobs=n_jobs,
            device=device,
            refit=name in names,
        )
        if name in names:
            models[name], figures[name] = _finish(
                name, results[name], recipe, parts, about, settings, promise
            )
    best = max(names, key=lambda name: figures[name]["cross_validated_auc"])
    figures = {name: figures[name] for name in names}
    settings.pop("familiarity", None)
    report = {"classifiers": figures, "best": best, **settings, "data": about}
    if familiar is not None:
        refused = float(models[best].unfamiliar(parts["test"].counts).mean())
        report["refused"] = {"val": familiar.false_alarms, "test": refused}
    trial_tables = {name: result.trials for name, result in results.items()}
    return TrainingResult(models, models[best], report, trial_tables)


def calibrate(
    model: Model,
    data: str | PathLike[str] | pd.DataFrame,
    *,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    split: str | None = None,
    lungs: str = "either",
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Model:
    """Certify a model's thresholds anew, on patients like those it will judge.

    Parameters
    ----------
    model : Model
    data : path or DataFrame
        Labelled radiographs. Images that the model was trained on are left out, with their patients.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    split : str, optional
        Use this part of the data only. By default ``val`` where the data names one, otherwise all.
    lungs : {"either", "given", "found"}
        Whose lung masks; ``"either"`` does what triage does: the network's where none is given.
    normal, cache, n_jobs, progress
        As in :func:`train`.

    Returns
    -------
    Model
        The same classifier with new thresholds. Its test figures are gone: they belonged to the old ones.

    Raises
    ------
    InputError
        No such part, one class only, or too few patients for any certificate (the message says how many).
    """
    cohort = read_cohort(
        data,
        recipe=model.recipe,
        lungs=lungs,
        normal=normal,
        cache=cache,
        n_jobs=n_jobs,
        progress=progress,
    )
    named = cohort.table["split"].astype(str)
    part = split if split is not None else "val" if (named == "val").any() else None
    if part is not None:
        cohort = cohort.part((named == part).to_numpy())
    cohort, left_out = leave_out(cohort, model.training.get("seen", {}).get("train", ()))
    what = "the calibration patients" + (f" (split {part})" if part else "")
    cohort.require_both_classes(what, normal)
    chosen = certify(
        model.score(cohort.counts),
        cohort.sick,
        cohort.patients,
        sensitivity=sensitivity,
        specificity=specificity,
        confidence=confidence,
    )
    if not chosen.rule_out.certified and not chosen.rule_in.certified:
        raise InputError(f"{chosen.rule_out.message}; {chosen.rule_in.message}")
    calibration = {
        **cohort.describe(),
        "trained_on_and_left_out": left_out,
        "fingerprint": fingerprint(cohort),
    }
    seen = {**model.training.get("seen", {}), "val": sorted(set(histogram_hashes(cohort.counts)))}
    training = {**model.training, "val": calibration, "seen": seen}
    return replace(model, rule_out=chosen.rule_out, rule_in=chosen.rule_in, metrics={}, training=training)


def classifier_names(classifiers: str | Sequence[str]) -> list[str]:
    """Return the names asked for, each once; ``"all"`` stands for every classifier of the registry.

    Raises
    ------
    InputError
        No name at all, or one that the registry does not know.
    """
    asked = [classifiers] if isinstance(classifiers, str) else list(classifiers)
    names = list(dict.fromkeys(asked))
    if "all" in asked:
        problem = neural_problem()
        names = [name for name in CLASSIFIERS if name != "lenet" or problem is None]
        if problem is not None:
            warnings.warn(
                f"all but the lenet, which cannot be trained here: {problem}", HistcxrWarning, stacklevel=3
            )
    unknown = [name for name in names if name not in CLASSIFIERS]
    if unknown or not names:
        raise InputError(
            f"classifiers must be among {', '.join(CLASSIFIERS)} or 'all', got {unknown or 'none'}"
        )
    return names


def members_of_stack(names: Sequence[str], recipe: Recipe) -> list[str]:
    """Name the stack's members: the classifiers trained beside it, or its usual ones where it stands alone."""
    beside = [name for name in names if name != "stack"]
    return beside if len(beside) > 1 else list(stack_members(recipe.zones, recipe.bands))


def order_of_training(names: Sequence[str], recipe: Recipe) -> list[str]:
    """Put the stack last, and the members before it that it needs."""
    others = [name for name in names if name != "stack"]
    if len(others) == len(names):
        return others
    return [*dict.fromkeys([*others, *members_of_stack(names, recipe)]), "stack"]


def one_class_sources(cohort: Cohort) -> list[str]:
    """Say of each source among several whose patients are all sick or all normal what that may teach."""
    if "source" not in cohort.table:
        return []
    sources = cohort.table["source"].astype(str)
    names = [name for name in sorted(set(sources)) if name]
    found = []
    for name in names if len(names) > 1 else []:
        sick = cohort.sick[(sources == name).to_numpy()]
        if sick.all() or not sick.any():
            found.append(
                f"all {len(sick)} training images of source {name} are {'sick' if sick.all() else 'normal'}: a "
                "classifier may learn the source instead of the disease, and do worse elsewhere"
            )
    return found


def unequal_masks(cohort: Cohort) -> list[str]:
    """Say how much sick and normal differ in whose masks they have, which tells the classes apart by itself."""
    if cohort.lungs != "either":
        return []
    given = (cohort.table["mask"].astype(str) != "").to_numpy()
    sick, normal = float(given[cohort.sick].mean()), float(given[~cohort.sick].mean())
    if abs(sick - normal) <= MAX_MASK_DIFFERENCE:
        return []
    return [
        f"{sick:.0%} of the sick and {normal:.0%} of the normal training images have a given mask, the others one "
        "that the network found: a classifier may learn whose mask it is"
    ]


def fingerprint(cohort: Cohort) -> str:
    """Return one SHA-256 for a set of labelled images, whatever their order."""
    labelled = sorted(
        f"{code} {int(sick)}" for code, sick in zip(histogram_hashes(cohort.counts), cohort.sick, strict=True)
    )
    return hashlib.sha256("\n".join(labelled).encode()).hexdigest()


def _familiarity(parts: Mapping[str, Cohort], recipe: Recipe) -> OutOfDistribution | None:
    """Learn what the training patients' lungs look like; None of too few."""
    if min(len(parts["train"]), len(parts["val"])) < MIN_RADIOGRAPHS:
        return None
    return fit_out_of_distribution(
        *(reference_quantiles(parts[part].counts, recipe) for part in ("train", "val"))
    )


def _finish(
    name: str,
    tuned: TuningResult,
    recipe: Recipe,
    parts: Mapping[str, Cohort],
    about: Mapping[str, Any],
    settings: Mapping[str, Any],
    promise: Mapping[str, float],
) -> tuple[Model, dict[str, Any]]:
    """Certify a fitted classifier on the validation patients and measure it on the test patients."""
    training = {
        **settings,
        **about,
        "parameters": {key: str(value) for key, value in tuned.parameters.items()},
        "cross_validated_auc": tuned.score,
        "seen": {part: sorted(set(histogram_hashes(parts[part].counts))) for part in ("train", "val")},
    }
    chosen = certify(_scores(name, tuned, parts["val"]), parts["val"].sick, parts["val"].patients, **promise)
    model = Model(
        name=name,
        estimator=tuned.estimator,
        recipe=recipe,
        rule_out=chosen.rule_out,
        rule_in=chosen.rule_in,
        training=training,
    )
    # What triage would refuse is not measured, as it would not be judged; the report counts it.
    judged = parts["test"].part(~model.unfamiliar(parts["test"].counts))
    test = measure(_scores(name, tuned, judged), judged, chosen.rule_out, chosen.rule_in)
    model = replace(model, metrics={"test": test})
    trials = tuned.trials
    return model, {
        "test": test,
        "threshold": chosen.rule_out.to_dict(),
        "rule_in_threshold": chosen.rule_in.to_dict(),
        "fit_seconds": round(tuned.seconds, 2),
        "cross_validated_auc": tuned.score,
        "parameters": training["parameters"],
        "trials": len(trials),
        "failed_trials": int((trials["status"] != "ok").sum()),
    }


def _scores(name: str, tuned: TuningResult, cohort: Cohort) -> np.ndarray:
    scores = np.asarray(tuned.estimator.predict_proba(cohort.counts), dtype=np.float64)[:, 1]
    if not np.isfinite(scores).all():
        raise InputError(f"{name} gave {int((~np.isfinite(scores)).sum())} scores that are not numbers")
    return scores
