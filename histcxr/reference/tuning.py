"""Search for a good head and learning rate of a reference network with Keras Tuner's Hyperband."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError, OutputError
from histcxr.neural import import_neural
from histcxr.reference.architectures import HeadOptions, find_architecture
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.validation import check_images, hold_out, named_part

__all__ = ["ReferenceSearch", "head_space", "rate_space", "tune_reference"]

_SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class ReferenceSearch:
    """What a search found.

    Attributes
    ----------
    best_estimator : ReferenceClassifier
        Unfitted, with the best trial's parameters.
    best_params : dict
        The parameters that the search set; empty where the estimator's own won.
    best_score : float
        The best trial's AUC on the held-out part: chosen as the highest of many, so too high for new data.
    table : DataFrame
        One row a trial, failed ones included: ``trial`` (0: the estimator as it came), ``status`` ("ok", "failed",
        or "running" where a search was broken off), ``error``, ``score`` (the AUC), ``val_loss, epochs, best_epoch,
        seconds, repeats`` (the shorter trial whose values Hyperband trains longer here), then the values.
    directory : Path or None
        Where the trials are kept; None where they were not.
    n_judged : int
        Images that every score rests on.
    """

    best_estimator: ReferenceClassifier
    best_params: dict[str, Any]
    best_score: float
    table: pd.DataFrame
    directory: Path | None
    n_judged: int


def rate_space(values: Any) -> dict[str, Any]:
    """Search the learning rate alone, anywhere from 1e-5 to 1e-1.

    Parameters
    ----------
    values : keras_tuner.HyperParameters
        Asked for each value by name, so that the search may choose it.

    Returns
    -------
    dict
        Parameters of :class:`~histcxr.reference.classifier.ReferenceClassifier`.
    """
    # Not in steps: Hyperband tries nothing twice, and five values would be used up before any is trained longer.
    return {"learning_rate": values.Float("learning_rate", 1e-5, 1e-1, sampling="log", default=1e-3)}


def head_space(values: Any) -> dict[str, Any]:
    """Search two dense layers of 0 to 512 units, dropout before and after them, and the learning rate.

    What the reports searched for VGG16; there 128 and 32 units with dropouts of 0 and 0.3 at a rate of 1e-3 won.

    Parameters
    ----------
    values : keras_tuner.HyperParameters
        As for :func:`rate_space`.

    Returns
    -------
    dict
        Parameters of :class:`~histcxr.reference.classifier.ReferenceClassifier`.
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


