"""The certified thresholds and the three drawers they make.

The rule-out threshold is chosen on the scores of sick calibration patients so that, with the stated
confidence, the share of future sick patients that it does not rule out is at least the target. It rests on
nothing but exchangeable patients: no shape of the distribution, no smooth scores, ties allowed.

Why it holds: let p = 1 - target and let q be the largest value with P(score < q) <= p among sick patients.
The promise breaks only when the threshold, the (k+1)-th smallest of n scores, lies above q, that is, when at
most k of the scores are <= q. Each score is <= q with probability at least p, so this happens with
probability at most BinomCDF(k; n, p), and k is chosen to keep that at or below 1 - confidence. The rule-in
threshold is the mirror image on normal patients. Each promise holds at its own confidence; both at once hold
at 1 - 2 (1 - confidence).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import bool_vector, open_unit, real_vector, whole_number
from histcxr.decision.intervals import patient_labels, patient_scores
from histcxr.exceptions import InputError

Kind = Literal["rule_out", "rule_in"]
RULE_OUT: Literal["rule_out"] = "rule_out"
REVIEW: Literal["review"] = "review"
RULE_IN: Literal["rule_in"] = "rule_in"

#: In rising order: a patient takes the highest of the images'.
DRAWERS = (RULE_OUT, REVIEW, RULE_IN)

_NAMES = {RULE_OUT: ("sensitivity", "sick"), RULE_IN: ("specificity", "normal")}
_NEAR = 1e-9  # relative distance within which floating point is not trusted to order two probabilities
_EXACT_UP_TO = 50_000  # patients; beyond it a near tie is settled on the safe side


def _as_written(value: float) -> Fraction:
    """0.95 as 95/100, the number that was meant, not the binary one nearest to it."""
    return Fraction(repr(value))


def _tail_within(k: int, n: int, p: Fraction, limit: Fraction) -> bool:
    """Whether BinomCDF(k; n, p) <= limit, by whole numbers where floating point cannot tell."""
    from scipy import special  # scipy.stats takes longer to import than a triage of one image

    cdf = float(special.betainc(n - k, k + 1, 1 - float(p)))
    bound = float(limit)
    if abs(cdf - bound) > _NEAR * bound:
        return cdf < bound
    if n > _EXACT_UP_TO:
        return False
    hit, base = p.numerator, p.denominator
    miss = base - hit
    term = total = miss**n
    for i in range(k):
        term = term * (n - i) * hit // ((i + 1) * miss)  # C(n, i+1) hit^(i+1) miss^(n-i-1), no remainder
        total += term
    return total * limit.denominator <= limit.numerator * base**n


@lru_cache(maxsize=1024)
def _errors_allowed(n: int, target: float, confidence: float) -> int:
    p, limit = 1 - _as_written(target), 1 - _as_written(confidence)
    k, least_too_many = -1, n
    while k < least_too_many - 1:
        middle = (k + least_too_many) // 2
        if _tail_within(middle, n, p, limit):
            k = middle
        else:
            least_too_many = middle
    return k


def errors_allowed(n: int, target: float, confidence: float) -> int:
    """Return the largest k with BinomCDF(k; n, 1 - target) <= 1 - confidence, or -1 where there is none.

    So many of n calibration patients may fall on the wrong side of the threshold. Target and confidence are taken as
    the decimals they are written as. InputError unless ``n`` is a whole number and both lie in (0, 1).
    """
    return _errors_allowed(
        whole_number(n, "n"), open_unit(target, "target"), open_unit(confidence, "confidence")
    )


def patients_needed(target: float, confidence: float) -> int:
    """Return the fewest patients that certify a threshold: the smallest n with ``target ** n <= 1 - confidence``.

    59 for 95 % at 95 %, 299 for 99 % at 95 %. InputError for a number outside (0, 1).
    """
    return _patients_needed(open_unit(target, "target"), open_unit(confidence, "confidence"))


@lru_cache(maxsize=1024)
def _patients_needed(target: float, confidence: float) -> int:
    p, limit = 1 - _as_written(target), 1 - _as_written(confidence)
    log_target = math.log1p(-float(p)) if p < Fraction(1, 2) else math.log(target)  # each precise at its end
    n = max(1, math.ceil(math.log(float(limit)) / log_target))
    while not _tail_within(0, n, p, limit):
        n += max(1, n >> 40)  # beyond 10^12 patients doubles cannot count one by one
    while n > 1 and _tail_within(0, n - 1, p, limit):
        n -= 1
    return n


@dataclass(frozen=True)
class ThresholdChoice:
    """A certified threshold, or the refusal to name one.

    ``score < threshold`` is ruled out (or ``>`` ruled in); where nothing could be certified it is -inf (rule_out) or
    +inf (rule_in). ``n`` counts calibration patients, the sick for rule_out and the normal for rule_in;
    ``errors_allowed`` is k of the definition, or -1; ``target`` is the sensitivity (rule_out) or specificity (rule_in)
    promised with ``confidence``; ``needed`` is the least n for that; ``message`` is the promise, or why there is none.
    """

    kind: Kind
    threshold: float
    n: int
    errors_allowed: int
    target: float
    confidence: float
    certified: bool
    needed: int
    message: str

    def __post_init__(self) -> None:
        if self.kind not in _NAMES:
            raise InputError(f"kind must be 'rule_out' or 'rule_in', got {self.kind!r}")
        nobody = -math.inf if self.kind == RULE_OUT else math.inf
        if self.certified and not math.isfinite(self.threshold):
            raise InputError(f"threshold must be finite when certified, got {self.threshold!r}")
        if not self.certified and self.threshold != nobody:
            raise InputError(f"threshold must be {nobody} when not certified, got {self.threshold!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; an infinite threshold becomes None. Floats survive exactly."""
        fields = asdict(self)
        if not self.certified:
            fields["threshold"] = None
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ThresholdChoice:
        """Rebuild a choice from :meth:`to_dict`; what follows from other fields is worked out again, ``message`` anew.

        InputError: fields missing or unknown, of the wrong type, or contradicting each other.
        """
        names = sorted(cls.__dataclass_fields__)
        if not isinstance(fields, Mapping) or set(fields) != set(names):
            got = sorted(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
            raise InputError(f"fields must be a mapping with exactly the keys {names}, got {got}")
        kind, value = fields["kind"], fields["threshold"]
        if kind not in ("rule_out", "rule_in"):
            raise InputError(f"kind must be 'rule_out' or 'rule_in', got {kind!r}")
        if value is not None and not isinstance(value, float):
            raise InputError(f"threshold must be a float or None, got {value!r}")
        target = open_unit(fields["target"], "target")
        confidence = open_unit(fields["confidence"], "confidence")
        choice = _choice(kind, value, whole_number(fields["n"], "n"), target, confidence)
        for name in ("errors_allowed", "certified", "needed"):
            due, got = getattr(choice, name), fields[name]
            if type(got) is not type(due) or got != due:
                raise InputError(f"{name} must be {due!r} to agree with n and target, got {got!r}")
        return choice


def _percent(share: float) -> str:
    """Write a share in percent, to two digits and never rounded up."""
    return f"{math.floor(_as_written(share) * 10_000) / 100:g} %"


def _choice(kind: Kind, threshold: float | None, n: int, target: float, confidence: float) -> ThresholdChoice:
    """Fill in what follows from the numbers; ``threshold`` is None exactly where none can be certified."""
    k, needed = errors_allowed(n, target, confidence), patients_needed(target, confidence)
    metric, patients = _NAMES[kind]
    promise = f"{metric} of at least {_percent(target)} at {_percent(confidence)} confidence"
    if (threshold is None) != (k < 0):
        raise InputError(f"threshold must be {'None' if k < 0 else 'a number'} with n={n}, got {threshold!r}")
    if threshold is None:
        nobody = -math.inf if kind == RULE_OUT else math.inf
        message = f"not certified: {promise} takes at least {needed} {patients} calibration patients, got {n}"
        return ThresholdChoice(kind, nobody, n, -1, target, confidence, False, needed, message)
    message = (
        f"certified: {promise}, from {n} {patients} calibration patients with {k} on the wrong side allowed"
    )
    return ThresholdChoice(kind, float(threshold), n, k, target, confidence, True, needed, message)


def joint_confidence(choices: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the confidence with which all certified promises (dicts) hold at once (Bonferroni), or None."""
    wrong = [1 - choice["confidence"] for choice in choices if choice["certified"]]
    return max(0.0, 1 - sum(wrong)) if wrong else None


def certified_threshold(kind: Kind, scores: ArrayLike, target: float, confidence: float) -> ThresholdChoice:
    """Certify the threshold of either kind, as :func:`rule_out_threshold` and :func:`rule_in_threshold` say."""
    values, sign = real_vector(scores), 1.0 if kind == RULE_OUT else -1.0
    target, confidence = open_unit(target, _NAMES[kind][0]), open_unit(confidence, "confidence")
    k = errors_allowed(values.size, target, confidence)
    threshold = None if k < 0 else sign * float(np.partition(sign * values, k)[k])
    return _choice(kind, threshold, values.size, target, confidence)


def rule_out_threshold(
    scores: ArrayLike, *, sensitivity: float = 0.95, confidence: float = 0.95
) -> ThresholdChoice:
    """Certify the threshold under which a patient is ruled out.

    With k from :func:`errors_allowed`, the threshold is the (k+1)-th smallest score and ``score < threshold`` is ruled
    out. Then P(true sensitivity >= ``sensitivity``) >= ``confidence`` over calibration sets. Scores (n,) are one for
    each sick calibration patient (:func:`patient_scores`), untouched by training and tuning. With too few patients
    nothing is certified and the threshold is -inf. InputError: scores not 1-D or not finite (leaving out a patient
    would void the promise), or a number outside (0, 1).
    """
    return certified_threshold(RULE_OUT, scores, sensitivity, confidence)


def rule_in_threshold(
    scores: ArrayLike, *, specificity: float = 0.95, confidence: float = 0.95
) -> ThresholdChoice:
    """Certify the threshold above which a patient is ruled in: the mirror image of :func:`rule_out_threshold`.

    Of the normal calibration patients' scores it is the (k+1)-th largest, and ``score > threshold`` is ruled in. Then
    P(true specificity >= ``specificity``) >= ``confidence`` over calibration sets. Uncertified, it is +inf. Errors as
    there.
    """
    return certified_threshold(RULE_IN, scores, specificity, confidence)


class Certificates(NamedTuple):
    """Both thresholds of one calibration set."""

    rule_out: ThresholdChoice
    rule_in: ThresholdChoice


def certify(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None,
    *,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
) -> Certificates:
    """Certify both thresholds from image scores (n,): one score a patient, sick as soon as one image is.

    A patient ``""`` or None: the image is its own. InputError: wrong shapes, types or numbers, or a score not finite.
    """
    values = real_vector(scores)
    truth = patient_labels(bool_vector(sick, length=values.size), patient_ids)
    highest = patient_scores(values, patient_ids)
    return Certificates(
        rule_out_threshold(highest[truth], sensitivity=sensitivity, confidence=confidence),
        rule_in_threshold(highest[~truth], specificity=specificity, confidence=confidence),
    )


def threshold_value(threshold: ThresholdChoice | float, kind: Kind) -> float:
    """Return a threshold's number; InputError for the other kind, NaN, or one that would take everybody."""
    if isinstance(threshold, ThresholdChoice):
        if threshold.kind != kind:
            raise InputError(f"{kind} must be a {kind} threshold, got a {threshold.kind} threshold")
        return threshold.threshold
    everybody = math.inf if kind == RULE_OUT else -math.inf
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.integer, np.floating)):
        raise InputError(f"{kind} must be a ThresholdChoice or a number, got {threshold!r}")
    if math.isnan(threshold) or threshold == everybody:
        raise InputError(f"{kind} must be a number or {-everybody} for nobody, got {threshold!r}")
    return float(threshold)


