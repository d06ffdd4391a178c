"""From labelled radiographs to a reference network that may be trusted: fit, certify, measure once.

Each part of the data has one use, as in :mod:`histcxr.study.train`: training patients fit the network (a share of them
only says when to stop), validation patients certify the thresholds and nothing else, test patients are scored once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import read_manifest
from histcxr.decision.thresholds import certify
from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.architectures import HeadOptions
from histcxr.reference.augmentation import PUBLISHED, STRENGTHS
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.images import InputSettings, class_targets, undersample
from histcxr.reference.registry import find_architecture
from histcxr.store.model import ReferenceModel, sick_score
from histcxr.study.class_figures import class_figures, class_numbers
from histcxr.study.evaluate import measure
from histcxr.study.network_cohort import StudyImages, pixel_hashes, read_study, split_study

__all__ = ["ON_VAL", "ReferenceResult", "ReferenceSettings", "train_reference"]

#: Value of ``held_out``: the validation part itself says when to stop, and can then certify nothing.
ON_VAL = "val"


@dataclass(frozen=True)
class ReferenceSettings:
    """What network is trained, on what, and how; plain values that JSON can hold.

    Parameters
    ----------
    architecture : str
        One of :data:`~histcxr.reference.registry.ARCHITECTURES`.
    region, equalise, blur
        What it sees; see :class:`~histcxr.reference.images.InputSettings`.
    size, epochs, batch_size, learning_rate : optional
        None: what the architecture was published with.
    classes : {2, "all"}
        Sick against normal, or every label.
    weights, unfrozen, second_stage_learning_rate
        See :class:`~histcxr.reference.classifier.ReferenceClassifier`.
    augment : {"published", "none", "mild", "strong"}
        How training images are varied: as the architecture was published, or one of
        :data:`~histcxr.reference.augmentation.STRENGTHS`.
    undersample : bool or int
        Draw equally many training images of each class, or so many. The other parts keep their mixture.
    head : HeadOptions, optional
    held_out : float or "val"
        Share of the training patients that only says when to stop, from 0 (all epochs are run) to 0.5; or ``"val"``,
        the validation part, of which no certificate can then be made.
    views : int
        How often an image is seen to be scored; see :class:`~histcxr.reference.classifier.ReferenceClassifier`.
    patience : int, optional
        None: the architecture's own.
    class_weight : "balanced" or None
    """

    architecture: str = "resnet-small"
    region: str = "lungs"
    size: int | None = None
    equalise: bool = False
    blur: bool = False
    classes: int | str = 2
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weights: str | None = None
    second_stage_learning_rate: float | None = None
    unfrozen: int | str = 0
    augment: str = PUBLISHED
    undersample: bool | int = False
    head: HeadOptions | None = None
    held_out: float | str = 0.1
    views: int = 1
    patience: int | None = None
    class_weight: str | None = None

    def __post_init__(self) -> None:
        architecture = find_architecture(self.architecture)
        if architecture.transfer and self.weights is None and self.unfrozen != "all":
            raise InputError(
                f"{self.architecture} without weights learns nothing while layers are frozen: give weights "
                "(imagenet or a file), or unfrozen all to train it from scratch"
            )
        if self.classes not in (2, "all"):
            raise InputError(f"classes must be 2 or 'all'; got {self.classes!r}")
        if self.augment != PUBLISHED and self.augment not in STRENGTHS:
            raise InputError(
                f"augment must be one of {', '.join((PUBLISHED, *STRENGTHS))}; got {self.augment!r}"
            )
        share = self.held_out
        if share != ON_VAL and not (isinstance(share, int | float) and 0 <= share <= 0.5):
            raise InputError(f"held_out must be from 0 to 0.5, or 'val'; got {share!r}")

    def inputs(self) -> InputSettings:
        """Return how images are prepared."""
        size = find_architecture(self.architecture).size if self.size is None else self.size
        return InputSettings(size, self.region, self.equalise, self.blur)

    def classifier(self, seed: int) -> ReferenceClassifier:
        """Return the classifier, not yet fitted."""
        return ReferenceClassifier(
            self.architecture,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            second_stage_learning_rate=self.second_stage_learning_rate,
            unfrozen=self.unfrozen,
            weights=self.weights,
            head=self.head,
            augmentation=PUBLISHED if self.augment == PUBLISHED else STRENGTHS[self.augment],
            views=self.views,
            patience=self.patience,
            validation_fraction=0.0 if self.held_out == ON_VAL else float(self.held_out),
            class_weight=self.class_weight,
            inputs=self.inputs(),
            random_state=seed,
        )


@dataclass(frozen=True)
class ReferenceResult:
    """What :func:`train_reference` found.

    Attributes
    ----------
    model : ReferenceModel
    report : dict
        All figures, ready for JSON: ``report["test"]`` holds those of the test patients as
        :func:`histcxr.study.evaluate.measure` gives them, ``report["test"]["classes"]`` those of
        :func:`~histcxr.study.class_figures.class_figures`.
    """

    model: ReferenceModel
    report: dict[str, Any]


def train_reference(
    data: str | PathLike[str] | pd.DataFrame,
    settings: ReferenceSettings,
    *,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    lungs: str | None = None,
    normal: str = "Normal",
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ReferenceResult:
    """Train, certify and measure a reference network.

    Parameters
    ----------
    data : path or DataFrame
        Labelled radiographs; with lung masks where the region needs them.
    settings : ReferenceSettings
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    lungs : {"given", "found", "either"}, optional
        Whose lung masks. By default the data's where they have any, else the network's that comes with histcxr.
    normal : str
        The label that means normal.
    seed, n_jobs, progress
        Random seed, threads that read images, progress bar on stderr.
    on_epoch : callable, optional
        Called with each epoch's values.

    Returns
    -------
    ReferenceResult

    Raises
    ------
    InputError
        An argument does not fit, or a part of the data lacks a class.
    MissingDependencyError
        When Keras or its backend is not installed; asked before any image is read.
    """
    keras = import_neural("keras", "to train a reference network")
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    settings.classifier(seed).check()  # before minutes of reading
    images = read_study(
        manifest, settings.inputs(), lungs=lungs, normal=normal, n_jobs=n_jobs, progress=progress
    )
    parts, notes = split_study(images, seed=seed)
    for part, members in parts.items():
        members.cohort.require_both_classes(f"the {part} part", normal)
    targets, names = _targets(images, parts, settings, normal)
    described = {part: members.cohort.describe() for part, members in parts.items()}
    rows = _learning_rows(parts["train"], targets["train"], names, settings, seed)
    started = time.perf_counter()
    classifier = _fit(parts, targets, rows, settings, seed, on_epoch)
    seconds = time.perf_counter() - started
    scores = {part: classifier.predict_proba(parts[part].pixels) for part in ("val", "test")}
    val = parts["val"].cohort
    kept = slice(0, 0) if settings.held_out == ON_VAL else slice(None)
    if settings.held_out == ON_VAL:
        notes = [*notes, "the val part said when to stop training, so it certifies nothing"]
    chosen = certify(
        sick_score(scores["val"])[kept],
        val.sick[kept],
        val.patients[kept],
        sensitivity=sensitivity,
        specificity=specificity,
        confidence=confidence,
    )
    test = measure(sick_score(scores["test"]), parts["test"].cohort, chosen.rule_out, chosen.rule_in)
    test["classes"] = class_figures(targets["test"], scores["test"], names)
    training = {
        "settings": _plain(settings),
        "normal": normal,
        "seed": seed,
        "lungs": images.cohort.lungs,
        "seconds": round(seconds, 2),
        "learnt_from": {names[number]: count for number, count in _counts(targets["train"][rows]).items()},
        "epochs": len(classifier.history_["loss"]),
        "best_epoch": classifier.best_epoch_ + 1,
        "parameters": int(classifier.to_keras().count_params()),
        "backend": keras.backend.backend(),
        "cores": os.cpu_count(),
        **described,
        "unusable": dict(images.cohort.unusable),
        "notes": notes,
    }
    val_figures = class_figures(targets["val"], scores["val"], names)
    report = {
        "architecture": settings.architecture,
        "inputs": settings.inputs().to_dict(),
        "test": test,
        "val": {"classes": val_figures},
        "threshold": chosen.rule_out.to_dict(),
        "rule_in_threshold": chosen.rule_in.to_dict(),
        "fit_seconds": training["seconds"],
        "history": _finite(classifier.history_),
        **{key: value for key, value in training.items() if key not in ("notes", "unusable", *described)},
        "data": {**described, "unusable": training["unusable"], "notes": notes},
    }
    seen = {part: sorted(set(pixel_hashes(parts[part].pixels))) for part in ("train", "val")}
    model = ReferenceModel(
        classifier=classifier,
        classes=names,
        normal=normal,
        rule_out=chosen.rule_out,
        rule_in=chosen.rule_in,
        metrics={"test": test},
        training={**training, "seen": seen},
    )
    return ReferenceResult(model, report)


def _targets(
    images: StudyImages, parts: Mapping[str, StudyImages], settings: ReferenceSettings, normal: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Return the number of each image's class by part, and the names of the classes."""
    table = images.cohort.table
    count = 2 if settings.classes == 2 else table["label"].astype(str).str.strip().nunique()
    # By the labels of all images, so that a class that a part lacks keeps its number.
    _, names = class_targets(table, int(count), normal=normal)
    targets = {
        part: class_numbers(members.cohort.table["label"], names, normal) for part, members in parts.items()
    }
    missing = [name for number, name in enumerate(names) if not (targets["train"] == number).any()]
    if missing:
        raise InputError(f"the train part must hold every class; it has no image of {', '.join(missing)}")
    return targets, names


