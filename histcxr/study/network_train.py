"""From labelled radiographs to a reference network that may be trusted: the road of :mod:`histcxr.study.train`.

Training patients fit the network (a share of them only says when to stop), validation patients certify the thresholds
and nothing else, test patients are scored once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick
from histcxr.decision.auc import auc
from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.architectures import HeadOptions, find_architecture
from histcxr.reference.augmentation import PUBLISHED, STRENGTHS
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.images import InputSettings
from histcxr.store.model import ReferenceModel
from histcxr.study.certify import Promise
from histcxr.study.cohort import Data, Reading, balanced_rows, check_columns, labelled_manifest, read_cohort
from histcxr.study.evaluate import class_figures, class_numbers
from histcxr.study.seen import ON_VAL, remember
from histcxr.study.train import Divided, certified_and_measured, divide, told

# Settings that the classifier takes as they are.
_HANDED_ON = ("epochs", "batch_size", "learning_rate", "second_stage_learning_rate", "unfrozen", "weights", "head",
              "views", "patience", "class_weight", "averaged")  # fmt: skip


@dataclass(frozen=True)
class ReferenceSettings:
    """What network is trained, on what, and how; plain values that JSON can hold.

    ``architecture`` is one of :data:`~histcxr.reference.architectures.ARCHITECTURES`. ``region``, ``equalise`` and
    ``blur`` say what it sees (:class:`~histcxr.reference.images.InputSettings`). ``size``, ``epochs``, ``batch_size``,
    ``learning_rate`` and ``patience`` are by default what it was published with. ``classes``: 2, sick against normal,
    or "all", every label. ``weights``, ``unfrozen``, ``second_stage_learning_rate``, ``views``, ``averaged`` and
    ``class_weight``: see :class:`~histcxr.reference.classifier.ReferenceClassifier`. ``augment``, how training images
    are varied: ``"published"``, as the architecture was, or one of
    :data:`~histcxr.reference.augmentation.STRENGTHS`.
    ``undersample``: as in :func:`histcxr.train`. ``held_out`` is the share of the training patients that only says
    when to stop, from 0 (all epochs are run) to 0.5; or ``"val"``, the validation part, of which no certificate can
    then be made.
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
    averaged: bool = False

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
            **{name: getattr(self, name) for name in _HANDED_ON},
            augmentation=PUBLISHED if self.augment == PUBLISHED else STRENGTHS[self.augment],
            validation_fraction=0.0 if self.held_out == ON_VAL else float(self.held_out),
            inputs=self.inputs(),
            random_state=seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class ReferenceResult:
    """What :func:`train_reference` found.

    ``report`` is ready for JSON; ``report["test"]`` holds the figures of the test patients as
    :meth:`histcxr.study.evaluate.Judged.figures` gives them.
    """

    model: ReferenceModel
    report: dict[str, Any]


