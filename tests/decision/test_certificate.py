"""The promise itself, on many calibration sets, and against MAPIE's risk control."""

import json
import math

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from scipy.stats import binom

from benchmarks.robustness import certificate as benchmark
from histcxr.decision import thresholds
from histcxr.decision.intervals import proportion
from histcxr.decision.thresholds import errors_allowed, rule_in_threshold, rule_out_threshold


def broken_promises(function, scores, target, *, values=None):
    """How often the true rate is under target, for uniform scores or for positions in ``values``.

    The truth of a threshold t on uniform scores is 1 - t (rule_out) or t (rule_in). Where the scores are
    rounded up to a multiple of 1 / values it is so too, as t itself is such a multiple.
    """
    if function is rule_out_threshold:
        drawn = scores if values is None else np.floor(scores * values) / values
        found = np.array([function(sample, sensitivity=target).threshold for sample in drawn])
        return int((found > (1 - target) * (1 + 1e-12)).sum())
    drawn = scores if values is None else np.ceil(scores * values) / values
    found = np.array([function(sample, specificity=target).threshold for sample in drawn])
    return int((found < target * (1 - 1e-12)).sum())


@pytest.mark.parametrize("function", [rule_out_threshold, rule_in_threshold])
@pytest.mark.parametrize(("n", "target", "draws"), [(59, 0.95, 3000), (200, 0.95, 6000), (299, 0.99, 2000)])
def test_the_promise_is_broken_just_as_often_as_the_binomial_says(function, n, target, draws):
    scores = np.random.default_rng([n, function is rule_in_threshold]).random((draws, n))
    seen = proportion(broken_promises(function, scores, target), draws, confidence=0.999)
    k = errors_allowed(n, target, 0.95)
    assert seen.low <= binom.cdf(k, n, 1 - target) <= seen.high
    assert seen.low <= 0.05
    # the check has teeth: one error more or fewer would lie outside the same interval
    assert not seen.low <= binom.cdf(k + 1, n, 1 - target) <= seen.high
    assert k == 0 or not seen.low <= binom.cdf(k - 1, n, 1 - target) <= seen.high


@pytest.mark.parametrize("function", [rule_out_threshold, rule_in_threshold])
@pytest.mark.parametrize("values", [10, 100])
def test_the_promise_holds_with_ties(function, values):
    scores = np.random.default_rng([values, function is rule_in_threshold]).random((2000, 200))
    seen = proportion(broken_promises(function, scores, 0.95, values=values), 2000, confidence=0.999)
    assert seen.low <= 0.05


def test_the_empirical_quantile_breaks_it_about_half_the_time():
    scores = np.random.default_rng(5).random((2000, 200))
    assert 0.4 < (np.quantile(scores, 0.05, axis=1) > 0.05).mean() < 0.65


# ---- the benchmark is the same check, larger


def test_benchmark_populations_know_their_own_truth():
    rng = np.random.default_rng(0)
    for population in (benchmark.gaussian(), benchmark.rounded(0.5), benchmark.three_values(0.9)):
        scores = population.draw(rng, (200_000,))
        for t in (-1.5, -1.0, 0.0, 0.3, 1.0):
            assert float(population.below(np.float64(t))) == pytest.approx((scores < t).mean(), abs=0.006)
            assert float(population.above(np.float64(t))) == pytest.approx((scores > t).mean(), abs=0.006)
    several = benchmark.several_images(3)
    highest = np.concatenate([rng.normal(size=(60_000, images)).max(axis=1) for images in (1, 2, 3)])
    assert float(several.below(np.float64(0.5))) == pytest.approx((highest < 0.5).mean(), abs=0.006)
    assert float(several.above(np.float64(0.5))) == pytest.approx((highest > 0.5).mean(), abs=0.006)


def test_benchmark_writes_its_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", ((0.95, 59),))
    assert benchmark.main(["--draws", "200", "--json", str(tmp_path / "rows.json")]) == 0
    written = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert written["holds"] is True
    assert len(written["rows"]) == 8
    assert printed.count("| rule_in ") == 4
    assert all(row["quantile_broken"] > 0.3 for row in written["rows"])


