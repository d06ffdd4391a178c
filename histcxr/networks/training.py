"""Training of a network that tells classes apart: in stages, judged on held-out rows by loss, accuracy and AUC."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import column_or_1d

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import FitOptions, Fitted, fit_network, make_batches, outputs

# Keras's own bound for probabilities in a logarithm.
_EPSILON: Final = 1e-7


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on: inputs (n, ...), and int targets (n,), the number of each row's class, from 0.

    ``rows``: to learn from; ``held_out``: to judge by, never augmented, None to run all epochs; ``weights``, (n,): in
    training and validation loss; ``augment(rows, epoch)`` returns these rows of the inputs, changed; ``mixup``: rows of
    a batch are blended in pairs by shares from Beta(mixup, mixup), their losses too (Zhang et al., 2018); 0: not.
    """

    inputs: NDArray[Any]
    targets: NDArray[np.integer]
    rows: NDArray[np.integer]
    held_out: NDArray[np.integer] | None = None
    weights: NDArray[np.floating] | None = None
    augment: Callable[[NDArray[np.intp], int], NDArray[Any]] | None = None
    mixup: float = 0.0

    def batch(self, rows: NDArray[np.intp], epoch: int, step: int) -> tuple[NDArray[Any], ...]:
        """Return inputs, targets and, where there are any, weights of some rows, as Keras takes them.

        Targets are float32 (n, 1); of blended rows (n, 3): the class of the larger share, the other, and that share.
        """
        inputs = self.inputs[rows] if self.augment is None else self.augment(rows, epoch)
        targets = self.targets[rows][:, None].astype(np.float32)
        if self.mixup:
            generator = np.random.default_rng([epoch, step])
            other, share = generator.permutation(len(rows)), generator.beta(self.mixup, self.mixup, len(rows))
            share = np.maximum(share, 1 - share).astype(np.float32)
            own = share.reshape(-1, *[1] * (inputs.ndim - 1))
            inputs = own * inputs + (1 - own) * inputs[other]
            targets = np.column_stack([targets, targets[other], share])
        batch = inputs, targets
        return batch if self.weights is None else (*batch, self.weights[rows].astype(np.float32))

    def judge(self, model: Any) -> dict[str, float]:
        """Return loss, accuracy and AUC on what is held out; see :func:`judge_scores`."""
        held = self.held_out
        weights = None if self.weights is None else self.weights[held]
        return judge_scores(class_scores(model, self.inputs[held]), self.targets[held], weights)


