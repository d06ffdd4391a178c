"""Search for a good head and learning rate of a reference network with Keras Tuner's Hyperband."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.data.splits import hold_out
from histcxr.exceptions import InputError
from histcxr.networks.search import NetworkSearch, SearchOptions, best_epoch_outcome, search_networks
from histcxr.networks.search_folder import fingerprint
from histcxr.networks.training import named_part
from histcxr.reference.architectures import HeadOptions, find_architecture
from histcxr.reference.classifier import ReferenceClassifier, check_images

__all__ = ["head_space", "rate_space", "tune_reference"]


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
) -> NetworkSearch[ReferenceClassifier]:
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
    NetworkSearch
        Its table tells of each training ``score`` (the AUC), ``val_loss, epochs, best_epoch, seconds``.

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
    options = SearchOptions("hyperband", n_trials, seconds, directory, random_state, on_trial)
    base = ReferenceClassifier() if estimator is None else clone(estimator)
    architecture = find_architecture(base.architecture)
    if space is None:
        space = head_space if architecture.head else rate_space
    images, labels, held = _check_data(X, y, groups, validation, base, int(random_state))

    def train(model: ReferenceClassifier, share: float, seed: int) -> dict[str, Any]:
        if share < 1:
            longest = architecture.epochs if model.epochs is None else model.epochs
            model.set_params(epochs=max(1, round(longest * share)))
        model.set_params(random_state=seed).fit(images, labels, validation=held)
        return best_epoch_outcome(model.history_, model.best_epoch_)

    return search_networks(
        base,
        space,
        train,
        options,
        identity={"data": fingerprint(images, labels, held)},
        n_judged=int(held.sum()),
        purpose="to tune a reference network",
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
