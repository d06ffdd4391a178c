"""The saved reference network: classifier, classes, certified thresholds and papers, in files that cannot run code.

A folder ``NAME.reference``: ``network.json`` and ``weights.npz`` as :mod:`histcxr.reference.saving` writes them, and
``model.json``, which names the network by its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import InputError, ModelError, OutputError
from histcxr.features.measuring import Lungs, Pixels
from histcxr.lungs.segmenter import load_segmenter
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.inputs import lung_square
from histcxr.reference.preparation import InputSettings
from histcxr.reference.saving import NETWORK_FILE, WEIGHTS_FILE, load_classifier, save_classifier
from histcxr.store.folder import MANIFEST_FILE, NETWORK_ABOUT
from histcxr.store.model import installed_versions, json_ready

__all__ = [
    "FORMAT",
    "MODEL_FILE",
    "ReferenceModel",
    "bytes_on_disk",
    "check_place",
    "load_reference",
    "save_reference",
    "sick_score",
]

FORMAT: Final = "histcxr reference"
FORMAT_VERSION: Final = 1
MODEL_FILE: Final = NETWORK_ABOUT
_PACKAGES: Final = ("numpy", "keras", "tensorflow", "tensorflow-cpu", "torch", "jax")


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """A fitted network with everything it takes to use it and to judge it.

    Parameters
    ----------
    classifier : ReferenceClassifier
        Fitted on the numbers of the classes, with its ``inputs``.
    classes : tuple of str
        Names of the classes, the normal one first.
    normal : str
        The label that means normal.
    rule_out, rule_in : ThresholdChoice
        Certified or not.
    metrics, training : mapping, optional
        Test results, and how it was trained. Anything JSON can hold.

    Attributes
    ----------
    versions : dict
        The packages that saved it, or the installed ones while it is not saved.
    hash : str
        SHA-256 of ``model.json``, "" while it is not saved.
    """

    classifier: ReferenceClassifier
    classes: tuple[str, ...]
    normal: str
    rule_out: ThresholdChoice
    rule_in: ThresholdChoice
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(init=False, default_factory=lambda: installed_versions(_PACKAGES))
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        for kind in ("rule_out", "rule_in"):
            choice = getattr(self, kind)
            if not isinstance(choice, ThresholdChoice) or choice.kind != kind:
                raise InputError(f"{kind} must be a {kind} ThresholdChoice, got {choice!r}")
        if not isinstance(self.classifier.inputs, InputSettings):
            raise InputError("classifier must say how its images were prepared; its inputs are None")
        numbers = self.classifier.classes_.tolist()
        if numbers != list(range(len(self.classes))):
            raise InputError(f"classes must name the classifier's {numbers}, got {self.classes}")

    @property
    def name(self) -> str:
        """The architecture."""
        return str(self.classifier.architecture)

    @property
    def inputs(self) -> InputSettings:
        """How images are prepared for it."""
        inputs: InputSettings = self.classifier.inputs  # type: ignore[assignment]  # __post_init__ made sure
        return inputs

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probability of each class, shape (n, k), of images (n, size, size)."""
        if not len(pixels):
            return np.empty((0, len(self.classes)))
        return self.classifier.predict_proba(pixels)

    def score(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probability of being sick, whatever the disease; higher is sicker."""
        return sick_score(self.probabilities(pixels))

    @property
    def packages(self) -> tuple[str, ...]:
        """What its scores depend on."""
        return _PACKAGES

    def fingerprint(self) -> str:
        """Return its hash: that of its folder if it was loaded, else the one that saving would give."""
        if self.hash:
            return self.hash
        with tempfile.TemporaryDirectory() as scratch:
            return _sha256(save_reference(self, Path(scratch) / "unsaved") / MODEL_FILE)

    def measure(self, pixels: Pixels, lungs: Lungs, name: str) -> NDArray[np.uint8]:
        """Read of one image what the network sees of it.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (height, width)
        lungs : ndarray of bool, shape (height, width)
            Needed for the region ``"full"``, too: they show that this is a chest to be judged.
        name : str
            The image's, for messages.

        Returns
        -------
        ndarray of uint8, shape (size, size)

        Raises
        ------
        RadiographError
            The same images are refused as by histogram models, see :func:`~histcxr.reference.inputs.lung_square`.
        """
        return lung_square(pixels, lungs, name, settings=self.inputs)

    def unfamiliar(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which images are unlike all that it was trained on: a network cannot, so none of them, shape (n,)."""
        return np.zeros(len(pixels), bool)

    def describe_input(self) -> dict[str, Any]:
        """Return what is read from an image, ready for the head of an audit trail."""
        return {"inputs": self.inputs.to_dict()}

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say what a reader of its scores must know; see :class:`~histcxr.store.judges.Judge`."""
        notes = [
            f"{self.name} is a network and has no check of what it was trained on: lungs unlike all of its training "
            "images get a score like any others"
        ]
        certified = load_segmenter().digest if self.training.get("lungs") == "found" else None
        if self.inputs.region != "full" and found and segmenter != certified:
            notes.append(
                f"the lungs of {found} images were found by a network, and the thresholds were certified with other "
                "masks: certify them anew with histcxr calibrate --lungs found"
            )
        return tuple(notes)

    def describe(self) -> dict[str, Any]:
        """Return everything but the network itself, ready for JSON."""
        return {
            "name": self.name,
            "hash": self.hash,
            "classes": list(self.classes),
            "normal": self.normal,
            "inputs": self.inputs.to_dict(),
            "thresholds": {"rule_out": self.rule_out.to_dict(), "rule_in": self.rule_in.to_dict()},
            "metrics": json_ready(self.metrics),
            "training": json_ready(self.training),
            "versions": dict(self.versions),
        }


def sick_score(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of any class but the first, shape (n,)."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1]
    return np.asarray(1.0 - probabilities[:, 0]).clip(0.0, 1.0)


def save_reference(model: ReferenceModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save a network as a folder of data files; it appears at once or not at all.

    Raises
    ------
    InputError
        Something is in the way, or the folder above does not exist.
    OutputError
        When it cannot be written.
    """
    target = check_place(path, overwrite)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            folder = save_classifier(model.classifier, Path(scratch) / "new")
            about = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "network_sha256": _sha256(folder / NETWORK_FILE),
                **{name: value for name, value in model.describe().items() if name != "hash"},
            }
            (folder / MODEL_FILE).write_text(json.dumps(about, indent=2, allow_nan=False), encoding="utf-8")
            if target.exists():
                target.rename(Path(scratch) / "old")
            folder.rename(target)
    except OSError as error:
        raise OutputError(f"{target}: the network cannot be written ({error.strerror or error})") from error
    return target


