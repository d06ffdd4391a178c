"""Search for the settings of a network with Keras Tuner: Hyperband, random or Bayesian, behind one function."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError
from histcxr.networks.backend import import_neural
from histcxr.networks.search_folder import claim_folder

__all__ = ["METHODS", "NetworkSearch", "SearchOptions", "best_epoch_outcome", "search_networks"]

#: The ways to search there are.
METHODS = ("hyperband", "random", "bayesian")

Network = TypeVar("Network", bound=BaseEstimator)


@dataclass(frozen=True)
class SearchOptions:
    """How to search, and for how long.

    Parameters
    ----------
    method : {"hyperband", "random", "bayesian"}
        Hyperband (Li et al., 2018) trains many networks for a ninth of the epochs, the better ones anew for a
        third, the best of them for all. The other two train every network in full.
    n_trials : int
        Networks to train besides the first; training one anew for longer counts as another.
    seconds : float or None
        No trial begins later than this.
    directory : path-like or None
        Where the trials are kept. None: nothing is kept.
    random_state : int
    on_trial : callable or None
        Called with each finished trial's row of the table; not for the first.

    Raises
    ------
    InputError
        When one of them is out of range.
    """

    method: str
    n_trials: int
    seconds: float | None
    directory: str | Path | None
    random_state: int
    on_trial: Callable[[dict[str, Any]], None] | None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")
        for name, value, least in (("n_trials", self.n_trials, 1), ("random_state", self.random_state, 0)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}; got {value!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds must be above 0 or None; got {self.seconds!r}")


@dataclass(frozen=True)
class NetworkSearch(Generic[Network]):
    """What a search found.

    Attributes
    ----------
    best_estimator : classifier
        Unfitted, with the best trial's parameters.
    best_params : dict
        The parameters that the search set; empty where the estimator's own won.
    best_score : float
        The best trial's score: chosen as the highest of many, so too high for new data.
    table : DataFrame
        One row a trial, failed ones included: ``trial`` (0: the estimator as it came), ``status`` ("ok",
        "failed", or "running" where a search was broken off), ``error`` (the last line of what went wrong),
        what came of the training (``score`` and others by name, then ``seconds``), ``repeats`` (the shorter trial
        whose values Hyperband trains longer here), then the values.
    directory : Path or None
        Where the trials are kept; None where they were not.
    n_judged : int
        Images that every score rests on.
    """

    best_estimator: Network
    best_params: dict[str, Any]
    best_score: float
    table: pd.DataFrame
    directory: Path | None
    n_judged: int


def search_networks(
    base: Network,
    space: Callable[[Any], dict[str, Any]],
    train: Callable[[Network, float, int], Mapping[str, Any]],
    options: SearchOptions,
    *,
    identity: Mapping[str, Any],
    n_judged: int,
    purpose: str,
) -> NetworkSearch[Network]:
    """Train networks and keep the settings with the highest score; those of the base compete.

    Parameters
    ----------
    base : classifier, not fitted
        Gives the parameters that are not searched. It is trained first.
    space : callable
        From a ``keras_tuner.HyperParameters`` to parameters of the base.
    train : callable
        ``train(classifier, share, seed)`` trains an unfitted classifier for a share of its epochs, above 0 and up to
        1, and returns what came of it by name, ready for JSON; the higher its ``score``, the better.
    options : SearchOptions
        A search that is found in its directory is gone on with, if it is the same; a larger ``n_trials`` extends it.
    identity : mapping
        What must be equal for a search to be the same, besides base, space and seed: the data's fingerprint above
        all. Ready for JSON.
    n_judged : int
        Images that every score rests on.
    purpose : str
        What Keras Tuner is wanted for, should it be missing: ``"to tune a LeNet"``.

    Returns
    -------
    NetworkSearch

    Warns
    -----
    HistcxrWarning
        When some trials failed: how many, and why the last one did.

    Raises
    ------
    InputError
        When the space returns unknown parameters, or the directory holds another search.
    HistcxrError
        When no trial succeeded: the search is given up after three failures, and says why.
    MissingDependencyError
        When Keras, its backend or Keras Tuner is not installed.
    """
    import_neural("keras", purpose)
    keras_tuner = import_neural("keras_tuner", purpose)
    from histcxr.networks.trials import TrialTuner, make_oracle

    known: dict[str, Any] = base.get_params()
    first = space(keras_tuner.HyperParameters())
    unknown = sorted(set(first) - set(known))
    if unknown:
        raise InputError(
            f"space must return parameters of {type(base).__name__}; it has no {', '.join(unknown)}"
        )
    seed = int(options.random_state)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if options.directory is None else options.directory)
        claim_folder(
            folder,
            {
                **identity,
                "random_state": seed,
                "estimator": repr(sorted(known.items())),
                "space": repr(sorted(first.items())),
            },
        )
        tuner = TrialTuner(
            make_oracle(options.method, space, n_trials=int(options.n_trials), seed=seed + 1),
            space,
            base,
            train,
            directory=folder,
            seed=seed,
            seconds=options.seconds,
            on_trial=options.on_trial,
        )
        table = pd.DataFrame(tuner.run())
        completed = [trial for trial in tuner.trials() if trial.status == "COMPLETED"]

    _report_failures(table)
    best = max(completed, key=lambda trial: trial.score, default=None)
    score, params = float(table.score[0]), {}
    if best is not None and best.score > score:
        score, params = float(best.score), space(best.hyperparameters.copy())
    return NetworkSearch(
        best_estimator=clone(base).set_params(**params),
        best_params=params,
        best_score=score,
        table=table,
        directory=None if options.directory is None else folder,
        n_judged=n_judged,
    )


def best_epoch_outcome(history: Mapping[str, Sequence[float]], best_epoch: int) -> dict[str, Any]:
    """Return what came of a training by its learning curves: its AUC and loss on held-out images, and its epochs.

    Parameters
    ----------
    history : mapping of str to sequence of float
        ``loss, val_loss, val_auc``, each with one figure an epoch.
    best_epoch : int
        The epoch whose weights are kept, from 0.
    """
    return {
        "score": history["val_auc"][best_epoch],
        "val_loss": history["val_loss"][best_epoch],
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch,
    }


def _report_failures(table: pd.DataFrame) -> None:
    """Warn of the trials that failed; refuse a table in which no trial succeeded, the first row apart."""
    trials, failed = table[1:], table[table.status == "failed"]
    if len(trials) and not (trials.status == "ok").any():
        reason = f"; the last one failed with: {failed.error.iloc[-1]}" if len(failed) else ""
        raise HistcxrError(f"none of {len(trials)} trials succeeded{reason}")
    if len(failed):
        warnings.warn(
            f"{len(failed)} of {len(trials)} trials failed, the last one with: {failed.error.iloc[-1]}",
            HistcxrWarning,
            stacklevel=4,
        )
