import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from histcxr.decision.thresholds import (
    ThresholdChoice,
    certify,
    decide,
    errors_allowed,
    patients_needed,
    rule_in_threshold,
    rule_out_threshold,
)
from histcxr.exceptions import InputError

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), max_size=150)
VALUES = st.floats(allow_nan=True, allow_infinity=True)


@given(scores=SCORES, target=st.sampled_from([0.5, 0.9, 0.95]), confidence=st.sampled_from([0.5, 0.9, 0.95]))
def test_rule_out_is_the_definition_ties_included(scores, target, confidence):
    choice = rule_out_threshold(np.array(scores), sensitivity=target, confidence=confidence)
    n = len(scores)
    within = [k for k in range(n) if binom.cdf(k, n, 1 - target) <= 1 - confidence + 1e-12]
    assert choice.n == n
    assert choice.needed == patients_needed(target, confidence)
    assert choice.certified == bool(within) == (n >= choice.needed)
    if within:
        assert choice.errors_allowed == max(within)
        assert choice.threshold == sorted(scores)[max(within)]
        assert np.sum(np.array(scores) < choice.threshold) <= choice.errors_allowed


@given(scores=SCORES, target=st.sampled_from([0.5, 0.9, 0.95]), confidence=st.sampled_from([0.5, 0.9, 0.95]))
def test_rule_in_is_the_mirror_image(scores, target, confidence):
    there = rule_in_threshold(np.array(scores), specificity=target, confidence=confidence)
    back = rule_out_threshold(-np.array(scores), sensitivity=target, confidence=confidence)
    assert there.threshold == -back.threshold
    assert (there.n, there.errors_allowed, there.certified) == (back.n, back.errors_allowed, back.certified)
    assert (there.kind, there.target, there.confidence) == ("rule_in", target, confidence)


def test_known_positions():
    scores = np.random.default_rng(0).permutation(200) / 200
    assert errors_allowed(200, 0.95, 0.95) == 4
    assert rule_out_threshold(scores).threshold == 4 / 200
    assert rule_in_threshold(scores).threshold == 195 / 200
    assert rule_out_threshold(scores, sensitivity=0.9, confidence=0.9).threshold == 14 / 200


@pytest.mark.parametrize("n", [0, 1, 58])
def test_too_few_patients_are_a_refusal_that_says_how_many_it_takes(n):
    out, into = rule_out_threshold(np.linspace(0, 1, n)), rule_in_threshold(np.linspace(0, 1, n))
    assert (out.certified, out.threshold, out.errors_allowed, out.needed) == (False, -math.inf, -1, 59)
    assert (into.certified, into.threshold, into.errors_allowed, into.needed) == (False, math.inf, -1, 59)
    assert "not certified" in out.message
    assert f"at least 59 sick calibration patients, got {n}" in out.message
    assert f"at least 59 normal calibration patients, got {n}" in into.message
    assert set(decide([-1e9, 0, 0.5, 1e9], out, into)) == {"review"}


def test_299_patients_for_99_percent():
    assert not rule_out_threshold(np.linspace(0, 1, 298), sensitivity=0.99).certified
    assert rule_out_threshold(np.linspace(0, 1, 299), sensitivity=0.99).threshold == 0
    assert rule_out_threshold(np.linspace(0, 1, 298), sensitivity=0.99).needed == 299


def test_the_message_of_a_certificate_says_what_is_promised():
    message = rule_out_threshold(np.linspace(0, 1, 200)).message
    assert "sensitivity of at least 95 % at 95 % confidence, from 200 sick" in message


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((60, 1)), r"scores must be one-dimensional, got shape \(60, 1\)"),
        (np.float64(0.5), "scores must be one-dimensional"),
        (np.full(60, np.nan), "scores must be finite, got 60 NaN or infinite among 60"),
        ([0.1] * 60 + [np.inf], "scores must be finite, got 1"),
        (["0.5"] * 60, "scores must be real numbers"),
        (np.ones(60, bool), "scores must be real numbers"),
        (np.ones(60, complex), "scores must be real numbers"),
    ],
)
@pytest.mark.parametrize("function", [rule_out_threshold, rule_in_threshold])
def test_scores_that_cannot_certify_are_refused(function, scores, message):
    with pytest.raises(InputError, match=message):
        function(scores)


