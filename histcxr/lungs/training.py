"""Training the network that finds lungs: pairs in, weights and learning curve out, on any backend of Keras 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.lungs.disturbances import Pair, disturb, move
from histcxr.lungs.pairs import MaskedRadiographs
from histcxr.lungs.segmenter import SIZE, standardised
from histcxr.lungs.unet import WIDTHS, Weights, build_unet, get_weights, set_weights
from histcxr.networks.backend import import_neural

__all__ = ["SegmenterOptions", "TrainedSegmenter", "dice", "train_segmenter"]

_BATCH_FOR_VALIDATION = 64


@dataclass(frozen=True)
class SegmenterOptions:
    """How the network is trained.

    Parameters
    ----------
    epochs : int
        Passes through the training pictures, all of them disturbed; the learning rate rises over the first and
        falls to zero along a cosine over the rest.
    finishing : int
        Further epochs at a third of that rate, in which half of the pictures are left as they are and small sources
        are drawn more often than large ones, by the square root of their size.
    batch_size : int
    learning_rate : float
        Adam's highest.
    widths : tuple of int
        Maps on each level of the network.
    seed : int
        For weights, order and disturbances.

    Raises
    ------
    InputError
        When a number is out of its range.
    """

    epochs: int = 24
    finishing: int = 8
    batch_size: int = 32
    learning_rate: float = 4e-3
    widths: tuple[int, ...] = WIDTHS
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("finishing", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number from {least}; got {value!r}")
        if not self.epochs + self.finishing:
            raise InputError("epochs and finishing must not both be 0")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be above 0 and finite; got {self.learning_rate!r}")
        if not 2 <= len(self.widths) <= 6:
            raise InputError(f"widths must name the maps of 2 to 6 levels; got {self.widths!r}")


@dataclass(frozen=True)
class TrainedSegmenter:
    """What training gives.

    Attributes
    ----------
    weights : dict of str to ndarray of float32
    history : list of dict
        One entry an epoch: ``epoch``, ``loss``, and ``dice``, the mean over the validation pictures (at the
        network's size), None without any.
    """

    weights: Weights
    history: list[dict[str, float | int | None]]


def train_segmenter(
    training: MaskedRadiographs,
    validation: MaskedRadiographs,
    options: SegmenterOptions | None = None,
    *,
    start: Weights | None = None,
    progress: Callable[[dict[str, float | int | None]], None] | None = None,
) -> TrainedSegmenter:
    """Train the network on disturbed pictures; see :mod:`histcxr.lungs.disturbances`.

    The loss is the mean of cross-entropy and one minus the soft Dice coefficient (Milletari, Navab and Ahmadi,
    2016). The weights are averaged over the steps (exponential moving average). No epoch is picked: validation only
    shows how training goes.

    Parameters
    ----------
    training, validation : MaskedRadiographs
    options : SegmenterOptions, optional
    start : dict of str to ndarray, optional
        Weights to go on from, of the same widths; by default fresh ones.
    progress : callable, optional
        Called with each epoch's entry of the history.

    Returns
    -------
    TrainedSegmenter

    Raises
    ------
    InputError
        When there are no training pictures.
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    options = options or SegmenterOptions()
    if not len(training):
        raise InputError("there must be training pictures with a readable image and mask; got none")
    keras = import_neural("keras", "to train the network that finds lungs")
    model = build_unet(options.widths, seed=options.seed)
    if start is not None:
        set_weights(model, start)
    history: list[dict[str, float | int | None]] = []

    def note(entry: dict[str, float | int | None]) -> None:
        history.append({"epoch": len(history) + 1, **entry})
        if progress is not None:
            progress(history[-1])

    if options.epochs:
        _run_phase(keras, model, training, validation, options, note, finishing=False)
    if options.finishing:
        _run_phase(keras, model, training, validation, options, note, finishing=True)
    return TrainedSegmenter(get_weights(model), history)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks: twice the common area over the sum of both; 1 where both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def _run_phase(
    keras: Any,
    model: Any,
    training: MaskedRadiographs,
    validation: MaskedRadiographs,
    options: SegmenterOptions,
    note: Callable[[dict[str, float | int | None]], None],
    *,
    finishing: bool,
) -> None:
    """Train for the epochs of one phase, with a learning rate that rises and falls once."""
    epochs = options.finishing if finishing else options.epochs
    rate = options.learning_rate / 3 if finishing else options.learning_rate
    steps = math.ceil(len(training) / options.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 20, decay_steps=max(1, steps * (epochs - 1)), warmup_target=rate, warmup_steps=steps
    )
    # A short training must not average in the weights that it began with.
    momentum = min(0.995, 1 - 8 / (steps * epochs + 8))
    optimizer = keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=momentum, clipnorm=1.0)
    # XLA on a processor takes longer to compile than it saves; JAX knows nothing else.
    compiled = keras.backend.backend() == "jax"
    model.compile(optimizer, loss=_loss(keras), jit_compile=compiled)

    def end_epoch(epoch: int, logs: dict[str, float]) -> None:
        # Validation wants the averaged weights, training goes on with its own.
        own = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.trainable_variables]
        optimizer.finalize_variable_values(model.trainable_variables)
        score = float(np.mean(_validate(model, validation))) if len(validation) else None
        for weight, value in zip(model.trainable_variables, own, strict=True):
            weight.assign(value)
        note({"loss": float(logs["loss"]), "dice": score})

    model.fit(
        _batches(keras, training, options, finishing=finishing),
        epochs=epochs,
        shuffle=False,  # the batches come in a new order already, one that follows from the seed
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=end_epoch)],
    )


