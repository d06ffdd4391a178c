"""Evidence over the days: bounded false alarms, whatever the share of sick; alarms where something is wrong."""

import numpy as np
import pytest
from scipy import integrate, stats

from histcxr.decision.sequential import LIMIT, ChangeTest, betting, p_value_evidence, promise_evidence
from histcxr.exceptions import InputError


def test_a_bet_on_a_p_value_is_fair():
    p = np.array([1e-3, 0.02, 0.3, 0.9])
    mixture = [integrate.quad(lambda k, p=one: k * p ** (k - 1), 0, 1)[0] for one in p]
    assert betting(p) == pytest.approx(mixture, rel=1e-9)
    assert integrate.quad(lambda p: betting(p), 1e-5, 1, limit=200)[0] <= 1
    assert betting([np.nan]) == pytest.approx([1])
    assert betting([0.0, 1.0]) == pytest.approx(betting([1e-5, 1 - 1e-6]))


def test_evidence_waits_for_the_day_when_things_go_wrong():
    rng = np.random.default_rng(0)
    quiet = rng.uniform(0.2, 1, 200)
    path = p_value_evidence([*quiet, 1e-4, 1e-4, 1e-4, 1e-4])
    assert path[:200].max() < 2
    assert path[-1] > LIMIT
    assert np.prod(betting(quiet)) < 1e-3  # where all was bet from the start, nothing is left to bet with


def test_random_p_values_seldom_alarm():
    rng = np.random.default_rng(1)
    alarms = sum(p_value_evidence(rng.uniform(size=100)).max() >= 20 for _ in range(1000))
    assert alarms <= stats.binom.ppf(0.999, 1000, 1 / 20)


@pytest.mark.parametrize("audit", [1.0, 0.2])
def test_a_promise_that_is_kept_seldom_alarms(audit):
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(300):
        sick = rng.poisson(rng.uniform(1, 40, 40))
        missed = rng.binomial(sick, 0.05)
        alarms += promise_evidence(rng.binomial(missed, audit), sick - missed, 0.95, audit).max() >= 20
    assert alarms <= stats.binom.ppf(0.999, 300, 1 / 20)


@pytest.mark.parametrize(("audit", "days"), [(1.0, 15), (0.2, 90)])
def test_a_broken_promise_is_found_whether_all_or_a_part_is_read(audit, days):
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(40):
        sick = rng.poisson(20, 30 + days)
        missed = rng.binomial(sick, np.where(np.arange(len(sick)) < 30, 0.03, 0.15))
        path = promise_evidence(rng.binomial(missed, audit), sick - missed, 0.95, audit)
        assert path[:30].max() < LIMIT
        found += path.max() >= LIMIT
    assert found >= 38


def test_the_likelihood_ratio_is_the_binomial_one():
    """One day, so half the stake bets: the mean over the alternatives, from their probabilities."""
    odds = 0.05 / 0.95 * np.geomspace(1.2, 16, 12)
    error = odds / (1 + odds)
    ratios = stats.binom.pmf(4, 20, error) / stats.binom.pmf(4, 20, 0.05)
    assert promise_evidence([4], [16], 0.95)[0] == pytest.approx(ratios.mean() / 2 + 0.5)


def test_days_that_say_nothing_leave_the_evidence():
    path = promise_evidence([3, 50, 1, 50], [20, 0, 19, 3], 0.95, [1, np.inf, 1, np.nan])
    assert path[[1, 3]] == pytest.approx(path[[0, 2]], rel=0.5)
    assert path[3] < 2 * path[2]


def test_wrong_counts_are_refused():
    with pytest.raises(InputError, match="wrong and right must be counts"):
        promise_evidence([1, 2], [1], 0.95)
    with pytest.raises(InputError, match="target"):
        promise_evidence([1], [1], 95)
    with pytest.raises(InputError, match="coordinates must be"):
        ChangeTest(np.eye(3, 8)).add(np.zeros((5, 7)), np.zeros(5))


