"""What a model is: a fitted pipeline, the recipe of its input, its certified thresholds and its papers."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr import __version__
from histcxr.decision.out_of_distribution import OutOfDistribution
from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import InputError, ModelError
from histcxr.features.curves import reference_quantiles
from histcxr.features.histograms import BINS, zone_names
from histcxr.features.measuring import Lungs, Pixels, count_lungs
from histcxr.features.recipe import Recipe, as_recipe

INPUT = "pixels of the lung mask, counted by grey level"
PACKAGES = ("numpy", "scikit-learn", "xgboost", "skops")


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier with everything it takes to use it and to judge it.

    Parameters
    ----------
    name : str
        The classifier, e.g. ``"xgboost"``; it appears in every row of a worklist.
    estimator : scikit-learn estimator
        Fitted on two classes, the sick one last: counts ``(n, rows, 256)`` to ``predict_proba``.
    recipe : Recipe, or its zones
        What is extracted from an image: how the lungs are divided, and which bands are added.
    rule_out, rule_in : ThresholdChoice
        The two thresholds, certified or not.
    metrics, training, card : mapping, optional
        Test results; where the training data came from (fingerprint, counts, classes, settings); the model
        card. Anything JSON can hold, NumPy numbers included.

    Attributes
    ----------
    versions : dict
        The packages that saved it, or the installed ones while it is not saved.
    hash : str
        SHA-256 over the saved manifest, "" while it is not saved. ``dataclasses.replace`` makes a new model,
        whose hash is "" again.
    """

    name: str
    estimator: Any
    recipe: Recipe
    rule_out: ThresholdChoice
    rule_in: ThresholdChoice
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(init=False, default_factory=lambda: installed_versions())
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"name must be a text that is not empty, got {self.name!r}")
        for kind in ("rule_out", "rule_in"):
            choice = getattr(self, kind)
            if not isinstance(choice, ThresholdChoice) or choice.kind != kind:
                raise InputError(f"{kind} must be a {kind} ThresholdChoice, got {choice!r}")
        object.__setattr__(self, "recipe", as_recipe(self.recipe))  # refuses an unknown division
        if not hasattr(self.estimator, "predict_proba"):
            raise InputError(f"estimator must have predict_proba, got {type(self.estimator).__name__}")

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
        """Tell which images' lungs are unlike all that the model was trained on: it must not judge them.

        Parameters
        ----------
        counts : ndarray of int, shape (n, rows, 256)

        Returns
        -------
        ndarray of bool, shape (n,)
            All False where the model does not know.
        """
        if self.familiarity is None or not len(counts):
            return np.zeros(len(counts), bool)
        return self.familiarity.outside(reference_quantiles(counts, self.recipe))

    @property
    def n_rows(self) -> int:
        """How many histograms stand for one image."""
        return len(self.recipe.names)

    def score(self, counts: NDArray[np.integer]) -> NDArray[np.float64]:
        """Score images by their histograms.

        Parameters
        ----------
        counts : ndarray of int, shape (n, rows, 256)
            As :func:`~histcxr.features.extraction.extract_features` gives them for the same recipe.

        Returns
        -------
        ndarray of float64, shape (n,)
            The probability of being sick, higher is sicker. As the classifier gives it: whoever decides by it
            checks that it is a number in [0, 1].

        Raises
        ------
        InputError
            Counts of another shape, or not whole numbers.
        ModelError
            The classifier does not know two classes, or gives another number of scores than images.
        """
        counts = np.asarray(counts)
        if counts.ndim != 3 or counts.shape[1:] != (self.n_rows, BINS) or counts.dtype.kind not in "iu":
            raise InputError(
                f"counts must be whole numbers of shape (n, {self.n_rows}, {BINS}) for {self.recipe}, "
                f"got {counts.dtype} of shape {counts.shape}"
            )
        if len(counts) == 0:
            return np.empty(0)
        probabilities = np.asarray(self.estimator.predict_proba(counts), dtype=np.float64)
        if probabilities.shape != (len(counts), 2):
            raise ModelError(
                f"{self.name}: predict_proba gave shape {probabilities.shape}, must be {(len(counts), 2)}"
            )
        return probabilities[:, 1]

    @property
    def packages(self) -> tuple[str, ...]:
        """What its scores depend on."""
        return ("scikit-learn", "xgboost")

    def fingerprint(self) -> str:
        """Return its hash: that of its folder if it was loaded, else the one that saving would give."""
        from histcxr.store.folder import model_hash  # which knows this class

        return model_hash(self)

    def measure(self, pixels: Pixels, lungs: Lungs, name: str) -> NDArray[np.int64]:
        """Count one image's lungs by the model's recipe; see :func:`~histcxr.features.measuring.count_lungs`."""
        return count_lungs(pixels, lungs, name, recipe=self.recipe)

    def describe_input(self) -> dict[str, Any]:
        """Return what is read from an image, ready for the head of an audit trail."""
        return {"recipe": self.recipe.to_dict()}

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say what a reader of its scores must know; see :class:`~histcxr.store.judges.Judge`."""
        known = self.training.get("segmenter")
        if not found or known == segmenter:
            return ()
        made = "other masks" if known is None else "the masks of another network"
        return (
            f"the lungs of {found} images were found by a network, and the thresholds were certified with {made}: "
            "certify them anew with histcxr calibrate --lungs found",
        )

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, ready for JSON."""
        return {
            "name": self.name,
            "hash": self.hash,
            "recipe": {**self.recipe.to_dict(), "input": INPUT, "bins": BINS},
            "thresholds": {"rule_out": self.rule_out.to_dict(), "rule_in": self.rule_in.to_dict()},
            "metrics": json_ready(self.metrics),
            "training": json_ready(self.training),
            "card": json_ready(self.card),
            "versions": dict(self.versions),
        }


def installed_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of histcxr, Python and the packages given: those that a saved model depends on."""
    found = {"histcxr": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def probe_counts(recipe: Recipe, n: int = 8) -> NDArray[np.int64]:
    """Make histograms that belong to nobody, for comparing a model's scores before saving and after loading.

    Bell curves whose centre and width change from image to image and from row to row, in plain arithmetic, so
    that they are the same everywhere.

    Returns
    -------
    ndarray of int64, shape (n, rows, 256)
    """
    grey = np.arange(BINS)
    image = np.arange(n)[:, None, None]
    row = np.arange(len(recipe.names))[None, :, None]
    centre = 60 + (37 * image + 11 * row) % 120
    width = 12 + (5 * image + 3 * row) % 30
    # An inverted parabola instead of exp(): whole numbers only, no rounding that could differ.
    counts = np.maximum(0, 400 - (400 * (grey - centre) ** 2) // (2 * width) ** 2).astype(np.int64)
    if isinstance(recipe.zones, str):  # "1+2", "1+6": the first row of each channel is the sum of the others
        channels = counts.reshape(n, -1, len(zone_names(recipe.zones)), BINS)
        channels[:, :, 0] = channels[:, :, 1:].sum(axis=2)
    return counts


def json_ready(value: Any, name: str = "value") -> Any:
    """Turn mappings, sequences and NumPy numbers into plain JSON values; NaN and infinities become None.

    Raises
    ------
    InputError
        Something that JSON cannot hold; the message says where it sits.
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
