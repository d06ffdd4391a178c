"""From radiographs with masks to a file that finds lungs: train the network, fit the gate, measure, write."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from histcxr import __version__
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.decision.out_of_distribution import OutOfDistribution
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.lungs.disturbances import disturb
from histcxr.lungs.gate import Gate, fit_gate, no_radiographs
from histcxr.lungs.pairs import MaskedRadiographs, read_pairs, with_masks
from histcxr.lungs.segmenter import Segmenter
from histcxr.lungs.training import SegmenterOptions, dice, train_segmenter
from histcxr.lungs.unet import check_weights, write_onnx
from histcxr.networks.fit import Weights

#: Licence and purpose, kept in every file.
USE = "research use only; trained on data whose own licences apply"

_Progress = Callable[[dict[str, float | int | None]], None]


def build_segmenter(
    data: Iterable[str | os.PathLike[str]],
    column: str = "mask",
    options: SegmenterOptions | None = None,
    *,
    n_jobs: int = 1,
    progress: _Progress | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """Train a network on radiographs with lung masks and pack it with all that it takes to use it.

    Parameters
    ----------
    data : iterable of path-like
        Folders or lists; see :func:`~histcxr.lungs.pairs.with_masks`.
    column : str
        Their column with the masks.
    options : SegmenterOptions, optional
    n_jobs : int
        Threads that read images.
    progress : callable, optional
        Called after each epoch with its loss and validation Dice coefficient.

    Returns
    -------
    model : bytes
        An ONNX file, for :class:`~histcxr.lungs.segmenter.Segmenter`.
    about : dict
        What the file says of itself: data, settings, history, figures on the test patients.

    Raises
    ------
    InputError
        Too few radiographs with readable masks.
    MissingDependencyError
        Keras is not installed.
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

    Parameters
    ----------
    segmenter : Segmenter
    table : DataFrame
        With the columns ``image`` and ``mask``; patients the network has not seen.
    by : str
        The column that names the groups.

    Returns
    -------
    dict
        For each group ``images``, ``refused`` (images without lungs found, which count with a Dice coefficient of
        0), ``dice`` (mean) and ``dice_5th`` (5th percentile).

    Raises
    ------
    InputError
        When not one image and mask can be read.
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
