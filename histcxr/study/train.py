"""From labelled radiographs to a model that may be trusted: fit, certify, measure once, report.

Each part of the data has one use. Training patients fit, tune and calibrate the scores (by cross-validation
among them); validation patients certify the thresholds and nothing else; test patients are scored once.
Networks that see the image take the same road in :mod:`histcxr.study.network_train`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from histcxr.data.blocks import fits_on
from histcxr.data.progress import Progress
from histcxr.decision.out_of_distribution import MIN_RADIOGRAPHS, OutOfDistribution, fit_out_of_distribution
from histcxr.exceptions import HistcxrWarning, InputError, did_you_mean
from histcxr.features.curves import reference_quantiles
from histcxr.features.histograms import Zones
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import CLASSIFIERS, stack_members
from histcxr.models.tuning import TuningOptions, TuningResult, tune
from histcxr.networks.backend import neural_problem
from histcxr.reference.images import InputSettings
from histcxr.store import Model, SavedModel
from histcxr.study.certify import Promise, certified
from histcxr.study.cohort import (
    Cohort,
    Data,
    Reading,
    balanced_rows,
    check_columns,
    read_cohort,
    split_cohort,
)
from histcxr.study.evaluate import Judged
from histcxr.study.seen import remember

if TYPE_CHECKING:
    from distributed import Client

# Largest difference between sick and normal in the share of given masks that passes without a note.
MAX_MASK_DIFFERENCE = 0.05


@dataclass(frozen=True)
class TrainingResult:
    """What :func:`train` found.

    ``models`` are all that were trained, by classifier; ``best`` has the highest cross-validated AUC on the training
    patients: neither validation nor test patients had a say. ``report`` has all figures, ready for JSON, those of the
    test patients in ``report["classifiers"][NAME]["test"]``. ``trials`` are the settings tried, by classifier.
    """

    models: dict[str, Model]
    best: Model
    report: dict[str, Any]
    trials: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Divided:
    """Labelled radiographs in their three parts, and what a report says of them."""

    cohort: Cohort
    parts: dict[str, Cohort]
    about: dict[str, Any]


def train(
    data: Data,
    *,
    classifiers: str | Sequence[str] = "stack",
    zones: Zones | None = None,
    bands: bool | str | None = None,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    by: Sequence[str] = (),
    trials: int | None = None,
    tuned: Mapping[str, Mapping[str, Any]] | None = None,
    undersample: bool | int = False,
    class_weight: str | None = None,
    lungs: str | None = None,
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    n_jobs: int = 1,
    client: Client | None = None,
    progress: Progress = False,
) -> TrainingResult:
    """Train, tune, certify and measure classifiers.

    Parameters
    ----------
    data : path or DataFrame
        Labelled radiographs with lung masks: a folder, a CSV, or a manifest.
    classifiers : str or sequence of str
        Names from the registry, or ``"all"`` that can be trained here. A stack consists of the others, where two
        or more are named; alone, of its usual members for the recipe.
    zones : {1, 2, 6, "1+2", "1+6"}, optional
        How the lungs are divided; by default 6.
    bands : bool or str, optional
        Filtered images to count beside the intensity: ``"none"`` (or False), ``"travel"`` (or True), ``"full"``; see
        :mod:`histcxr.features.filters`. By default ``"travel"``, and none where zones are given.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    by : sequence of str
        Columns: certify within each of their groups, too; see :func:`~histcxr.study.certify.certified`.
    trials : int, optional
        Settings to try for each classifier; 0 keeps its defaults; None takes its own usual number, which is 0
        with the bands that travel: a search at home finds what is best at home.
    tuned : mapping, optional
        Classifier to parameters found before (``parameters`` of :class:`~histcxr.networks.search.TuningResult`), which
        take the place of its defaults. It is not searched again.
    undersample : bool or int
        Learn from equally many images of each class, or from so many, drawn patient by patient without replacement.
        What is familiar is learnt from all of them, and the other parts keep their mixture.
    class_weight : "balanced" or None
        Weigh classes so that each counts alike.
    lungs : {"given", "found", "either"}, optional
        Whose lung masks; see :class:`~histcxr.study.cohort.Reading`. Where sick and normal differ in whose they are,
        a note says so.
    normal : str
        The label that means normal; every other one is sick.
    cache : path, optional
        Folder that keeps extracted histograms.
    device : {"cpu", "cuda"}
        For XGBoost.
    seed, n_jobs, progress
        Random seed, parallel workers, and ``Progress`` (:mod:`histcxr.data.progress`).

    client : distributed.Client, optional
        Of a Dask cluster whose workers count and fit; the same figures.

    Raises
    ------
    InputError
        Unknown classifier, missing labels, or a part of the data without both classes.
    """
    names = classifier_names(classifiers)
    zones, bands = usual_recipe(zones, bands)
    recipe = Recipe(zones, bands)
    order = order_of_training(names, recipe)
    idle = sorted(set(tuned or {}) - set(order))
    if idle:
        raise InputError(
            f"tuned must be for classifiers that are trained, got {', '.join(idle)} besides {names}"
        )
    divided = divide(data, recipe, Reading(lungs, normal, cache, n_jobs, progress, client), seed)
    check_columns(by, divided.cohort.table)
    learnt = divided.parts["train"]
    settings: dict[str, Any] = {
        "normal": normal,
        "seed": seed,
        "zones": zones,
        "bands": list(recipe.bands),
    }
    if undersample is not False:
        rows = balanced_rows(learnt, np.where(learnt.sick, "sick", "normal"), undersample, seed)
        learnt = learnt.part(np.isin(np.arange(len(learnt)), rows))
        settings["learnt_from"] = {"normal": int((~learnt.sick).sum()), "sick": int(learnt.sick.sum())}
    if class_weight is not None:
        settings["class_weight"] = class_weight
    settings |= _lungs_and_familiarity(divided, recipe)
    promise = Promise(sensitivity, specificity, confidence)
    results: dict[str, TuningResult] = {}
    for name in order:
        members = members_of_stack(names, recipe) if name == "stack" else []
        known = (tuned or {}).get(name)
        how = TuningOptions(
            n_trials=trials if known is None else 0,
            random_state=seed,
            recipe=recipe,
            n_jobs=n_jobs,
            device=device,
            class_weight=class_weight,
        )
        with fits_on(client):
            results[name] = tune(
                name,
                learnt.values,
                learnt.sick.astype(np.int64),
                learnt.patients,
                how,
                defaults=known,
                members={member: results[member] for member in members} or None,
                refit=name in names,
            )
    models = {name: _finish(results[name], recipe, divided, settings, promise, by) for name in names}
    figures = {name: _figures(models[name], results[name]) for name in names}
    best = models[max(names, key=lambda name: figures[name]["cross_validated_auc"])]
    report = {"classifiers": figures, "best": best.name, **settings, "data": divided.about}
    if (familiar := report.pop("familiarity", None)) is not None:
        refused = float(best.unfamiliar(divided.parts["test"].values).mean())
        report["refused"] = {"val": OutOfDistribution.from_dict(familiar).false_alarms, "test": refused}
    return TrainingResult(models, best, report, {name: result.trials for name, result in results.items()})


def divide(data: Data, what: Recipe | InputSettings, reading: Reading, seed: int) -> Divided:
    """Read labelled radiographs and divide them into train, val and test, each with both classes."""
    cohort = read_cohort(data, what, reading)
    parts, notes = split_cohort(cohort, seed=seed)
    for part, members in parts.items():
        members.require_both_classes(f"the {part} part")
    about: dict[str, Any] = {part: members.describe() for part, members in parts.items()}
    about |= {"unusable": dict(cohort.unusable), "fingerprint": parts["train"].digest()}
    about["notes"] = [*notes, *one_class_sources(parts["train"]), *unequal_masks(parts["train"])]
    return Divided(cohort, parts, about)


def usual_recipe(zones: Zones | None = None, bands: bool | str | None = None) -> tuple[Zones, bool | str]:
    """Return what is counted: by default the recipe that travels best; zones alone mean zones alone."""
    if bands is None:
        bands = "travel" if zones is None else False
    elif bands == "none":  # as the command and its settings say
        bands = False
    return 6 if zones is None else zones, bands


def classifier_names(classifiers: str | Sequence[str]) -> list[str]:
    """Return the names asked for, each once; ``"all"`` stands for every classifier of the registry.

    InputError: no name at all, or one that the registry does not know.
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
            f"{did_you_mean(unknown[0], CLASSIFIERS) if unknown else ''}"
        )
    return names


