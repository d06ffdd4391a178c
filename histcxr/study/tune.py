"""From labelled radiographs to settings worth using: search on the training patients, keep what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histcxr.exceptions import HistcxrError, InputError, OutputError
from histcxr.features.histograms import Zones
from histcxr.features.recipe import Recipe
from histcxr.models.registry import usual_trials
from histcxr.models.tuning import TuningResult, tune
from histcxr.reports.plots import plot_trials
from histcxr.store.model import json_ready
from histcxr.study.cohort import Reading, read_cohort, split_cohort

__all__ = ["Settings", "read_all_settings", "read_settings", "search_settings", "write_search"]

SETTINGS_FILE = "best.json"


@dataclass(frozen=True)
class Settings:
    """What a search found for one classifier and one recipe.

    Attributes
    ----------
    classifier : str
    recipe : Recipe
        The histograms that the settings were found for.
    parameters : mapping of str to value
        Parameters of the registry's pipeline.
    score : float
        Their cross-validated AUC.
    """

    classifier: str
    recipe: Recipe
    parameters: Mapping[str, Any]
    score: float


def search_settings(
    data: str | PathLike[str] | pd.DataFrame,
    classifier: str,
    *,
    zones: Zones = 1,
    bands: bool | str = False,
    trials: int | None = None,
    seconds: float | None = None,
    search: str | None = None,
    directory: str | PathLike[str] | None = None,
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = False,
) -> TuningResult:
    """Search for the settings of a classifier on the training patients of labelled radiographs.

    Validation and test patients have no part in it, so that thresholds and figures made on them later stand.

    Parameters
    ----------
    data : path or DataFrame
        Labelled radiographs with lung masks: a folder, a CSV, or a manifest.
    classifier : str
        A name from the registry.
    zones, bands
        What is counted; see :func:`histcxr.train`.
    trials : int, optional
        Settings to try besides the defaults; None: the classifier's own usual number.
    seconds : float, optional
        No trial begins later than this.
    search : str, optional
        The way to search; see :func:`histcxr.models.tuning.tune`.
    directory : path, optional
        Where trials are kept. A search found there is gone on with.
    normal, cache, device, seed, n_jobs, progress
        As in :func:`histcxr.train`.

    Returns
    -------
    TuningResult
        Its estimator is not fitted.

    Raises
    ------
    InputError
        Unknown classifier or search, missing labels, a directory with another search.
    HistcxrError
        Every trial failed.
    """
    recipe = Recipe(zones, bands)
    usual_trials(classifier, zones=zones, bands=bands)  # an unknown name is refused before any image is read
    cohort = read_cohort(data, recipe, Reading(None, normal, cache, n_jobs, progress))
    parts, _ = split_cohort(cohort, seed=seed)
    part = parts["train"]
    part.require_both_classes("the train part")
    return tune(
        classifier,
        part.values,
        part.sick.astype(np.int64),
        part.patients,
        zones=zones,
        bands=bands,
        n_trials=trials,
        seconds=seconds,
        search=search,
        directory=None if directory is None else Path(directory),
        random_state=seed,
        n_jobs=n_jobs,
        device=device,
        refit=False,
    )


def write_search(
    result: TuningResult, recipe: Recipe, folder: str | PathLike[str], *, plot: bool
) -> list[Path]:
    """Write what a search found: ``trials.csv``, ``best.json``, and ``trials.png`` where wanted.

    Parameters
    ----------
    result : TuningResult
    recipe : Recipe
        The histograms it was found for.
    folder : path
        Made where it is missing.
    plot : bool
        Whether to draw the trials; takes Matplotlib.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    target = Path(folder)
    settings = {
        "classifier": result.name,
        "recipe": recipe.to_dict(),
        "parameters": json_ready(result.parameters),
        "cross_validated_auc": result.score,
    }
    paths = [target / "trials.csv", target / SETTINGS_FILE]
    try:
        target.mkdir(parents=True, exist_ok=True)
        result.trials.to_csv(paths[0], index=False)
        paths[1].write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if plot:
            paths.append(plot_trials(result.trials, target / "trials.png"))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return paths


def read_settings(path: str | PathLike[str]) -> Settings:
    """Read what :func:`write_search` wrote.

    Parameters
    ----------
    path : path
        The folder of a search, or its ``best.json``.

    Raises
    ------
    InputError
        There is no such file, or it is none of a search.
    """
    file = Path(path)
    file = file / SETTINGS_FILE if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Settings(
            str(content["classifier"]),
            Recipe.from_dict(content["recipe"]),
            dict(content["parameters"]),
            float(content["cross_validated_auc"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HistcxrError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{file} does not hold the settings of a search: {problem}") from error


def read_all_settings(paths: Sequence[str | PathLike[str]], recipe: Recipe) -> dict[str, Settings]:
    """Read the settings of several classifiers, all for one recipe.

    Raises
    ------
    InputError
        Two are for one classifier, or some are for other histograms.
    """
    found: dict[str, Settings] = {}
    for path in paths:
        settings = read_settings(path)
        if settings.recipe != recipe:
            raise InputError(
                f"{path} was searched for {settings.recipe}, and this is {recipe}; give the same zones and bands"
            )
        if settings.classifier in found:
            raise InputError(
                f"{path}: there are settings for {settings.classifier} already; give one search each"
            )
        found[settings.classifier] = settings
    return found