K = 20
MEANS = np.zeros((3, K))
MEANS[1, 0], MEANS[2, 1] = 3.0, 2.0
LOCAL = np.r_[
    0, 0, 0.5, -0.3, np.zeros(K - 4)
]  # by which the sick of this site differ from the certified ones


def day(rng, n, sick_share, shift=0.0):
    sick = rng.random(n) < sick_share
    rows = (
        MEANS[np.where(sick, 1, 2 * (rng.random(n) < 0.3))] + sick[:, None] * LOCAL + rng.normal(size=(n, K))
    )
    scores = 1 / (1 + np.exp(-(3 * (rows[:, 0] - 1.5) + rng.normal(size=n))))
    return rows + shift * np.r_[np.zeros(10), np.ones(K - 10)] / np.sqrt(K - 10), scores


def season(rng, days):
    return 0.475 + 0.425 * np.sin(2 * np.pi * np.arange(days) / 30 + rng.uniform(0, 6))


@pytest.mark.parametrize("shares", ["random", "season", "step"])
def test_another_share_of_sick_is_no_change(shares):
    rng = np.random.default_rng(4)
    for _ in range(6):
        made = {
            "random": rng.uniform(0.05, 0.9, 40),
            "season": season(rng, 40),
            "step": np.repeat([0.05, 0.9], 20),
        }
        test = ChangeTest(MEANS)
        assert max(test.add(*day(rng, rng.integers(50, 200), share)) for share in made[shares]) < LIMIT
        assert test.distance is not None


def test_a_change_is_found_in_days():
    rng = np.random.default_rng(5)
    for _ in range(10):
        test = ChangeTest(MEANS)
        path = [test.add(*day(rng, 120, rng.uniform(0.05, 0.9), 1.0 * (i >= 20))) for i in range(28)]
        assert max(path[:20]) < LIMIT
        assert max(path) >= LIMIT
        assert test.distance == pytest.approx(1, abs=0.5)


def test_without_axes_beside_the_groups_nothing_is_compared():
    test = ChangeTest(np.array([[0.0], [1.0]]))
    assert not test.possible
    assert test.add(np.zeros((500, 1)), np.full(500, 0.5)) == 1


def test_mapie_finds_the_broken_promise_too_and_no_sooner():
    """MAPIE's RiskMonitoring, a time-uniform bound of the same errors, at the same level."""
    monitoring = pytest.importorskip("mapie.exchangeability_testing")
    rng = np.random.default_rng(6)
    for _ in range(3):
        missed = rng.random((30, 15)) < 0.25
        ours = np.flatnonzero(promise_evidence(missed.sum(1), (~missed).sum(1), 0.95) >= LIMIT)
        test = monitoring.RiskMonitoring(risk="recall", threshold=0.05, test_level=2 / LIMIT, warn=False)
        theirs = []
        for one in missed:
            test.update(np.ones(15, int), (~one).astype(int))
            theirs.append(test.harmful_shift_detected)
        assert ours[0] <= np.flatnonzero(theirs)[0]


def test_a_martingale_of_scores_takes_more_sick_for_drift():
    """The trap: MAPIE's martingale alarms on shares of sick patients that move."""
    monitoring = pytest.importorskip("mapie.exchangeability_testing")
    rng = np.random.default_rng(7)
    martingale = monitoring.OnlineMartingaleTest(task="classification", warn=False)
    ours, history, theirs = ChangeTest(MEANS), [], []
    for share in np.repeat([0.1, 0.8], 8):
        rows, scores = day(rng, 100, share)
        assert ours.add(rows, scores) < LIMIT
        for score in scores:
            if history:
                p_value = martingale.compute_p_value(score, np.array(history))
                theirs.append(martingale.update_simple_jumper_martingale(p_value))
            history.append(score)
    assert max(theirs) > LIMIT