def test_benchmark_fails_when_one_error_too_many_is_allowed(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", ((0.95, 59),))
    true_count = thresholds.errors_allowed
    monkeypatch.setattr(thresholds, "errors_allowed", lambda *a: true_count(*a) + 1)
    assert benchmark.main(["--draws", "200"]) == 1
    assert "FAILS" in capsys.readouterr().out


# ---- MAPIE
#
# MAPIE (Learn Then Test) tests a grid of thresholds and corrects for testing many. Its p-value for a binary
# risk is the smaller of the binomial tail and Hoeffding's bound; the latter is a Chernoff bound of that same
# tail and never smaller, so the p-value is our BinomCDF. With the calibration scores themselves as grid and
# fixed-sequence testing (no correction, as the risk is monotone) it must then find our threshold. Two
# differences remain. On a fixed grid with Bonferroni-Holm, its default, it stays below ours. And it rounds
# n * (1 - (n - errors) / n) up to whole errors after floating point, so that it may count one error too many.


def mapie_thresholds(scores, sick, risk, target, confidence, **options):
    controller = BinaryClassificationController(
        predict_function=lambda X: np.column_stack([1 - X, X]),
        risk=risk,
        target_level=target,
        confidence_level=confidence,
        **options,
    )
    controller.calibrate(scores, sick.astype(int))
    return controller.valid_predict_params


def rounds_up_too_far(errors, n):
    return math.ceil(n * (1 - (n - errors) / n)) > errors


@pytest.mark.parametrize("n", [59, 93, 150, 200, 333, 1000])
@pytest.mark.parametrize(("target", "confidence"), [(0.95, 0.95), (0.9, 0.9)])
def test_mapie_finds_the_same_rule_out_threshold(n, target, confidence):
    rng = np.random.default_rng(n)
    scores, sick = rng.permutation(np.linspace(0.01, 0.99, n + 50)), np.arange(n + 50) < n
    ours = rule_out_threshold(scores[sick], sensitivity=target, confidence=confidence)
    grid = np.sort(scores[sick])
    valid = mapie_thresholds(
        scores, sick, "recall", target, confidence, list_predict_params=grid, fwer_method="fixed_sequence"
    )
    position = ours.errors_allowed - rounds_up_too_far(ours.errors_allowed, n)
    assert valid.max() == grid[position]
    assert ours.threshold == grid[ours.errors_allowed]


def test_mapie_was_compared_with_and_without_its_rounding():
    counts = {n: errors_allowed(n, 0.95, 0.95) for n in (59, 93, 150, 200, 333, 1000)}
    assert [n for n, k in counts.items() if rounds_up_too_far(k, n)] == [200, 1000]


@pytest.mark.parametrize("n", [59, 93, 150, 200, 333, 1000])
def test_mapie_finds_the_same_rule_in_threshold(n):
    rng = np.random.default_rng(n)
    scores, sick = rng.permutation(np.linspace(0.01, 0.99, n + 50)), np.arange(n + 50) >= n
    ours = rule_in_threshold(scores[~sick])
    # MAPIE calls sick from the threshold on, we above it: the next number up says the same
    grid = np.nextafter(np.sort(scores[~sick]), 2)
    valid = mapie_thresholds(
        scores, sick, "fpr", 1 - ours.target, ours.confidence, list_predict_params=grid,
        fwer_method="fixed_sequence",
    )  # fmt: skip
    assert valid.min() == np.nextafter(ours.threshold, 2)


def test_mapie_finds_the_same_threshold_among_ties():
    rng = np.random.default_rng(11)
    scores, sick = np.round(rng.random(300), 1) * 0.98 + 0.01, np.arange(300) < 200
    ours = rule_out_threshold(scores[sick])
    valid = mapie_thresholds(
        scores, sick, "recall", 0.95, 0.95, list_predict_params=np.unique(scores),
        fwer_method="fixed_sequence",
    )  # fmt: skip
    assert valid.max() == ours.threshold


def test_mapie_s_default_grid_stays_below_ours():
    rng = np.random.default_rng(2)
    sick = np.arange(800) < 400
    scores = np.clip(rng.normal(np.where(sick, 0.6, 0.3), 0.15), 0.001, 0.999)
    valid = mapie_thresholds(scores, sick, "recall", 0.95, 0.95)
    assert valid.size
    assert valid.max() <= rule_out_threshold(scores[sick]).threshold


@pytest.mark.filterwarnings("ignore")
def test_mapie_refuses_where_we_do():
    scores, sick = np.linspace(0.01, 0.99, 108), np.arange(108) < 58
    grid = np.sort(scores[sick])
    valid = mapie_thresholds(
        scores, sick, "recall", 0.95, 0.95, list_predict_params=grid, fwer_method="fixed_sequence"
    )
    assert valid.size == 0
    assert not rule_out_threshold(scores[sick]).certified