def check_place(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Refuse a place where nothing may be written, before hours of training."""
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; make it first")
    if target.exists():
        if not (target / MODEL_FILE).is_file():
            raise InputError(f"{target} is there and is no reference network; give another name")
        if not overwrite:
            raise InputError(f"{target} is there already; give another name, or overwrite it")
    return target


def load_reference(path: str | os.PathLike[str]) -> ReferenceModel:
    """Read a network that :func:`save_reference` wrote.

    Raises
    ------
    ModelError
        When there is none, or it is damaged, of another format, or not one of ours.
    MissingDependencyError
        When Keras or its backend is not installed.
    """
    folder = Path(path)
    try:
        content = (folder / MODEL_FILE).read_bytes()
        found = _sha256(folder / NETWORK_FILE)
    except OSError as error:
        if (folder / MANIFEST_FILE).is_file():
            raise ModelError(
                f"{folder}: this is a histogram model, no reference network; histcxr.load_model and histcxr evaluate "
                "take it"
            ) from error
        raise ModelError(
            f"{folder}: no reference network can be read here ({error.strerror or error})"
        ) from error
    try:
        about = json.loads(content)
        if about["format"] != FORMAT or about["format_version"] != FORMAT_VERSION:
            raise ModelError(
                f"{folder} must be a {FORMAT!r} of version {FORMAT_VERSION}; it says {about['format']!r} of "
                f"{about['format_version']!r}"
            )
        if found != about["network_sha256"]:
            raise ModelError(f"{folder / NETWORK_FILE} is not the one that was saved: the file was changed")
        classifier = load_classifier(folder)
        model = ReferenceModel(
            classifier=classifier,
            classes=tuple(map(str, about["classes"])),
            normal=str(about["normal"]),
            rule_out=ThresholdChoice.from_dict(about["thresholds"]["rule_out"]),
            rule_in=ThresholdChoice.from_dict(about["thresholds"]["rule_in"]),
            metrics=dict(about["metrics"]),
            training=dict(about["training"]),
        )
        object.__setattr__(model, "versions", dict(about["versions"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # InputError is a ValueError
        raise ModelError(f"{folder / MODEL_FILE} is damaged ({error}); get the network again") from error
    object.__setattr__(model, "hash", hashlib.sha256(content).hexdigest())
    return model


def bytes_on_disk(path: str | os.PathLike[str]) -> int:
    """Return the size of what it takes to use a saved network, without pictures of its training."""
    return sum((Path(path) / name).stat().st_size for name in (MODEL_FILE, NETWORK_FILE, WEIGHTS_FILE))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