def tune_reference(
    X: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    validation: ArrayLike | None = None,
    estimator: ReferenceClassifier | None = None,
    space: Callable[[Any], dict[str, Any]] | None = None,
    n_trials: int = 20,
    seconds: float | None = None,
    directory: str | Path | None = None,
    random_state: int = 0,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> ReferenceSearch:
    """Try heads and learning rates, and keep the one with the highest AUC on held-out patients.

    The estimator as it comes is trained first and competes. Every trial is trained and judged on the same images;
    give those of training patients only.

    Parameters
    ----------
    X : ndarray of uint8, shape (n, side, side)
    y : array-like, shape (n,)
    groups : array-like, shape (n,), optional
        The patient of each image.
    validation : array-like of bool, shape (n,), optional
        The images to judge by; the others are learned from. None: one patient-grouped part is held out, as large
        as the estimator's ``validation_fraction``.
    estimator : ReferenceClassifier, optional
        Gives the parameters that are not searched; its epochs are those of the longest training.
    space : callable, optional
        From a ``keras_tuner.HyperParameters`` to parameters of the estimator. None: :func:`head_space` where the
        architecture has such a head, :func:`rate_space` where it has not.
    n_trials : int, default=20
        Networks to train besides the first; training one anew for longer counts as another. Hyperband (Li et al.,
        2018) trains many for a ninth of the epochs, the better ones anew for a third, the best for all. It ends
        sooner where the space has no values left that were not tried.
    seconds : float, optional
        No trial begins later than this.
    directory : path-like, optional
        Where the trials are kept. A search that is found there is gone on with, if it was on the same data with the
        same settings; a larger ``n_trials`` extends it. None: nothing is kept.
    random_state : int, default=0
    on_trial : callable, optional
        Called with each finished trial's row of the table, e.g. to show progress; not for the first.

    Returns
    -------
    ReferenceSearch

    Warns
    -----
    HistcxrWarning
        When some trials failed: how many, and why the last one did.

    Raises
    ------
    InputError
        When an argument does not fit, or the directory holds another search.
    HistcxrError
        When no trial succeeded: the search is given up after three failures, and says why.
    MissingDependencyError
        When Keras, its backend or Keras Tuner is not installed.
    """
    for name, value, least in (("n_trials", n_trials, 1), ("random_state", random_state, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}; got {value!r}")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds must be above 0 or None; got {seconds!r}")
    import_neural("keras", "to tune a reference network")
    keras_tuner = import_neural("keras_tuner", "to tune a reference network")
    from histcxr.reference.trials import ReferenceTuner, make_oracle

    base = ReferenceClassifier() if estimator is None else clone(estimator)
    if space is None:
        space = head_space if find_architecture(base.architecture).head else rate_space
    first = space(keras_tuner.HyperParameters())
    unknown = sorted(set(first) - set(base.get_params()))
    if unknown:
        raise InputError(
            f"space must return parameters of ReferenceClassifier; it has no {', '.join(unknown)}"
        )
    images, labels, held = _check_data(X, y, groups, validation, base, int(random_state))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if directory is None else directory)
        settings = {
            "random_state": int(random_state),
            "estimator": repr(sorted(base.get_params().items())),
            "space": repr(sorted(first.items())),
            "data": _fingerprint(images, labels, held),
        }
        _claim_folder(folder, settings)
        tuner = ReferenceTuner(
            make_oracle(space, n_trials=int(n_trials), seed=int(random_state) + 1),
            space,
            base,
            images,
            labels,
            held,
            directory=folder,
            seed=int(random_state),
            seconds=seconds,
            on_trial=on_trial,
        )
        first_row = tuner.train_base()
        if not tuner.time_is_over:
            tuner.search()
        trials = sorted(tuner.oracle.trials.values(), key=lambda trial: int(trial.trial_id))
        table = pd.DataFrame([first_row, *(tuner.row(trial) for trial in trials)])

    completed = [trial for trial in trials if trial.status == "COMPLETED"]
    failed = table[table.status == "failed"]
    if trials and not completed:
        reason = f"; the last one failed with: {failed.error.iloc[-1]}" if len(failed) else ""
        raise HistcxrError(f"none of {len(trials)} trials succeeded{reason}")
    if len(failed):
        warnings.warn(
            f"{len(failed)} of {len(trials)} trials failed, the last one with: {failed.error.iloc[-1]}",
            HistcxrWarning,
            stacklevel=2,
        )
    score, params = float(first_row["score"]), {}
    best = max(completed, key=lambda trial: trial.score, default=None)
    if best is not None and best.score > score:
        score, params = float(best.score), space(best.hyperparameters.copy())
    return ReferenceSearch(
        best_estimator=base.set_params(**params),
        best_params=params,
        best_score=score,
        table=table,
        directory=None if directory is None else folder,
        n_judged=int(held.sum()),
    )


def _check_data(
    X: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None,
    validation: ArrayLike | None,
    base: ReferenceClassifier,
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_]]:
    """Return images, labels and which are held out, so that wrong data stop the search before it begins."""
    images, labels = check_images(X), column_or_1d(y)
    check_consistent_length(images, labels, groups, validation)
    _, targets = np.unique(labels, return_inverse=True)
    if validation is not None:
        held_out = named_part(targets, groups, validation)[1]
    else:
        part = hold_out(targets, groups, base.validation_fraction, seed)[1]
        if part is None:
            raise InputError("validation must be given where the estimator's validation_fraction is 0")
        held_out = part
    held = np.zeros(len(labels), np.bool_)
    held[held_out] = True
    return images, labels, held


def _fingerprint(*arrays: NDArray[Any]) -> str:
    """Return one SHA-256 over the shapes, dtypes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        if array.dtype == object:
            digest.update(repr(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _claim_folder(folder: Path, search: dict[str, Any]) -> None:
    """Note in a folder whose search it holds; refuse one that holds another."""
    path = folder / _SEARCH_FILE
    try:
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            differs = [name for name in search if found.get(name) != search[name]]
            if differs:
                raise InputError(
                    f"directory must be new or hold the same search; {folder} holds one with other {', '.join(differs)}"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"directory must be new, empty or hold the same search; {folder} holds other files"
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(search, indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot keep the search here ({error.strerror or error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}); delete the folder, or name another") from error