def _source_shares(training: MaskedRadiographs) -> NDArray[np.float64]:
    """How likely each picture is drawn: sources count by the square root of their size."""
    sources = training.table["source"].astype(str)
    sizes = sources.map(sources.value_counts()).to_numpy(np.float64)
    shares = sizes**-0.5
    return np.asarray(shares / shares.sum())


def _loss(keras: Any) -> Callable[[Any, Any], Any]:
    ops = keras.ops

    def loss(truth: Any, found: Any) -> Any:
        entropy = ops.mean(ops.binary_crossentropy(truth, found), axis=(1, 2, 3))
        common = ops.sum(truth * found, axis=(1, 2, 3))
        areas = ops.sum(truth * truth, axis=(1, 2, 3)) + ops.sum(found * found, axis=(1, 2, 3))
        return 0.5 * (entropy + 1 - (2 * common + 1) / (areas + 1))

    return loss


def _shrunk(pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bring a pair to what the network sees and is to answer."""
    size = (SIZE, SIZE)
    square = cv2.resize(pair.pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    mask = cv2.resize(pair.mask, size, interpolation=cv2.INTER_AREA)
    return standardised(square), mask.astype(np.float32) / np.float32(255)


def _batches(keras: Any, training: MaskedRadiographs, options: SegmenterOptions, *, finishing: bool) -> Any:
    """Pictures in a new order and newly disturbed in each epoch, made in a thread beside the network."""
    rows = np.arange(len(training))
    shares = _source_shares(training) if finishing else None
    phase = int(finishing)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
            self._epoch = -1
            self.on_epoch_end()

        def __len__(self) -> int:
            return math.ceil(len(rows) / options.batch_size)

        def __getitem__(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            places = range(step * options.batch_size, min((step + 1) * options.batch_size, len(rows)))
            made = []
            for place in places:
                # Seeded by phase, epoch and place: threads may come in any order.
                rng = np.random.default_rng([options.seed, phase, self._epoch, place, 1])
                pair = training.pair(int(self._order[place]))
                if finishing and rng.random() < 0.5:
                    pair = move(pair, 0, flip=bool(rng.random() < 0.5))
                else:
                    pair = disturb(pair, rng)
                made.append(_shrunk(pair))
            pictures, masks = zip(*made, strict=True)
            return np.stack(pictures)[..., None], np.stack(masks)[..., None]

        def on_epoch_end(self) -> None:
            self._epoch += 1
            rng = np.random.default_rng([options.seed, phase, self._epoch])
            if shares is None:
                self._order = rng.permutation(rows)
            else:
                self._order = rng.choice(rows, len(rows), p=shares)

    return Batches()


def _validate(model: Any, validation: MaskedRadiographs) -> list[float]:
    scores = []
    for start in range(0, len(validation), _BATCH_FOR_VALIDATION):
        rows = range(start, min(start + _BATCH_FOR_VALIDATION, len(validation)))
        pictures, masks = zip(*(_shrunk(validation.pair(row)) for row in rows), strict=True)
        found = np.asarray(model.predict_on_batch(np.stack(pictures)[..., None]))[..., 0]
        scores += [dice(one > 0.5, mask > 0.5) for one, mask in zip(found, masks, strict=True)]
    return scores
