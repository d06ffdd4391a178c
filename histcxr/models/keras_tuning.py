"""Search for good LeNets with Keras Tuner: Hyperband, random or Bayesian, behind one function."""

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
from histcxr.models.lenet import LeNetClassifier
from histcxr.networks.search import NetworkSearch, SearchOptions, best_epoch_outcome, search_networks
from histcxr.networks.search_folder import fingerprint

__all__ = ["lenet_space", "tune_lenet"]


def lenet_space(values: Any) -> dict[str, Any]:
    """Search one to three convolution blocks and dense layers of 16 to 2048 units, and how to train them.

    Cumulative input is left out: in searches on real lungs its best network stayed behind the median of the others.

    Parameters
    ----------
    values : keras_tuner.HyperParameters
        Asked for each value by name, so that the search may choose it.

    Returns
    -------
    dict
        Parameters of :class:`~histcxr.models.lenet.LeNetClassifier`.
    """
    blocks = values.Int("blocks", 1, 3, default=2)
    filters = [
        values.Choice("filters_1", [8, 16, 32], default=16),
        values.Choice("filters_2", [16, 32, 64], default=32, parent_name="blocks", parent_values=[2, 3]),
        values.Choice("filters_3", [32, 64], default=32, parent_name="blocks", parent_values=[3]),
    ]
    widths = [
        values.Choice("kernel_1", [5, 9, 15, 25], default=15),
        values.Choice("kernel_2", [3, 5, 9, 15], default=9, parent_name="blocks", parent_values=[2, 3]),
        values.Choice("kernel_3", [3, 5], default=3, parent_name="blocks", parent_values=[3]),
    ]
    layers = values.Int("dense_layers", 1, 3, default=1)
    units = [16, 32, 64, 128, 256, 512, 1024, 2048]
    dense = [
        values.Choice("dense_1", units, default=128),
        values.Choice("dense_2", units, default=64, parent_name="dense_layers", parent_values=[2, 3]),
        values.Choice("dense_3", units, default=32, parent_name="dense_layers", parent_values=[3]),
    ]
    jitter = values.Choice("jitter", [0.0, 0.5, 1.0, 2.0], default=1.0)
    return {
        "representation": values.Choice("representation", ["sqrt", "density"]),
        "smoothing": values.Choice("smoothing", [0.0, 1.0, 2.0]),
        "filters": tuple(filters[:blocks]),
        "kernel_size": tuple(widths[:blocks]),
        "pool_size": values.Choice("pool_size", [2, 4], default=4),
        "pooling": values.Choice("pooling", ["max", "average"]),
        "activation": values.Choice("activation", ["relu", "tanh"]),
        "batch_norm": values.Boolean("batch_norm", default=True),
        "conv_dropout": values.Choice("conv_dropout", [0.0, 0.1, 0.2, 0.3]),
        "dense": tuple(dense[:layers]),
        "dense_dropout": values.Choice("dense_dropout", [0.0, 0.2, 0.3, 0.4, 0.5], default=0.3),
        "learning_rate": values.Float("learning_rate", 3e-4, 1e-2, sampling="log", default=2e-3),
        "weight_decay": values.Float("weight_decay", 1e-5, 1e-2, sampling="log", default=1e-3),
        "label_smoothing": values.Choice("label_smoothing", [0.0, 0.05, 0.1]),
        "batch_size": values.Choice("batch_size", [64, 128, 256], default=128),
        "shift": 0.04 * jitter,
        "gamma": 0.15 * jitter,
        "contrast": 0.1 * jitter,
    }


def tune_lenet(
    X: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    validation: ArrayLike | None = None,
    estimator: LeNetClassifier | None = None,
    space: Callable[[Any], dict[str, Any]] = lenet_space,
    method: str = "hyperband",
    n_trials: int = 30,
    seconds: float | None = None,
    directory: str | Path | None = None,
    random_state: int = 0,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> NetworkSearch[LeNetClassifier]:
    """Try LeNets and keep the one with the highest AUC on held-out patients.

    The estimator as it comes is trained first and competes.

    Parameters
    ----------
    X : array-like, shape (n, zones, bins) or (n, zones * bins)
        Counts, not negative.
    y : array-like, shape (n,)
        Two classes.
    groups : array-like, shape (n,), optional
        The patient of each image.
    validation : array-like of bool, shape (n,), optional
        The images to judge by; the others are learned from. None: one patient-grouped part is held out, as
        large as the estimator's ``validation_fraction``.
    estimator : LeNetClassifier, optional
        Gives the parameters that are not searched: zones, epochs (the longest training), patience and so on.
    space : callable, default=lenet_space
        From a ``keras_tuner.HyperParameters`` to parameters of the estimator.
    method : {"hyperband", "random", "bayesian"}, default="hyperband"
        Hyperband (Li et al., 2018) trains many networks for a ninth of the epochs, the better ones anew for a
        third, the best of them for all. The other two train every network in full, with early stopping.
    n_trials : int, default=30
        Networks to train besides the first; training one anew for longer counts as another.
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
        Its table tells of each training ``score`` (the AUC), ``val_loss, epochs, best_epoch, parameters, seconds``.

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
    options = SearchOptions(method, n_trials, seconds, directory, random_state, on_trial)
    base = LeNetClassifier() if estimator is None else clone(estimator)
    counts, labels, rows, held_out = _check_data(X, y, groups, validation, base, random_state)

    def train(model: LeNetClassifier, share: float, seed: int) -> dict[str, Any]:
        if share < 1:  # its learning rate falls to zero over these epochs, as it will in a fit
            model.set_params(epochs=max(1, round(model.epochs * share)))
        trainer, _ = model.make_trainer(counts, labels)
        network = trainer.train(rows, held_out, seed=seed)
        return best_epoch_outcome(network.history, network.best_epoch) | {"parameters": trainer.n_parameters}

    return search_networks(
        base,
        space,
        train,
        options,
        identity={"method": method, "data": fingerprint(counts, labels, rows, held_out)},
        n_judged=len(held_out),
        purpose="to tune a LeNet",
    )


def _check_data(
    X: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None,
    validation: ArrayLike | None,
    base: LeNetClassifier,
    random_state: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Return counts, labels and the two parts' rows, so that wrong data stop the search before it begins."""
    counts, labels = np.asarray(X), column_or_1d(y)
    check_consistent_length(counts, labels, groups, validation)
    _, target = clone(base).check_data(counts, labels)
    if validation is None:
        if not base.validation_fraction:
            raise InputError("validation must be given where the estimator's validation_fraction is 0")
        rows, part = hold_out(target, groups, base.validation_fraction, int(random_state))
        held_out = np.asarray(part)
    else:
        held = column_or_1d(validation)
        if held.dtype != bool:
            raise InputError(f"validation must be an array of bool; got dtype {held.dtype}")
        rows, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    for name, part in (("the part to learn from", rows), ("the validation part", held_out)):
        if len(np.unique(target[part])) < 2:
            raise InputError(
                f"{name} must hold both classes; got {len(part)} images of {len(np.unique(target[part]))}"
            )
    return counts, labels, rows, held_out