def test_targets_are_checked_by_name():
    with pytest.raises(InputError, match="sensitivity must be a number strictly between 0 and 1, got 95"):
        rule_out_threshold(np.zeros(60), sensitivity=95)
    with pytest.raises(InputError, match="specificity must be"):
        rule_in_threshold(np.zeros(60), specificity=1.0)
    with pytest.raises(InputError, match="confidence must be"):
        rule_in_threshold(np.zeros(60), confidence=0)


def test_scores_are_not_changed_and_may_come_as_float32():
    scores = np.random.default_rng(1).random(100).astype(np.float32)
    before = scores.copy()
    choice = rule_out_threshold(scores)
    np.testing.assert_array_equal(scores, before)
    assert choice.threshold in scores.astype(np.float64)
    assert (decide(scores, choice, np.inf) == "rule_out").sum() == choice.errors_allowed


# ---- JSON


@given(scores=st.lists(st.floats(-1e300, 1e300), min_size=40, max_size=90))
def test_json_round_trip_is_exact(scores):
    for choice in (rule_out_threshold(scores), rule_in_threshold(scores, specificity=0.9, confidence=0.8)):
        text = json.dumps(choice.to_dict(), allow_nan=False)
        assert ThresholdChoice.from_dict(json.loads(text)) == choice


def test_an_uncertified_choice_has_no_threshold_in_json():
    choice = rule_in_threshold([0.1, 0.2])
    fields = json.loads(json.dumps(choice.to_dict(), allow_nan=False))
    assert fields["threshold"] is None
    assert ThresholdChoice.from_dict(fields) == choice
    assert ThresholdChoice.from_dict(fields).threshold == math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors_allowed": 5}, "errors_allowed must be 4 to agree with n and target, got 5"),
        ({"n": 100}, "errors_allowed must be 1"),
        ({"n": 20}, "threshold must be None with n=20"),
        ({"target": 0.99}, "threshold must be None"),
        ({"confidence": 0.9}, "errors_allowed must be 5"),
        ({"certified": False}, "certified must be True"),
        ({"certified": 1}, "certified must be True"),
        ({"needed": 1}, "needed must be 59"),
        ({"threshold": None}, "threshold must be a number with n=200, got None"),
        ({"threshold": math.inf}, "threshold must be finite when certified"),
        ({"threshold": math.nan}, "threshold must be finite when certified"),
        ({"threshold": "0.5"}, "threshold must be a float or None"),
        ({"threshold": True}, "threshold must be a float or None"),
        ({"kind": "sick"}, "kind must be 'rule_out' or 'rule_in', got 'sick'"),
        ({"kind": ["rule_out"]}, "kind must be"),
        ({"n": "200"}, "n must be a whole number"),
        ({"target": None}, "target must be"),
        ({"extra": 1}, "exactly the keys"),
    ],
)
def test_a_choice_that_contradicts_itself_is_refused(changes, message):
    fields = rule_out_threshold(np.linspace(0, 1, 200)).to_dict()
    with pytest.raises(InputError, match=message):
        ThresholdChoice.from_dict({**fields, **changes})


def test_missing_fields_and_other_types_are_refused():
    fields = rule_out_threshold(np.linspace(0, 1, 200)).to_dict()
    del fields["n"]
    with pytest.raises(InputError, match="exactly the keys"):
        ThresholdChoice.from_dict(fields)
    with pytest.raises(InputError, match="got list"):
        ThresholdChoice.from_dict([1, 2])


def test_a_choice_is_frozen_and_never_half_certified():
    choice = rule_out_threshold(np.linspace(0, 1, 200))
    with pytest.raises(AttributeError):
        choice.threshold = 0.9
    with pytest.raises(InputError, match="threshold must be -inf when not certified, got 0.3"):
        ThresholdChoice("rule_out", 0.3, 10, -1, 0.95, 0.95, False, 59, "")
    with pytest.raises(InputError, match="threshold must be finite when certified"):
        ThresholdChoice("rule_in", math.nan, 100, 1, 0.95, 0.95, True, 59, "")


# ---- drawers


def test_the_thresholds_themselves_are_reviewed():
    assert decide([0.1, 0.2, 0.3, 0.8, 0.9], 0.2, 0.8).tolist() == [
        "rule_out", "review", "review", "review", "rule_in",
    ]  # fmt: skip


def test_where_they_cross_rule_in_starts_at_the_rule_out_threshold():
    assert decide([0.1, 0.39, 0.4, 0.5, 0.6, 0.7], 0.6, 0.4).tolist() == [
        "rule_out", "rule_out", "rule_out", "rule_out", "rule_in", "rule_in",
    ]  # fmt: skip
    assert decide([0.4, 0.5, 0.6], 0.5, 0.5).tolist() == ["rule_out", "review", "rule_in"]