def _learning_rows(
    train: StudyImages,
    targets: NDArray[np.int64],
    names: tuple[str, ...],
    settings: ReferenceSettings,
    seed: int,
) -> NDArray[np.intp]:
    """Return which training images are learnt from."""
    if settings.undersample is False:
        return np.arange(len(train))
    table = train.cohort.table.assign(_class=np.array(names, dtype=object)[targets])
    per_class = None if settings.undersample is True else settings.undersample
    return undersample(table, per_class=per_class, by="_class", seed=seed)


def _fit(
    parts: Mapping[str, StudyImages],
    targets: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.intp],
    settings: ReferenceSettings,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> ReferenceClassifier:
    train, val = parts["train"], parts["val"]
    pixels = train.pixels if len(rows) == len(train) else train.pixels[rows]
    truth, patients, validation = targets["train"][rows], train.cohort.patients[rows], None
    if settings.held_out == ON_VAL:
        pixels = np.concatenate([pixels, val.pixels])
        truth = np.concatenate([truth, targets["val"]])
        patients = np.concatenate([patients, val.cohort.patients])
        validation = np.arange(len(truth)) >= len(rows)
    return settings.classifier(seed).fit(
        pixels, truth, groups=patients, validation=validation, on_epoch=on_epoch
    )


def _counts(numbers: NDArray[np.int64]) -> dict[int, int]:
    return dict(sorted(Counter(numbers.tolist()).items()))


def _plain(settings: ReferenceSettings) -> dict[str, Any]:
    """Return the settings as JSON holds them."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings).items()}


def _finite(history: Mapping[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [v if np.isfinite(v) else None for v in values] for name, values in history.items()}
