"""What a model is, of either kind: what scores, what it reads of an image, its certified thresholds and its papers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from histcxr.data.radiograph import WORKING_SIDE
from histcxr.decision.groups import GroupCertificates
from histcxr.decision.out_of_distribution import OutOfDistribution
from histcxr.decision.site import SiteReference
from histcxr.decision.thresholds import ThresholdChoice, decide, joint_confidence
from histcxr.exceptions import InputError, counted
from histcxr.features.curves import (
    reference_quantiles,
    site_names,
    site_numbers,
    square_names,
    square_numbers,
)
from histcxr.features.histograms import BINS, zone_names
from histcxr.features.measuring import Lungs, Pixels, count_lungs
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.scoring import positive
from histcxr.store.at_hand import AtHand
from histcxr.store.plain import EstimatorField, Saved
from histcxr.store.versions import installed_versions

if TYPE_CHECKING:
    from histcxr.reference.classifier import ReferenceClassifier
    from histcxr.reference.images import InputSettings

__all__ = ["Model", "Origin", "ReferenceModel", "json_ready", "sick_score"]


@dataclass(frozen=True)
class Origin:
    """The folder that a model was loaded from: SHA-256 of its manifest, the packages that saved it, its fields."""

    hash: str
    versions: Mapping[str, str]
    content: Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Common(AtHand):
    """What both kinds share. A copy that ``dataclasses.replace`` changed never keeps the hash of its original."""

    kind: ClassVar[str]
    saved_with: ClassVar[tuple[str, ...]]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = field(default=None, repr=False)
    #: The models that it is made of, where it is made of several.
    members: ClassVar[tuple[Any, ...]] = ()

    @property
    def _saved_as(self) -> Origin | None:
        """Where it was loaded from, as long as it is what was loaded."""
        if self.origin is None:
            return None
        held = vars(self)
        same = all(
            held[name] is value or (isinstance(value, Saved) and held[name] is vars(value).get("fitted"))
            for name, value in self.origin.content.items()
        )
        return self.origin if same else None

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest that it was loaded from, "" while it is not saved."""
        return self._saved_as.hash if self._saved_as else ""

    @property
    def versions(self) -> dict[str, str]:
        """The packages that saved it, or the installed ones while it is not saved."""
        return dict(self._saved_as.versions) if self._saved_as else installed_versions(self.saved_with)

    @cached_property
    def groups(self) -> GroupCertificates | None:
        """Certificates within groups; None where the model has thresholds over all patients alone."""
        stored = self.training.get("groups")
        return None if stored is None else GroupCertificates.from_dict(stored)

    @cached_property
    def site(self) -> SiteReference | None:
        """What the certified population looks like; None where it was not recorded."""
        stored = self.training.get("site")
        return None if stored is None else SiteReference.from_dict(stored)

    def drawers(
        self, scores: NDArray[np.float64], known: Mapping[str, NDArray[Any]] | None = None
    ) -> NDArray[np.str_]:
        """Put scores (n,) into drawers; ``known`` are the groups of each image, column to values (n,)."""
        if self.groups is not None:
            return self.groups.decide(scores, known or {})
        return decide(scores, *(getattr(self, kind) for kind in ("rule_out", "rule_in")))

    def _check_thresholds(self) -> None:
        for kind in ("rule_out", "rule_in"):
            choice = getattr(self, kind)
            if not isinstance(choice, ThresholdChoice) or choice.kind != kind:
                raise InputError(f"{kind} must be a {kind} ThresholdChoice, got {choice!r}")

    def check_papers(self) -> None:
        """Refuse (InputError) damaged papers, and thresholds that do not follow from who certified them."""
        both = {kind: getattr(self, kind) for kind in ("rule_out", "rule_in")}
        for kind, own in both.items():
            choices = [own] if self.groups is None else getattr(self.groups, kind).choices()
            if choices[0] != own:
                raise InputError(f"{kind} must be the threshold over all patients of its groups")
            for choice in choices:
                if choice.certified and not 0 <= choice.threshold <= 1:
                    raise InputError(f"{kind} must be a score from 0 to 1, got {choice.threshold!r}")
                if choice.n > own.n or (choice.target, choice.confidence) != (own.target, own.confidence):
                    raise InputError(f"{kind} must promise each group, a part of {own.n} patients, the same")
        if (papers := self.training.get("certified")) is not None:
            if sum(own.n for own in both.values()) != papers["patients"]:
                raise InputError(f"thresholds must rest on the {papers['patients']!r} patients certified")
            promises = [own.to_dict() for own in both.values()]
            promises += [] if self.groups is None else self.groups.further_promises()
            joint, said = joint_confidence(promises), papers.get("joint_confidence")
            if said is not None and not math.isclose(said, joint or 0.0):
                raise InputError(f"joint_confidence must be {joint!r} by the thresholds, got {said!r}")
        _ = self.site, self._repr_html_()  # shows what it is made of, or fails to

    def _other_masks(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        known = self.training.get("segmenter")
        if known is None and found and self.training.get("lungs") == "found":
            known = load_segmenter().digest  # by the network of this version
        if not found or known == segmenter:
            return ()
        made = "other masks" if known is None else "the masks of another network"
        return (
            f"the lungs of {counted(found, 'image')} were found by a network, and the thresholds were certified "
            f"with {made}: certify them anew with histcxr calibrate --lungs found",
        )

    def _papers(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "hash": self.hash,
            "thresholds": {kind: getattr(self, kind).to_dict() for kind in ("rule_out", "rule_in")},
            "metrics": json_ready(self.metrics, "metrics"),
            "training": json_ready(self.training, "training"),
            "card": json_ready(self.card, "card"),
            "versions": self.versions,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Model(Common):
    """A classifier of histograms with everything it takes to use it and to judge it.

    ``name`` is the classifier's, e.g. ``"xgboost"``; it appears in every row of a worklist. ``estimator`` is fitted on
    two classes, the sick one last: counts ``(n, rows, 256)`` to ``predict_proba``; a loaded model scores without it and
    makes it when it is asked for (:class:`~histcxr.store.plain.Saved`). ``recipe`` says what is extracted
    from an image. ``rule_out`` and ``rule_in`` are certified or not. ``metrics, training, card``, all optional: test
    results, what it was trained on and how, the model card; anything JSON can hold, NumPy numbers included. ``origin``
    is set by the loader.
    """

    side: ClassVar[int] = WORKING_SIDE
    kind: ClassVar[str] = "histogram"
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn", "xgboost")
    saved_with: ClassVar[tuple[str, ...]] = ("numpy", "scikit-learn", "xgboost", "skops")

    name: str
    estimator: Any
    recipe: Recipe
    rule_out: ThresholdChoice
    rule_in: ThresholdChoice

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"name must be a text that is not empty, got {self.name!r}")
        self._check_thresholds()
        if not isinstance(self.recipe, Recipe):
            raise InputError(f"recipe must be a Recipe, such as Recipe(6) for six zones, got {self.recipe!r}")
        if not hasattr(vars(self)["estimator"], "predict_proba"):
            raise InputError(f"estimator must have predict_proba, got {type(self.estimator).__name__}")

    @property
    def n_rows(self) -> int:
        """How many histograms stand for one image."""
        return len(self.recipe.names)

    @cached_property
    def familiarity(self) -> OutOfDistribution | None:
        """What the lungs that the model was trained on look like; None where it was not recorded."""
        stored = self.training.get("familiarity")
        if stored is None:
            return None
        found = OutOfDistribution.from_dict(stored)
        wanted = reference_quantiles(np.zeros((0, self.n_rows, BINS), np.int64), self.recipe).shape[1]
        if len(found.centre) != wanted:
            raise InputError(f"what is familiar must have {wanted} landmarks, got {len(found.centre)}")
        return found

    def unfamiliar(self, counts: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which counts (n, rows, 256) are unlike all that it was trained on, (n,); False where it cannot know."""
        if self.familiarity is None or not len(counts):
            return np.zeros(len(counts), bool)
        return self.familiarity.outside(reference_quantiles(counts, self.recipe))

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of :meth:`site_numbers`."""
        return site_names(self.recipe)

    def site_numbers(self, counts: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return of counts (n, rows, 256) what tells one site from another, (n, d)."""
        return site_numbers(counts, self.recipe)

    def score(self, counts: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the probability of being sick, float64 (n,), of images by their counts, int (n, rows, 256).

        As the classifier gives it: whoever decides by it checks that it is a number in [0, 1]. Other counts raise
        :class:`~histcxr.exceptions.InputError`, a classifier of other than two classes
        :class:`~histcxr.exceptions.ModelError`.
        """
        counts = np.asarray(counts)
        if counts.ndim != 3 or counts.shape[1:] != (self.n_rows, BINS) or counts.dtype.kind not in "iu":
            raise InputError(
                f"counts must be whole numbers of shape (n, {self.n_rows}, {BINS}) for {self.recipe}, "
                f"got {counts.dtype} of shape {counts.shape}"
            )
        if len(counts) == 0:
            return np.empty(0)
        return positive(vars(self)["estimator"], counts)

    def measure(self, pixels: Pixels, lungs: Lungs, name: str) -> NDArray[np.int64]:
        """Count one image's lungs, int64 (rows, 256); see :func:`~histcxr.features.measuring.count_lungs`."""
        return count_lungs(pixels, lungs, name, recipe=self.recipe)

    def describe_input(self) -> dict[str, Any]:
        """Return what is read from an image, ready for the head of an audit trail."""
        return {"recipe": self.recipe.to_dict()}

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say what a reader of its scores must know; see :class:`~histcxr.store.judges.Judge`."""
        return self._other_masks(found, segmenter)

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, ready for JSON."""
        counted = {"input": "pixels of the lung mask, counted by grey level", "bins": BINS}
        return {"name": self.name, "recipe": {**self.recipe.to_dict(), **counted}, **self._papers()}

    def probe(self) -> NDArray[np.int64]:
        """Make counts (8, rows, 256) that belong to nobody, to compare scores before saving and after loading."""
        grey, row = np.arange(BINS), np.arange(self.n_rows)[None, :, None]
        image = np.arange(8)[:, None, None]
        centre = 60 + (37 * image + 11 * row) % 120
        width = 12 + (5 * image + 3 * row) % 30
        # Inverted parabolas, bells in whole numbers: no rounding could differ elsewhere.
        counts = np.maximum(0, 400 - (400 * (grey - centre) ** 2) // (2 * width) ** 2).astype(np.int64)
        if isinstance(self.recipe.zones, str):  # "1+2", "1+6": each channel's first row is the others' sum
            channels = counts.reshape(len(counts), -1, len(zone_names(self.recipe.zones)), BINS)
            channels[:, :, 0] = channels[:, :, 1:].sum(axis=2)
        return counts


Model.estimator = EstimatorField()


@dataclass(frozen=True, eq=False, repr=False)
class ReferenceModel(Common):
    """A network that sees the image itself, with everything it takes to use it and to judge it.

    ``classifier`` is fitted on the numbers of the ``classes``, the normal one first, with its ``inputs``; ``normal``
    is the label that means normal. All else is as of :class:`Model`.
    """

    kind: ClassVar[str] = "network"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "keras", "tensorflow", "tensorflow-cpu", "torch", "jax")
    saved_with: ClassVar[tuple[str, ...]] = (*packages, "skops")

    classifier: ReferenceClassifier
    classes: tuple[str, ...]
    normal: str
    rule_out: ThresholdChoice
    rule_in: ThresholdChoice

    def __post_init__(self) -> None:
        from histcxr.reference.images import InputSettings

        self._check_thresholds()
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
    def side(self) -> int:
        """The longer side of the working image: the network's own, or that of the histograms where it is smaller."""
        return self.inputs.side

    def measure(self, pixels: Pixels, lungs: Lungs, name: str) -> NDArray[np.uint8]:
        """Read of one image what the network sees, (size, size); see :func:`~histcxr.reference.images.lung_square`.

        Lungs are needed for the region ``"full"``, too: the same images are refused as by histogram models.
        """
        from histcxr.reference.images import lung_square

        return lung_square(pixels, lungs, name, settings=self.inputs)

    def unfamiliar(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which images are unlike all that it was trained on: a network cannot, so none of them, shape (n,)."""
        return np.zeros(len(pixels), bool)

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of :meth:`site_numbers`."""
        return square_names()

    def site_numbers(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return of squares (n, size, size) what tells one site from another, (n, d)."""
        return square_numbers(pixels)

    def describe_input(self) -> dict[str, Any]:
        """Return what is read from an image, ready for the head of an audit trail."""
        return {"inputs": self.inputs.to_dict()}

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say what a reader of its scores must know; see :class:`~histcxr.store.judges.Judge`."""
        note = (
            f"{self.name} is a network and has no check of what it was trained on: lungs unlike all of its training "
            "images get a score like any others"
        )
        return note, *self._other_masks(0 if self.inputs.region == "full" else found, segmenter)

    def describe(self) -> dict[str, Any]:
        """Return everything but the network itself, ready for JSON."""
        about = {"name": self.name, "classes": list(self.classes), "normal": self.normal}
        return {**about, **self.describe_input(), **self._papers()}

    def probe(self) -> NDArray[np.uint8]:
        """Make images (2, size, size) that show nobody, to compare scores before saving and after loading."""
        row, column = np.indices((self.inputs.size, self.inputs.size))
        waves = [(row * row // 7 + 3 * column) % 256, (5 * row + column * column // 11) % 256]
        return np.stack(waves).astype(np.uint8)


def sick_score(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of any class but the first, shape (n,)."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1]
    return np.asarray(1.0 - probabilities[:, 0]).clip(0.0, 1.0)


def json_ready(value: Any, name: str = "value") -> Any:
    """Turn mappings, sequences and NumPy numbers into plain JSON values; NaN and infinities become None.

    :class:`~histcxr.exceptions.InputError` says where something sits that JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return json_ready(value.tolist(), name)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item, f"{name}[{i}]") for i, item in enumerate(value)]
    raise InputError(f"{name} must be something that JSON can hold, got {type(value).__name__}")
