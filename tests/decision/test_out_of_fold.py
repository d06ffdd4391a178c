"""Weights, comparisons and offers on out-of-fold scores."""

import numpy as np
import pytest

from benchmarks.robustness.adapt_certificate import POPULATIONS, made_up, measure
from histcxr.decision.out_of_fold import log_losses, mixture_weights, offer, within_standard_error
from histcxr.exceptions import InputError


def drawn(seed, first=1.0, second=1.0, n=200):
    rng = np.random.default_rng(seed)
    sick = np.arange(n) % 2 == 0
    side = np.where(sick, 1.0, -1.0)
    return first * side + rng.normal(size=n), second * side + rng.normal(size=n), sick


def losses(weights, logits, sick):
    return log_losses(weights @ np.stack(logits), sick).mean()


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_where_the_loss_is_least(seed):
    simple, rich, sick = drawn(seed)
    third = np.random.default_rng(seed + 99).normal(size=200) + sick
    found = mixture_weights([simple, rich, third], sick)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    least = losses(found, [simple, rich, third], sick)
    for other in np.random.default_rng(1).dirichlet(np.ones(3), 2000):
        assert losses(other, [simple, rich, third], sick) >= least - 1e-9


def test_what_alone_is_best_has_weight_one():
    good, bad, sick = drawn(0, first=2.0, second=-2.0)
    np.testing.assert_array_equal(mixture_weights([good, bad], sick), [1.0, 0.0])
    np.testing.assert_array_equal(mixture_weights([bad, good], sick), [0.0, 1.0])
    np.testing.assert_array_equal(mixture_weights([good, good], sick), [1.0, 0.0])
    np.testing.assert_array_equal(mixture_weights([bad], sick), [1.0])


def test_a_patient_counts_once():
    simple, rich, sick = drawn(3)
    once = mixture_weights([simple, rich], sick)
    again = np.r_[np.arange(200), np.repeat(7, 50)]  # one patient fifty times more
    more = [simple[again], rich[again]]
    np.testing.assert_allclose(mixture_weights(more, sick[again], again), once, atol=1e-4)
    assert abs(mixture_weights(more, sick[again]) - once).max() > 1e-3


def test_log_loss_is_scikit_learns():
    from scipy.special import expit
    from sklearn.metrics import log_loss

    simple, _, sick = drawn(4)
    assert log_losses(simple, sick).mean() == pytest.approx(log_loss(sick, expit(simple)))


def test_simpler_within_a_standard_error():
    good, bad, sick = drawn(0, first=2.0, second=-2.0)
    assert within_standard_error(good, good, sick)
    assert within_standard_error(good, bad, sick)
    assert not within_standard_error(bad, good, sick)


def test_an_offer_counts_who_is_ruled_out():
    scores = np.r_[np.linspace(0.4, 1.0, 100), np.linspace(0.0, 0.6, 100)]
    sick = np.arange(200) < 100
    found = offer(scores, sick, None, sensitivity=0.95, specificity=0.95, confidence=0.95)
    assert found.certificates.rule_out.errors_allowed == 1
    low = found.certificates.rule_out.threshold
    assert found.specificity.value == (scores[100:] < low).mean() > 0.5
    few = offer(scores[50:], sick[50:], None, sensitivity=0.95, specificity=0.95, confidence=0.95)
    assert few.specificity is None
    assert few.sensitivity is not None
    assert few.to_dict()["specificity"] is None


def test_lengths_must_agree():
    simple, rich, sick = drawn(0)
    with pytest.raises(InputError, match="logits must have 199 entries"):
        mixture_weights([simple, rich], sick[:-1])


def test_the_certificate_holds_in_a_small_simulation():
    rng = np.random.default_rng(5)
    found = measure(made_up(POPULATIONS[0], 60, rng), 120, rng)
    # Of 120 draws 13 and more are below 95 % by chance in less than 1 %, if it is 5 % of all.
    assert found["adapt"]["rule_out"]["value"] < 13 / 120
    assert found["adapt"]["rule_in"]["value"] < 13 / 120
    assert found["adapt"]["specificity"] > found["model alone (exact)"]["specificity"]
    assert found["split: half fits, half certifies"]["specificity"] == 0  # 30 sick certify nothing
