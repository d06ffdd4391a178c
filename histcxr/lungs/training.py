"""From radiographs with masks to a file that finds lungs: train the network, fit the gate, measure, write."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr import __version__
from histcxr.checks import whole_number
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.decision.out_of_distribution import OutOfDistribution
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.lungs.pairs import MaskedRadiographs, Pair, disturb, move, read_pairs, with_masks
from histcxr.lungs.segmenter import SIZE, Segmenter, standardised
from histcxr.lungs.unet import WIDTHS, Gate, build_unet, check_weights, fit_gate, no_radiographs, write_onnx
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import FitOptions, Weights, fit_network, get_weights, make_batches, outputs

#: Licence and purpose, kept in every file.
USE = "research use only; trained on data whose own licences apply"

# Validation pictures made at a time: bounds the memory.
_JUDGED = 64

_Entry = dict[str, float | int | None]
_Progress = Callable[[_Entry], None]


@dataclass(frozen=True)
class SegmenterOptions:
    """How the network is trained: passes through the disturbed pictures, and Adam's highest rate.

    The rate rises over the first of ``epochs`` and falls to zero along a cosine. ``finishing``: further ones at a third
    of it, half of the pictures undisturbed, small sources drawn more often, by the square root of their size.
    ``widths``: maps on each level; ``seed``: for weights, order and disturbances.
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
    """Weights (float32 by name), and each epoch's number, ``loss`` and mean validation ``dice`` (None without any)."""

    weights: Weights
    history: list[_Entry]


def train_segmenter(
    training: MaskedRadiographs,
    validation: MaskedRadiographs,
    options: SegmenterOptions | None = None,
    *,
    progress: _Progress | None = None,
) -> TrainedSegmenter:
    """Train the network on disturbed pictures; see :mod:`histcxr.lungs.pairs`.

    The loss is the mean of cross-entropy and one minus soft Dice (Milletari, Navab and Ahmadi, 2016); weights are
    averaged over the steps (exponential moving average), and no epoch is picked. ``progress`` is called with each
    epoch's entry of the history. InputError: no training pictures; HistcxrError: the loss is no longer a number;
    MissingDependencyError: no Keras or backend.
    """
    options = options or SegmenterOptions()
    if not len(training):
        raise InputError("there must be training pictures with a readable image and mask; got none")
    model = build_unet(options.widths, seed=options.seed)
    history: list[_Entry] = []

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