def train_classes(
    model: Any,
    data: TrainingData,
    stages: Sequence[FitOptions],
    *,
    seed: int,
    thaw: Callable[[], tuple[Any, TrainingData]] | None = None,
    entry: Any = None,
    label_smoothing: float = 0.0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Train a network and leave the weights of its best epoch in it; HistcxrError when the loss is no longer a number.

    Each of the ``stages`` starts from the best weights so far, which stay unless it improves on them. The history also
    has ``stage`` (from 1), ``accuracy`` and what :func:`judge_scores` gives. ``model``: from inputs to ``(n, classes)``
    probabilities, or ``(n, 1)`` of the second of two; ``seed``: of the order of rows, no global generator is touched;
    ``thaw``: called before every stage but the first, gives its model and data; ``entry``: layer that inputs go through
    first in training; ``label_smoothing``: share of each label moved to one half (two classes, one probability);
    ``on_epoch``: called with each epoch's values.
    """
    keras = import_neural("keras", "to train a network")
    ops, single = keras.ops, model.output_shape[-1] == 1

    def accuracy(truth: Any, logits: Any) -> Any:
        found = logits > 0 if single else ops.argmax(logits, axis=-1, keepdims=True)
        return ops.cast(ops.equal(ops.cast(found, "float32"), truth[:, :1]), "float32")

    def plain(truth: Any, logits: Any) -> Any:
        if single:
            smoothed = {"from_logits": True, "label_smoothing": label_smoothing}
            return keras.losses.binary_crossentropy(truth, logits, **smoothed)
        return keras.losses.sparse_categorical_crossentropy(truth, logits, from_logits=True)

    def loss(truth: Any, logits: Any) -> Any:
        if truth.shape[-1] == 1:
            return plain(truth, logits)
        share = truth[:, 2]
        return share * plain(truth[:, :1], logits) + (1 - share) * plain(truth[:, 1:2], logits)

    history: dict[str, list[float]] = {}
    best = Fitted({}, 0)
    for number, options in enumerate(stages, start=1):
        if thaw is not None and number > 1:
            model, data = thaw()
        before = model.get_weights()
        # Without the last activation, with the same weights: losses of logits do not saturate.
        trained = keras.Model(model.inputs[0], model.layers[-1].input, name="logits")
        if entry is not None:
            inputs = keras.Input(model.input_shape[1:])
            trained = keras.Model(inputs, trained(entry(inputs)))

        def note(values: dict[str, float], number: int = number) -> None:
            if on_epoch is not None:
                on_epoch({"stage": float(number), **values})

        done = len(history.get("loss", ()))
        batches = make_batches(data.batch, data.rows, options.batch_size, seed=seed, first_epoch=done)
        fitted = fit_network(
            trained,
            batches,
            options,
            loss=loss,
            metrics=[accuracy],
            judge=None if data.held_out is None else partial(data.judge, model),
            on_epoch=note,
            first_epoch=done,
        )
        numbers = [float(number)] * len(fitted.history["loss"])
        for name, values in {"stage": numbers, **fitted.history}.items():
            history.setdefault(name, []).extend(values)
        if data.held_out is None or fitted.best_loss < best.best_loss:
            best = fitted
        else:
            model.set_weights(before)
    return Fitted(history, best.best_epoch)


def class_scores(model: Any, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each class, shape ``(n, classes)``, for inputs (n, ...); each row adds up to 1.

    The model may give ``(n, 1)``, the probability of the second of two classes.
    """
    scores = outputs(model, inputs)
    if scores.shape[1] == 1:
        return np.concatenate([1.0 - scores, scores], axis=1)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def judge_scores(
    scores: NDArray[np.floating], truth: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """Judge class probabilities ``(n, classes)`` of held-out rows by the numbers of their classes, ``(n,)``, from 0.

    Returns ``val_loss``, the weighted mean of the negative log likelihood, ``val_accuracy``, and ``val_auc``, of more
    than two classes the mean of each against the rest (NaN where a class is missing).
    """
    likelihood = np.clip(scores[np.arange(len(truth)), truth], _EPSILON, 1.0)
    auc = math.nan
    if np.isfinite(scores).all() and len(np.unique(truth)) == scores.shape[1]:
        positive = scores[:, 1] if scores.shape[1] == 2 else scores
        auc = float(roc_auc_score(truth, positive, multi_class="ovr"))
    return {
        "val_loss": float(np.average(-np.log(likelihood), weights=weights)),
        "val_accuracy": float(np.mean(scores.argmax(axis=1) == truth)),
        "val_auc": auc,
    }


def named_part(
    targets: NDArray[np.integer], groups: ArrayLike | None, validation: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to learn from and those held out, of which ``validation``, bool of shape (n,), is true.

    InputError when a side lacks a class, or a patient (``groups``, shape (n,)) is on both.
    """
    held = column_or_1d(validation)
    if held.dtype != bool:
        raise InputError(f"validation must be an array of bool; got dtype {held.dtype}")
    classes = len(np.unique(targets))
    for name, part in (("the part to learn from", ~held), ("the validation part", held)):
        found = len(np.unique(targets[part]))
        if found < classes:
            raise InputError(f"{name} must hold every class; got {found} of {classes}")
    if groups is not None:
        patients = column_or_1d(groups)
        shared = np.intersect1d(patients[held], patients[~held])
        if len(shared):
            raise InputError(
                f"validation must not divide a patient; {len(shared)} have images on both sides, the first is "
                f"{shared[0]!r}"
            )
    return np.flatnonzero(~held), np.flatnonzero(held)