def members_of_stack(names: Sequence[str], recipe: Recipe) -> list[str]:
    """Name the stack's members: the classifiers trained beside it, or its usual ones where it stands alone."""
    beside = [name for name in names if name != "stack"]
    return beside if len(beside) > 1 else list(stack_members(recipe))


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


def _lungs_and_familiarity(divided: Divided, recipe: Recipe) -> dict[str, Any]:
    """Say whose masks were used, and what the lungs look like; add a note where there are too few to tell."""
    settings: dict[str, Any] = {"lungs": divided.cohort.lungs}
    if divided.cohort.lungs != "given":
        settings["segmenter"] = load_segmenter().digest
    learnt, val = (divided.parts[part].values for part in ("train", "val"))
    if min(len(learnt), len(val)) < MIN_RADIOGRAPHS:
        divided.about["notes"].append(
            f"fewer than {MIN_RADIOGRAPHS} training or validation images: no image will be refused for being unlike "
            "them"
        )
        return settings
    familiar = fit_out_of_distribution(reference_quantiles(learnt, recipe), reference_quantiles(val, recipe))
    return {**settings, "familiarity": familiar.to_dict()}


def _finish(
    tuned: TuningResult,
    recipe: Recipe,
    divided: Divided,
    settings: Mapping[str, Any],
    promise: Promise,
    by: Sequence[str],
) -> Model:
    """Certify a fitted classifier on the validation patients and measure it on the test patients."""
    parts = divided.parts
    training = {
        **settings,
        **divided.about,
        "parameters": {key: str(value) for key, value in tuned.parameters.items()},
        "cross_validated_auc": tuned.score,
    }
    training = remember(training, {part: parts[part] for part in ("train", "val")})
    bare = Model(tuned.name, tuned.estimator, recipe, *promise.nothing(), training=training)
    return certified_and_measured(bare, parts["val"], parts, promise, by)


def certified_and_measured(
    bare: Any, val: Cohort, parts: Mapping[str, Cohort], promise: Promise, by: Sequence[str]
) -> Any:
    """Certify a fitted model of either kind on ``val``, and measure it on the test part.

    What triage would refuse is not measured, as it would not be judged; the report counts it.
    """
    model: Any = certified(bare, val, promise, by, also=[parts["train"]])
    return replace(model, metrics={"test": Judged.of(model, parts["test"]).figures()})


def told(model: SavedModel) -> dict[str, Any]:
    """Return what a report says of any trained model: test figures, thresholds and who certified them."""
    return {
        "test": model.metrics["test"],
        "threshold": model.rule_out.to_dict(),
        "rule_in_threshold": model.rule_in.to_dict(),
        "groups": model.training.get("groups"),
        "certified": model.training["certified"],
    }


def _figures(model: Model, tuned: TuningResult) -> dict[str, Any]:
    return {
        **told(model),
        "fit_seconds": round(tuned.seconds, 2),
        "cross_validated_auc": tuned.score,
        "parameters": model.training["parameters"],
        "trials": len(tuned.trials),
        "failed_trials": int((tuned.trials["status"] != "ok").sum()),
    }