def build_segmenter(
    data: Iterable[str | os.PathLike[str]],
    column: str = "mask",
    options: SegmenterOptions | None = None,
    *,
    n_jobs: int = 1,
    progress: _Progress | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """Train a network on radiographs with lung masks and pack it with all that it takes to use it.

    ``data, column``: see :func:`~histcxr.lungs.pairs.with_masks`; ``n_jobs``: threads that read; ``progress``: called
    with each epoch's entry of the history. Returns an ONNX file for :class:`~histcxr.lungs.segmenter.Segmenter`, and
    what it says of itself: data, settings, history, figures on the test patients. InputError: too few radiographs with
    readable masks; MissingDependencyError: no Keras.
    """
    options = options or SegmenterOptions()
    paths = [os.fspath(path) for path in data]
    table = with_masks(paths, column, seed=options.seed)
    learning = read_pairs(table[table["split"] != "test"].reset_index(drop=True), n_jobs=n_jobs)
    training, validation = learning.part("train"), learning.part("val")
    trained = train_segmenter(training, validation, options, progress=progress)
    parts = {"train": training, "val": validation}
    about: dict[str, Any] = {
        "data": [os.path.basename(os.path.abspath(path)) for path in paths],
        "images": {name: len(part) for name, part in parts.items()},
        "patients": {
            name: int(part.table["patient_id"].nunique()) for name, part in parts.items() if len(part)
        },
        "unusable": len(learning.unusable),
        "epochs": [options.epochs, options.finishing],
        "seed": options.seed,
        "history": trained.history,
    }
    gate = _gate_for(trained.weights, training, validation, options.seed)
    model, about = _packed(trained.weights, gate, about)
    test = table[table["split"] == "test"].reset_index(drop=True)
    if len(test):
        about["test"] = measure_segmenter(Segmenter(model), test)
        model, about = _packed(trained.weights, gate, about)
    return model, about


def _gate_for(
    weights: Weights, training: MaskedRadiographs, validation: MaskedRadiographs, seed: int
) -> Gate:
    """Fit the gate; half of the radiographs are as they are, half are disturbed: archives hold both."""
    size = 4 * check_weights(weights)[-1]
    everything = OutOfDistribution(np.zeros(size), np.eye(1, size), 1e30, 0.0)
    open_gate = Gate(everything, np.zeros(size), 0.0, -1e30, 0.0)
    bare = Segmenter(_packed(weights, open_gate, {})[0])
    known, unseen = (_contexts(bare, part, seed) for part in (training, validation))
    return fit_gate(known, unseen, _strange_contexts(bare, training, seed))


def _packed(weights: Weights, gate: Gate, about: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Write the file; ``about`` gains the gate's limits, the shares that they refuse, and the versions."""
    about = {
        **about,
        "farthest": gate.distribution.limit,
        "lowest": gate.limit,
        "false_alarms": [gate.distribution.false_alarms, gate.false_alarms],
        "use": USE,
        "versions": {"histcxr": __version__, "python": platform.python_version(), "keras": version("keras")},
    }
    text = json.dumps(about, allow_nan=False)
    return write_onnx(weights, gate, properties={"about": text}), about


def _contexts(segmenter: Segmenter, part: MaskedRadiographs, seed: int) -> np.ndarray:
    generators = (np.random.default_rng([seed, row, 2]) for row in range(len(part)))
    moved = [disturb(part.pair(row), rng).pixels for row, rng in enumerate(generators)]
    return np.concatenate([segmenter.contexts(list(part.pixels)), segmenter.contexts(moved)])


def _strange_contexts(segmenter: Segmenter, training: MaskedRadiographs, seed: int) -> np.ndarray:
    strange = no_radiographs(training.pixels, seed, drawn=min(300, 1 + len(training) // 10))
    parts = []
    while pictures := list(islice(strange, 256)):
        parts.append(segmenter.contexts(pictures))
    return np.concatenate(parts)


def measure_segmenter(segmenter: Segmenter, table: pd.DataFrame, by: str = "source") -> dict[str, Any]:
    """Compare found lungs with given masks, at each radiograph's own size.

    The table has the columns ``image`` and ``mask``, of patients that the network has not seen; ``by`` names that of
    the groups. For each group: ``images``, ``refused`` (images without lungs found, which count with a Dice coefficient
    of 0), ``dice`` (mean) and ``dice_5th`` (5th percentile). InputError is raised when not one pair can be read.
    """
    groups = table[by].astype(str) if by in table else pd.Series("all", index=table.index)
    figures: dict[str, Any] = {}
    for group in sorted(set(groups)):
        rows = table[(groups == group).to_numpy()]
        scores: list[float] = []
        refused = 0
        for image, mask in zip(rows["image"], rows["mask"], strict=True):
            try:
                pixels = read_radiograph(image).pixels
                truth = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
            except UnjudgeableError:
                continue
            (found,) = segmenter.segment([pixels])
            refused += isinstance(found, UnjudgeableError)
            scores.append(0.0 if isinstance(found, UnjudgeableError) else dice(found.mask, truth))
        if scores:
            figures[group] = {
                "images": len(scores),
                "refused": refused,
                "dice": float(np.mean(scores)),
                "dice_5th": float(np.quantile(scores, 0.05)),
            }
    if not figures:
        raise InputError(f"not one of {len(table)} images and masks can be read")
    return figures
