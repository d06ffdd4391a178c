"""From labelled radiographs to settings worth using: search on the training patients, keep what was found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from histcxr.checks import whole_number
from histcxr.data.blocks import fits_on
from histcxr.data.progress import Progress
from histcxr.data.splits import patient_folds
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.files.cells import write_table
from histcxr.files.writing import replacing, write_error
from histcxr.models.tuning import TuningOptions, prepare, tune
from histcxr.networks.backend import import_neural
from histcxr.networks.search import METHODS, TuningResult, check_method, search_networks
from histcxr.reference.architectures import ARCHITECTURES, HeadOptions
from histcxr.reference.heads import HeadClassifier, frozen_features, stays_frozen
from histcxr.reference.images import InputSettings
from histcxr.store.model import json_ready
from histcxr.study.cohort import Reading, read_cohort, split_cohort
from histcxr.study.network_train import ReferenceSettings
from histcxr.study.train import usual_recipe

if TYPE_CHECKING:
    from distributed import Client

SETTINGS_FILE = "best.json"


_NETWORK_TRIALS = 20


def search_settings(
    data: str | PathLike[str] | pd.DataFrame,
    what: str | ReferenceSettings,
    options: TuningOptions | None = None,
    *,
    lungs: str | None = None,
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> TuningResult:
    """Search for settings on the training patients of labelled radiographs; the estimator found is not fitted.

    Validation and test patients have no part in it, so that thresholds and figures made on them later stand.

    ``what`` is a classifier of the registry except the stack, or a network that sees images, of which head and
    learning rate are searched. A network is judged on a fifth of the training patients; its ``options`` are by default
    20 trials, and their device and space have no meaning. A backbone that stays frozen sees each image once, and heads
    are tried on what it gave; ``cache`` keeps that, too. Without options, what is counted is what
    :func:`histcxr.train` counts by default. ``data, lungs, normal, cache, client, progress``: as in
    :func:`histcxr.train`; networks are trained here.

    InputError: what does not fit, before any image is read; missing labels, one class only, a directory with another
    search. HistcxrError: every trial failed. MissingDependencyError: Keras, its backend or Keras Tuner is wanted and
    not installed.
    """
    options = options or TuningOptions(recipe=Recipe(*usual_recipe()))
    network = None if isinstance(what, str) else what
    if network is None:
        name = str(what)
        if name == "stack":
            raise InputError(
                "the stack has no settings of its own: tune its members, and give train what was found"
            )
        neural = callable(prepare(name, options)[1])
    else:
        name, neural = network.architecture, True
        n_trials = _NETWORK_TRIALS if options.n_trials is None else options.n_trials
        options = replace(options, n_trials=whole_number(n_trials, "trials", least=1))
        check_method(options.method, METHODS, name)
    for package in ("keras", "keras_tuner") if neural else ():
        import_neural(package, f"to search for the settings of {name}")
    what_is_seen = options.recipe if network is None else network.inputs()
    if network is not None:
        base = network.classifier(options.random_state)
        base.set_params(epochs=network.epochs or ARCHITECTURES[name].epochs).check()
    cohort = read_cohort(data, what_is_seen, Reading(lungs, normal, cache, options.n_jobs, progress, client))
    part = split_cohort(cohort, seed=options.random_state)[0]["train"]
    part.require_both_classes("the train part")
    sick, patients = part.sick.astype(np.int64), part.patients
    if network is None:
        with fits_on(client):
            return tune(name, part.values, sick, patients, options, refit=False)
    held_out = patient_folds(sick, patients, 5, options.random_state)[0][1]
    space = head_space if ARCHITECTURES[name].head else rate_space
    values, tried = part.values, base
    if stays_frozen(base):
        values = frozen_features(base, part.values, cache=cache, progress=progress is True)
        tried = HeadClassifier.of(base)
    found = search_networks(name, tried, space, values, sick, patients, held_out, options)
    return replace(found, estimator=clone(base).set_params(**found.parameters))


def rate_space(values: Any) -> dict[str, Any]:
    """Ask a ``keras_tuner.HyperParameters`` for the learning rate of a reference network."""
    # Not in steps: Hyperband tries nothing twice, and five values would be used up before any is trained longer.
    return {"learning_rate": values.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-3)}


def head_space(values: Any) -> dict[str, Any]:
    """Ask for two dense layers of 0 to 512 units, dropout before and after them, and the learning rate.

    What the reports searched for VGG16; there 128 and 32 units with dropouts of 0 and 0.3 at a rate of 1e-3 won.
    """
    units = [0, 32, 64, 128, 256, 512]
    rates = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    head = HeadOptions(
        dense=(values.Choice("dense_1", units, default=128), values.Choice("dense_2", units, default=32)),
        dropout=values.Choice("dropout", rates, default=0.2),
        entry_dropout=values.Choice("entry_dropout", rates, default=0.0),
    )
    rate = values.Choice("learning_rate", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5], default=1e-3)
    return {"head": head, "learning_rate": rate}


def describe_search(result: TuningResult) -> dict[str, Any]:
    """Return what a search found, ready for JSON."""
    parameters = {
        key: asdict(value) if isinstance(value, HeadOptions) else value
        for key, value in result.parameters.items()
    }
    score = {re.sub(r"\W", "_", result.measure.lower()): result.score}
    return {"classifier": result.name, "parameters": json_ready(parameters), **score}


def write_search(
    result: TuningResult, seen: Recipe | InputSettings, folder: str | PathLike[str]
) -> list[Path]:
    """Write ``trials.csv`` and ``best.json``: what a search found for what is ``seen`` of an image.

    OutputError: the folder cannot be written.
    """
    target = Path(folder)
    content = {**describe_search(result), _kind(seen): seen.to_dict()}
    paths = [target / "trials.csv", target / SETTINGS_FILE]
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_table(result.trials, paths[0])
        with replacing(paths[1]) as unfinished:
            unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(target, error) from error
    return paths


def read_tuned(
    paths: Sequence[str | PathLike[str]], seen: Recipe | InputSettings
) -> dict[str, Mapping[str, Any]]:
    """Read what :func:`write_search` wrote: classifier or architecture to its parameters.

    ``paths`` are folders of searches, or their ``best.json``. ``seen`` is what the models that are trained with them
    see of an image. InputError: a file is missing or none of a search, two are for one classifier, or one was searched
    for something else.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        file = Path(path) / SETTINGS_FILE if Path(path).is_dir() else Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            name, parameters = str(content["classifier"]), dict(content["parameters"])
            if "head" in parameters:
                head = parameters["head"]
                parameters["head"] = HeadOptions(**{**head, "dense": tuple(head["dense"])})
            other = content.get(_kind(seen))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{file} does not hold the settings of a search: {problem}") from error
        if other != seen.to_dict():
            raise InputError(
                f"{path} was searched for other {'histograms' if isinstance(seen, Recipe) else 'images'} than "
                f"{seen}; give the same {'zones and bands' if isinstance(seen, Recipe) else 'region and size'}"
            )
        if name in found:
            raise InputError(f"{path}: there are settings for {name} already; give one search each")
        found[name] = parameters
    return found


def _kind(seen: Recipe | InputSettings) -> str:
    return "recipe" if isinstance(seen, Recipe) else "inputs"
