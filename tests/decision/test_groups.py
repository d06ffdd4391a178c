"""Certificates within groups: every group keeps its promise, at once, known or not."""

import json

import numpy as np
import pytest
from scipy.stats import binom, norm

from histcxr.decision.groups import GroupThresholds, certify_groups
from histcxr.decision.thresholds import certify, decide, rule_out_threshold
from histcxr.exceptions import InputError


def draw(rng, sizes, shift=0.6):
    """Scores of sick and normal images in groups whose sick score differently."""
    names = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    sick = rng.random(len(names)) < 0.5
    place = np.repeat(np.arange(len(sizes)) * shift, sizes)
    return norm.cdf(rng.normal(size=len(names)) + sick * (1 + place)), sick, names


def test_without_groups_it_is_the_plain_certificate():
    scores, sick, _ = draw(np.random.default_rng(0), [400])
    found, plain = certify_groups(scores, sick, None, {}), certify(scores, sick, None)
    assert (found.rule_out.overall, found.rule_in.overall) == plain
    assert (found.rule_out.limits({}, 3) == plain.rule_out.threshold).all()


@pytest.mark.parametrize("n_groups", [2, 8])
def test_all_promises_hold_at_once(n_groups):
    """The share of calibrations in which any group falls short stays under 5 % plus its Monte-Carlo error."""
    rng, draws, target = np.random.default_rng(n_groups), 400, 0.9
    means = 1 + 0.6 * np.arange(n_groups)
    broken = 0
    for _ in range(draws):
        parts = [np.sort(rng.normal(mean, size=100)) for mean in means]
        scores = norm.cdf(np.concatenate(parts))
        names = np.repeat([f"g{i}" for i in range(n_groups)], 100)
        found = certify_groups(
            np.append(scores, 0.5), np.append(np.ones(len(scores), bool), False), None,
            {"disease": np.append(names, "none")}, sensitivity=target,
        )  # fmt: skip
        limits = found.rule_out.limits({"disease": [f"g{i}" for i in range(n_groups)]}, n_groups)
        true_sensitivity = norm.sf(norm.ppf(np.clip(limits, 1e-12, 1)) - means)
        broken += bool((true_sensitivity < target).any())
    assert broken <= binom.ppf(0.999, draws, 0.05)


def test_an_unknown_group_gets_the_strictest_threshold():
    scores, sick, names = draw(np.random.default_rng(1), [400, 400, 400])
    found = certify_groups(scores, sick, None, {"view": names}).rule_out
    own = found.limits({"view": ["g0", "g1", "g2"]}, 3)
    unknown = found.limits({}, 2)
    assert (unknown == min(own)).all()
    assert (own <= found.overall.threshold).all()
    assert own[2] > own[0]


def test_a_small_group_gets_no_promise_and_says_what_it_takes():
    scores, sick, names = draw(np.random.default_rng(2), [400, 20])
    found = certify_groups(scores, sick, None, {"view": names})
    small = found.rule_out.groups["view"]["g1"]
    assert not small.certified
    assert "takes at least" in small.message
    assert found.rule_out.limits({"view": ["g1"]}, 1)[0] == -np.inf
    assert found.rule_in.limits({"view": ["g1"]}, 1)[0] == np.inf
    # It takes no share of the confidence either: two promises, over all and for g0.
    assert found.rule_out.overall.confidence == pytest.approx(1 - 0.05 / 2)


def test_a_group_nobody_was_certified_in_is_promised_nothing():
    scores, sick, names = draw(np.random.default_rng(3), [400, 400])
    found = certify_groups(scores, sick, None, {"view": names})
    assert found.rule_out.limits({"view": ["lateral"]}, 1)[0] == -np.inf


def test_the_thresholds_are_those_of_each_group_alone():
    scores, sick, names = draw(np.random.default_rng(4), [500, 500])
    found = certify_groups(scores, sick, None, {"view": names})
    for name, choice in found.rule_out.groups["view"].items():
        alone = rule_out_threshold(scores[sick & (names == name)], confidence=1 - 0.05 / 3)
        assert choice == alone


def test_patients_count_once_a_group_with_their_highest_image():
    scores, sick, names = draw(np.random.default_rng(5), [300, 300])
    ids = np.array([f"p{i}" for i in range(600)])
    doubled = certify_groups(
        np.concatenate([scores, scores - 0.01]),
        np.tile(sick, 2),
        np.tile(ids, 2),
        {"view": np.tile(names, 2)},
    )
    assert doubled == certify_groups(scores, sick, ids, {"view": names})


def test_it_survives_json():
    scores, sick, names = draw(np.random.default_rng(6), [300, 30])
    for thresholds in certify_groups(scores, sick, None, {"view": names}):
        again = GroupThresholds.from_dict(json.loads(json.dumps(thresholds.to_dict(), allow_nan=False)))
        assert again == thresholds


def test_mistakes_are_named():
    scores, sick, names = draw(np.random.default_rng(7), [60])
    with pytest.raises(InputError, match="view must have shape"):
        certify_groups(scores, sick, None, {"view": names[:-1]})
    with pytest.raises(InputError, match="at most 64 groups"):
        certify_groups(np.tile(scores, 2), np.tile(sick, 2), None, {"id": np.arange(120).astype(str)})
    with pytest.raises(InputError, match="damaged"):
        GroupThresholds.from_dict({"overall": {}})


def test_decisions_are_those_of_each_image_by_its_own_thresholds():
    scores, sick, names = draw(np.random.default_rng(8), [500, 500, 20])
    found = certify_groups(scores, sick, None, {"view": names})
    again = type(found).from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    known = {"view": np.where(np.arange(len(names)) % 3 == 0, "", names)}
    low, high = (thresholds.limits(known, len(scores)) for thresholds in found)
    expected = [decide([s], *limits)[0] for s, *limits in zip(scores, low, high, strict=True)]
    assert again.decide(scores, known).tolist() == expected
    assert set(expected) == {"rule_out", "review", "rule_in"}
    assert again.decide([np.nan], {"view": ["g0"]}).tolist() == ["review"]
