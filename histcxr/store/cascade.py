"""Two models as one: the histograms judge first, and a network only what they leave open.

The score of an image is one number on [0, 1], so that everything said of a score holds for it. An image whose score by
histograms lies under ``low`` gets a quarter of its place there, from 0 to below 0.25; one above ``high`` the same from
the top; what lies between is scored by the network alone, on 0.25 to 0.75. So the order is: surely normal by
histograms, then by the network from normal to sick, then surely sick by histograms.

Why one certificate is enough: ``low`` and ``high`` are fixed before the first calibration patient is looked at
(:func:`histcxr.study.certify.calibrate` sets them on other patients). Then the score of an image is a function of that
image alone, like that of any model, calibration patients stay exchangeable with future ones, and the argument of
:mod:`histcxr.decision.thresholds` holds word for word: it asks nothing of where scores come from. Two thresholds, one
for each model, would need a share of the confidence each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import ThresholdChoice, certify
from histcxr.exceptions import InputError
from histcxr.features.histograms import BINS
from histcxr.features.measuring import Lungs, Pixels
from histcxr.store.model import Common, Model, ReferenceModel

#: The network's scores lie from the first to the second number, the histograms' outside.
PLACES: Final = (0.25, 0.75)


def judged_by(score: float) -> str:
    """Say which of the two models a score comes from: ``first`` or ``then``."""
    return "then" if PLACES[0] <= score <= PLACES[1] else "first"


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(Common):
    """A histogram model ``first``, and a network ``then`` for scores from ``low`` to ``high`` (float in [0, 1]).

    It measures of an image what both read, as bytes, uint8 (n,); the network scores only what lies between. What is
    unlike the training images, and the population, are the first model's to know. All else is as of
    :class:`~histcxr.store.model.Model`.
    """

    kind: ClassVar[str] = "cascade"
    packages: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys((*Model.packages, *ReferenceModel.packages)))
    saved_with: ClassVar[tuple[str, ...]] = tuple(
        dict.fromkeys((*Model.saved_with, *ReferenceModel.saved_with))
    )

    side: ClassVar[int] = Model.side

    first: Model
    then: ReferenceModel
    low: float
    high: float
    rule_out: ThresholdChoice
    rule_in: ThresholdChoice

    def __post_init__(self) -> None:
        self._check_thresholds()
        for name, kind in (("first", Model), ("then", ReferenceModel)):
            if not isinstance(getattr(self, name), kind):
                what = "of histograms" if kind is Model else "a network"
                raise InputError(f"{name} must be a model {what}, got {type(getattr(self, name)).__name__}")
        if self.then.side != self.first.side:
            raise InputError(
                f"the network must read at most {self.first.side} pixels a side, as the histograms do; got "
                f"{self.then.side}"
            )
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(f"low and high must be scores from 0 to 1 in order, got {self.low}, {self.high}")

    @classmethod
    def of(cls, first: Any, then: Any) -> Cascade:
        """Put two models behind one another, certified for nothing; the network sees what the first leaves open."""
        if not isinstance(first, Model) or not isinstance(then, ReferenceModel):
            raise InputError(
                "a cascade takes a histogram model first and a network then (-m and --then), got "
                f"{type(first).__name__} and {type(then).__name__}"
            )
        normal = first.training.get("normal", "Normal")
        if then.normal.casefold() != str(normal).casefold():
            raise InputError(f"both models must call normal alike, got {normal!r} and {then.normal!r}")
        limits = (
            (0.0 if math.isinf(first.rule_out.threshold) else first.rule_out.threshold),
            (1.0 if math.isinf(first.rule_in.threshold) else first.rule_in.threshold),
        )
        nothing = certify(np.empty(0), np.empty(0, np.bool_), None)
        # Whom the two have seen, they remember themselves.
        return cls(
            first,
            then,
            min(limits),
            max(limits),
            *nothing,
            training={"normal": normal, "seen": {"train": ""}},
        )

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.first.name} then {self.then.name}"

    @property
    def members(self) -> tuple[Model, ReferenceModel]:  # type: ignore[override]
        """Both models, in the order in which they judge."""
        return self.first, self.then

    def pack(self, counts: NDArray[Any], squares: NDArray[Any]) -> NDArray[np.uint8]:
        """Put what both read of n images, (n, rows, 256) and (n, size, size), into bytes (n, k)."""
        flat = np.ascontiguousarray(counts, np.int64).reshape(len(counts), -1).view(np.uint8)
        return np.concatenate([flat, squares.reshape(len(squares), -1)], axis=1)

    def unpack(self, measured: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Take :meth:`pack` back. InputError: bytes of another length."""
        rows, size = self.first.n_rows, self.then.inputs.size
        end = 8 * rows * BINS
        if measured.dtype != np.uint8 or measured.shape[1:] != (end + size * size,):
            raise InputError(
                f"what is measured must be uint8 (n, {end + size * size}), got {measured.dtype} {measured.shape}"
            )
        counts = np.ascontiguousarray(measured[:, :end]).view(np.int64)
        return counts.reshape(-1, rows, BINS), measured[:, end:].reshape(-1, size, size)

    def measure(self, pixels: Pixels, lungs: Lungs, name: str) -> NDArray[np.uint8]:
        """Read of one image what both models need."""
        counts = self.first.measure(pixels, lungs, name)
        return self.pack(counts[np.newaxis], self.then.measure(pixels, lungs, name)[np.newaxis])[0]

    def open(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which scores (n,) of the first model leave an image to the network."""
        return (scores >= self.low) & (scores <= self.high)

    def score(self, measured: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the scores (n,) of images in the order that the module tells; NaN where a model gave no number."""
        counts, squares = self.unpack(np.asarray(measured))
        own = self.first.score(counts)
        low, high = PLACES
        found = np.full(len(own), np.nan)
        under, over, between = (own >= 0) & (own < self.low), (own > self.high) & (own <= 1), self.open(own)
        found[under] = np.minimum(low * own[under] / (self.low or 1), np.nextafter(low, 0))
        found[over] = np.maximum(
            1 - (1 - high) * (1 - own[over]) / ((1 - self.high) or 1), np.nextafter(high, 1)
        )
        network = self.then.score(squares[between])
        found[between] = np.where((network >= 0) & (network <= 1), low + (high - low) * network, np.nan)
        return found

    def unfamiliar(self, measured: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which images are unlike all that the first model was trained on, (n,)."""
        return self.first.unfamiliar(self.unpack(measured)[0])

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of :meth:`site_numbers`."""
        return self.first.site_names

    def site_numbers(self, measured: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return what tells one site from another, (n, d), by histograms."""
        return self.first.site_numbers(self.unpack(measured)[0])

    def describe_input(self) -> dict[str, Any]:
        """Return what both read, and between which scores the network does, ready for JSON."""
        parts: dict[str, Any] = {
            place: {"name": one.name, **one.describe_input()}
            for place, one in (("first", self.first), ("then", self.then))
        }
        return {"cascade": {**parts, "low": float(self.low), "high": float(self.high)}}

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say what a reader of its scores must know; see :class:`~histcxr.store.judges.Judge`."""
        notes = [
            f"scores under {PLACES[0]} and above {PLACES[1]} are the histograms', those between the network's, "
            "moved there: they tell an order, no probability"
        ]
        if "certified" not in self.training:
            notes.append(
                "these two models were never certified as one, so nothing is promised: histcxr calibrate YOUR_PATIENTS "
                "-m FIRST --then NETWORK -o cascade.histcxr, then triage with -m cascade.histcxr"
            )
        else:
            notes += self._other_masks(found, segmenter)
        return tuple(notes)

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, ready for JSON."""
        return {"name": self.name, **self.describe_input(), **self._papers()}

    def probe(self) -> NDArray[np.uint8]:
        """Make measured images (2, k) that show nobody."""
        return self.pack(self.first.probe()[:2], self.then.probe()[:2])