def train_reference(
    data: Data,
    settings: ReferenceSettings,
    promise: Promise | None = None,
    reading: Reading | None = None,
    *,
    by: Sequence[str] = (),
    seed: int = 0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ReferenceResult:
    """Train, certify (``by`` as in :func:`~histcxr.study.certify.certified`) and measure a reference network.

    ``on_epoch`` is called with each epoch's values. InputError: an argument does not fit, or a part of the data lacks
    a class. MissingDependencyError: Keras or its backend is not installed; asked before any image is read.
    """
    keras = import_neural("keras", "to train a reference network")
    manifest = labelled_manifest(data)
    settings.classifier(seed).check()  # before minutes of reading
    divided = divide(manifest, settings.inputs(), reading or Reading(), seed)
    check_columns(by, divided.cohort.table)
    train, val = divided.parts["train"], divided.parts["val"]
    targets, names = _targets(divided, settings)
    rows = balanced_rows(train, np.array(names, object)[targets["train"]], settings.undersample, seed)
    started = time.perf_counter()
    classifier = _fit(
        divided, targets, rows, settings, seed, cache=reading and reading.cache, on_epoch=on_epoch
    )
    seconds = round(time.perf_counter() - started, 2)
    probabilities = classifier.predict_proba(val.values)
    kept = np.full(len(val), settings.held_out != ON_VAL)
    if not kept.all():
        divided.about["notes"].append("the val part said when to stop training, so it certifies nothing")
    promise = promise or Promise()
    learnt = Counter(targets["train"][rows].tolist())
    training = {
        "settings": settings.to_dict(),
        "normal": divided.cohort.normal,
        "seed": seed,
        "lungs": divided.cohort.lungs,
        "seconds": seconds,
        "learnt_from": {names[number]: count for number, count in sorted(learnt.items())},
        "epochs": len(classifier.history_["loss"]),
        "best_epoch": classifier.best_epoch_ + 1,
        "parameters": int(classifier.to_keras().count_params()),
        "backend": keras.backend.backend(),
        "cores": os.cpu_count(),
    }
    model: Any = ReferenceModel(
        classifier,
        names,
        divided.cohort.normal,
        *promise.nothing(),
        training=remember({**training, **divided.about}, {"train": train, "val": val}),
    )
    model = certified_and_measured(model, val.part(kept), divided.parts, promise, by)
    hidden = lungs_hidden(model, divided.parts["test"].table, reading) if settings.region == "full" else None
    report = {
        "architecture": settings.architecture,
        "inputs": settings.inputs().to_dict(),
        **told(model),
        "lungs_hidden": hidden,
        "val": {"classes": class_figures(targets["val"], probabilities, names)},
        "fit_seconds": seconds,
        "history": _finite(classifier.history_),
        **training,
        "data": divided.about,
    }
    return ReferenceResult(model, report)


def lungs_hidden(model: ReferenceModel, data: Data, reading: Reading | None = None) -> dict[str, Any]:
    """Return the AUC, with its interval, of a network of full images on the same images with their lungs hidden.

    What is left above 0.5 was read outside of the lungs. It was not trained on such images: a low figure is no proof
    that it looks at lungs.
    """
    inputs = replace(model.inputs, region="hidden")
    cohort = read_cohort(data, inputs, replace(reading or Reading(), lungs=None, normal=model.normal))
    return auc(model.score(cohort.values), cohort.sick, patient_ids=cohort.patients).to_dict()


def _targets(
    divided: Divided, settings: ReferenceSettings
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Return the number of each image's class by part, and the names of the classes."""
    table, normal = divided.cohort.table, divided.cohort.normal
    # By the labels of all images, so that a class that a part lacks keeps its number.
    names = ("normal", "sick") if settings.classes == 2 else class_names(table["label"], normal)
    targets = {
        part: class_numbers(members.table["label"], names, normal) for part, members in divided.parts.items()
    }
    missing = [name for number, name in enumerate(names) if not (targets["train"] == number).any()]
    if missing:
        raise InputError(f"the train part must hold every class; it has no image of {', '.join(missing)}")
    return targets, names


def class_names(labels: Iterable[str], normal: str = "Normal") -> tuple[str, ...]:
    """Name the classes of labels: the normal one, of which there must be one, first; the others alphabetically.

    Two labels are normal and sick.
    """
    counts = Counter(str(label).strip() for label in labels)
    names = sorted(counts)
    if len(names) == 2:
        return ("normal", "sick")
    sick = is_sick(names, normal)
    if len(names) < 2 or len(names) - sick.sum() != 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(
            f"classes='all' takes two labels or more, one of them {normal!r}; the table has {len(names)}: {listed}. "
            "Leave out the rows of labels that are not wanted, or give classes=2 for sick against normal"
        )
    return tuple(name for _, name in sorted(zip(sick, names, strict=True)))


def _fit(
    divided: Divided,
    targets: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.intp],
    settings: ReferenceSettings,
    seed: int,
    **how: Any,
) -> ReferenceClassifier:
    train, val = divided.parts["train"], divided.parts["val"]
    pixels = train.values if len(rows) == len(train) else train.values[rows]
    truth, patients, validation = targets["train"][rows], train.patients[rows], None
    if settings.held_out == ON_VAL:
        pixels = np.concatenate([pixels, val.values])
        truth = np.concatenate([truth, targets["val"]])
        patients = np.concatenate([patients, val.patients])
        validation = np.arange(len(truth)) >= len(rows)
    return settings.classifier(seed).fit(pixels, truth, groups=patients, validation=validation, **how)


def _finite(history: Mapping[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [v if np.isfinite(v) else None for v in values] for name, values in history.items()}
