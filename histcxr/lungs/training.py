"""Training the network that finds lungs: pairs in, weights and learning curve out, on any backend of Keras 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.checks import whole_number
from histcxr.exceptions import InputError
from histcxr.lungs.disturbances import Pair, disturb, move
from histcxr.lungs.pairs import MaskedRadiographs
from histcxr.lungs.segmenter import SIZE, standardised
from histcxr.lungs.unet import WIDTHS, build_unet
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import FitOptions, Weights, fit_network, get_weights, make_batches, outputs

__all__ = ["SegmenterOptions", "TrainedSegmenter", "dice", "train_segmenter"]

# Validation pictures made at a time: bounds the memory.
_JUDGED = 64


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
            whole_number(getattr(self, name), name, least=least)
        if not self.epochs + self.finishing:
            raise InputError("epochs and finishing must not both be 0")
        FitOptions(1, 1, self.learning_rate)  # which refuses a rate that is none
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
    progress : callable, optional
        Called with each epoch's entry of the history.

    Returns
    -------
    TrainedSegmenter

    Raises
    ------
    InputError
        When there are no training pictures.
    HistcxrError
        When the loss is no longer a number.
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    options = options or SegmenterOptions()
    if not len(training):
        raise InputError("there must be training pictures with a readable image and mask; got none")
    model = build_unet(options.widths, seed=options.seed)
    history: list[dict[str, float | int | None]] = []

    def judge() -> dict[str, float]:
        return {"dice": _mean_dice(model, validation)} if len(validation) else {}

    def note(values: dict[str, float]) -> None:
        history.append({"epoch": len(history) + 1, "loss": values["loss"], "dice": values.get("dice")})
        if progress is not None:
            progress(history[-1])

    rows = np.arange(len(training))
    for finishing, epochs in ((False, options.epochs), (True, options.finishing)):
        if not epochs:
            continue
        rate = options.learning_rate / 3 if finishing else options.learning_rate
        fit_network(
            model,
            make_batches(
                _maker(training, options, finishing=finishing),
                rows,
                options.batch_size,
                seed=2 * options.seed + finishing,
                shares=_source_shares(training) if finishing else None,
            ),
            FitOptions(epochs, options.batch_size, rate, schedule="warmup", averaged=True),
            loss=_loss(import_neural("keras", "to train the network that finds lungs")),
            judge=judge,
            on_epoch=note,
        )
    return TrainedSegmenter(get_weights(model), history)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks: twice the common area over the sum of both; 1 where both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


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


def _maker(
    training: MaskedRadiographs, options: SegmenterOptions, *, finishing: bool
) -> Callable[[NDArray[np.intp], int, int], tuple[NDArray[np.float32], ...]]:
    """Return what makes a batch: pictures newly disturbed in each epoch; finishing, half of them as they are."""

    def make(rows: NDArray[np.intp], epoch: int, step: int) -> tuple[NDArray[np.float32], ...]:
        made = []
        for place, row in enumerate(rows, start=step * options.batch_size):
            # Seeded by phase, epoch and place: threads may come in any order.
            rng = np.random.default_rng([options.seed, int(finishing), epoch, place, 1])
            pair = training.pair(int(row))
            if finishing and rng.random() < 0.5:
                pair = move(pair, 0, flip=bool(rng.random() < 0.5))
            else:
                pair = disturb(pair, rng)
            made.append(_shrunk(pair))
        pictures, masks = zip(*made, strict=True)
        return np.stack(pictures)[..., None], np.stack(masks)[..., None]

    return make


def _mean_dice(model: Any, validation: MaskedRadiographs) -> float:
    scores = []
    for start in range(0, len(validation), _JUDGED):
        rows = range(start, min(start + _JUDGED, len(validation)))
        pictures, masks = zip(*(_shrunk(validation.pair(row)) for row in rows), strict=True)
        found = outputs(model, np.stack(pictures)[..., None])[..., 0]
        scores += [dice(one > 0.5, mask > 0.5) for one, mask in zip(found, masks, strict=True)]
    return float(np.mean(scores))