@given(
    scores=st.lists(VALUES, max_size=20),
    low=st.one_of(st.just(-math.inf), st.floats(-2, 2)),
    high=st.one_of(st.just(math.inf), st.floats(-2, 2)),
)
def test_every_score_has_one_drawer_and_both_promises_survive(scores, low, high):
    values = np.array(scores, dtype=float)
    drawers = decide(values, low, high)
    assert drawers.shape == values.shape
    for score, drawer in zip(values, drawers, strict=True):
        assert drawer in ("rule_out", "review", "rule_in")
        if not math.isfinite(score):
            assert drawer == "review"
            continue
        assert (drawer == "rule_out") == (score < low)  # exactly what was certified
        if drawer == "rule_in":
            assert score > high  # never more than what was certified
        if score > high and score >= low:
            assert drawer == "rule_in"


@given(scores=st.lists(st.floats(-2, 2), max_size=30), low=st.floats(-2, 2), high=st.floats(-2, 2))
def test_a_sicker_score_never_falls_into_a_healthier_drawer(scores, low, high):
    ranks = {"rule_out": 0, "review": 1, "rule_in": 2}
    drawers = [ranks[d] for d in decide(np.sort(np.array(scores, float)), low, high)]
    assert drawers == sorted(drawers)


def test_unusable_scores_go_to_review_even_where_all_are_ruled():
    assert decide([np.nan, np.inf, -np.inf], 1e308, -1e308).tolist() == ["review"] * 3