def decide(
    scores: ArrayLike, rule_out: ThresholdChoice | float, rule_in: ThresholdChoice | float
) -> NDArray[np.str_]:
    """Put each score (n,) into exactly one drawer: str (n,).

    ``rule_out`` where ``score < rule_out``; ``rule_in`` where ``score > rule_in`` and ``score >= rule_out``;
    ``review`` otherwise, and where it is NaN or infinite. Where the thresholds cross, both promises survive: the
    rule-out drawer is untouched, and the rule-in drawer only loses scores. Float32 scores are compared as float64. A
    threshold of -inf for rule_out, or +inf for rule_in, means nobody. InputError: scores not 1-D; a threshold that is
    NaN, that would take everybody, or of the other kind.
    """
    values = real_vector(scores, finite=False)
    return drawers_between(values, threshold_value(rule_out, RULE_OUT), threshold_value(rule_in, RULE_IN))


def drawers_between(
    values: NDArray[np.float64], low: NDArray[np.float64] | float, high: NDArray[np.float64] | float
) -> NDArray[np.str_]:
    """Do as :func:`decide` with checked scores (n,) and thresholds, of all or of each (n,)."""
    usable = np.isfinite(values)
    drawers = np.full(values.shape, REVIEW, dtype="<U8")
    drawers[usable & (values < low)] = RULE_OUT
    drawers[usable & (values > high) & (values >= low)] = RULE_IN
    return drawers