def test_decide_takes_choices_and_refuses_them_in_each_other_s_place():
    out, into = rule_out_threshold(np.linspace(0, 1, 59)), rule_in_threshold(np.linspace(0, 1, 59) / 2)
    assert (out.threshold, into.threshold) == (0, 0.5)
    assert decide([-1, 0, 0.5, 0.6], out, into).tolist() == ["rule_out", "review", "review", "rule_in"]
    with pytest.raises(InputError, match="rule_out must be a rule_out threshold, got a rule_in threshold"):
        decide([0.5], into, out)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (math.nan, 0.5, "rule_out must be a number or -inf for nobody, got nan"),
        (math.inf, 0.5, "rule_out must be a number or -inf"),
        (0.5, -math.inf, "rule_in must be a number or inf for nobody, got -inf"),
        (0.5, math.nan, "rule_in must be a number"),
        ("0.5", 0.5, "rule_out must be a ThresholdChoice or a number, got '0.5'"),
        (None, 0.5, "rule_out must be a ThresholdChoice or a number"),
        (True, 0.5, "rule_out must be a ThresholdChoice or a number"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(low, high, message):
    with pytest.raises(InputError, match=message):
        decide([0.5], low, high)


def test_decide_wants_one_dimension():
    with pytest.raises(InputError, match="one-dimensional"):
        decide([[0.5]], 0.1, 0.9)


# ---- from images to certificates


def test_certify_counts_patients_not_images():
    rng = np.random.default_rng(3)
    ids = np.repeat([f"p{i}" for i in range(120)], 3)
    sick = np.repeat(np.arange(120) < 60, 3)
    scores = rng.random(360)
    out, into = certify(scores, sick, ids)
    assert (out.n, into.n) == (60, 60)
    assert out == rule_out_threshold(scores[:180].reshape(60, 3).max(axis=1))
    assert into == rule_in_threshold(scores[180:].reshape(60, 3).max(axis=1))


def test_one_sick_image_makes_the_patient_sick_and_the_highest_image_counts():
    ids = ["a", "a"] + [""] * 58 + ["n"] * 3
    sick = [True, False] + [True] * 58 + [False] * 3
    scores = [0.1, 0.7] + [0.8] * 58 + [0.1, 0.2, 0.3]
    out, into = certify(scores, sick, ids)
    assert (out.n, out.threshold) == (59, 0.7)
    assert (into.n, into.certified) == (1, False)


def test_certify_refuses_a_patient_without_a_score():
    with pytest.raises(InputError, match="scores must be finite"):
        certify([0.1, np.nan], [True, False], None)
    with pytest.raises(InputError, match="sick must have 2 entries"):
        certify([0.1, 0.2], [True], None)


# ---- the counts behind a certificate


def exact_tail(k: int, n: int, p: Fraction) -> Fraction:
    """BinomCDF(k; n, p) by whole numbers, from the top term down."""
    hit, base = p.numerator, p.denominator
    miss = base - hit
    term = math.comb(n, k) * hit**k * miss ** (n - k)
    total = term
    for i in range(k, 0, -1):
        term = term * i * miss // ((n - i + 1) * hit)
        total += term
    return Fraction(total, base**n)


def exact_errors(n: int, target: str, confidence: str) -> int:
    p, limit = 1 - Fraction(target), 1 - Fraction(confidence)
    k = -1
    while k + 1 < n and exact_tail(k + 1, n, p) <= limit:
        k += 1
    return k


@pytest.mark.parametrize("target", ["0.5", "0.8", "0.95", "0.99"])
@pytest.mark.parametrize("confidence", ["0.5", "0.9", "0.95", "0.999"])
def test_errors_allowed_is_the_exact_count(target, confidence):
    for n in (*range(0, 12), 58, 59, 92, 93, 200, 299, 300, 600):
        assert errors_allowed(n, float(target), float(confidence)) == exact_errors(n, target, confidence), n


@settings(max_examples=100)
@given(
    n=st.integers(0, 150),
    target=st.decimals("0.01", "0.99", places=3),
    confidence=st.decimals("0.01", "0.99", places=3),
)
def test_errors_allowed_for_any_numbers(n, target, confidence):
    expected = exact_errors(n, str(target), str(confidence))
    assert errors_allowed(n, float(target), float(confidence)) == expected


@pytest.mark.parametrize(("n", "target"), [(20_000, "0.95"), (30_000, "0.9"), (50_000, "0.99")])
def test_errors_allowed_is_right_for_many_patients(n, target):
    k = errors_allowed(n, float(target), 0.95)
    p = 1 - Fraction(target)
    assert exact_tail(k, n, p) <= Fraction(1, 20) < exact_tail(k + 1, n, p)


def test_a_tail_that_equals_the_limit_is_within_it():
    # in floating point 1 - 0.9 < 0.1, and the one patient with the one tail of exactly 1/10 would be refused
    assert errors_allowed(1, 0.1, 0.9) == 0
    assert errors_allowed(2, 0.5, 0.75) == 0
    assert errors_allowed(3, 0.5, 0.5) == 1
    assert patients_needed(0.5, 0.75) == 2
    assert patients_needed(0.1, 0.999) == 3


def test_a_near_tie_of_very_many_patients_is_settled_on_the_safe_side():
    n = 100_001  # for odd n the lower half of the outcomes of a fair coin has exactly 1/2
    assert errors_allowed(n, 0.5, 0.5) == n // 2 - 1
    assert errors_allowed(49_999, 0.5, 0.5) == 49_999 // 2


@pytest.mark.parametrize(
    ("target", "confidence", "n"),
    [(0.95, 0.95, 59), (0.99, 0.95, 299), (0.9, 0.95, 29), (0.95, 0.99, 90), (0.999, 0.95, 2995)],
)
def test_patients_needed(target, confidence, n):
    assert patients_needed(target, confidence) == n
    assert errors_allowed(n, target, confidence) == 0
    assert errors_allowed(n - 1, target, confidence) == -1


@settings(max_examples=100)
@given(target=st.floats(1e-6, 1 - 1e-6), confidence=st.floats(1e-6, 1 - 1e-6))
def test_patients_needed_is_the_first_count_that_certifies(target, confidence):
    n = patients_needed(target, confidence)
    assert errors_allowed(n, target, confidence) >= 0
    assert n == 1 or errors_allowed(n - 1, target, confidence) == -1


def test_patients_needed_ends_for_an_absurd_target():
    assert patients_needed(1 - 1e-12, 0.95) == pytest.approx(math.log(20) * 1e12, rel=1e-3)
    assert patients_needed(1e-300, 0.95) == 1


@pytest.mark.parametrize("value", [0, 1, 95, -0.1, math.nan, True, "0.95", None])
def test_a_number_outside_0_and_1_is_refused(value):
    with pytest.raises(InputError, match="target must be a number strictly between 0 and 1, got"):
        errors_allowed(100, value, 0.95)
    with pytest.raises(InputError, match="confidence must be"):
        patients_needed(0.95, value)


@pytest.mark.parametrize("n", [-1, 59.0, True, "59"])
def test_a_count_that_is_none_is_refused(n):
    with pytest.raises(InputError, match="n must be a whole number of at least 0"):
        errors_allowed(n, 0.95, 0.95)
