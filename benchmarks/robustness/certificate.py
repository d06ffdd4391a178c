"""Does the certificate hold? Thresholds from many calibration sets of populations whose truth is known.

From each population, calibration sets are drawn again and again, a threshold is certified on each with
histcxr's own functions, and the *true* sensitivity (or specificity) of that threshold is worked out from the
population's distribution, not estimated. The certificate promises that it lies below the target in at most
1 - confidence of the sets. Beside it stands the usual way, the empirical quantile of the same scores.

    python -m benchmarks.robustness.certificate --draws 2000 --json certificate.json

Prints a Markdown table. Exit status 1 when a share of broken promises lies above 5 % beyond its Monte-Carlo
interval (99 %, Clopper-Pearson), else 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from benchmarks.common import make_parser, publish, run
from histcxr.decision.intervals import patient_scores, proportion
from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.reports.text import markdown_table

CONFIDENCE = 0.95
MONTE_CARLO = 0.99
SIZES = ((0.95, 59), (0.95, 200), (0.95, 1000), (0.99, 299), (0.99, 1000))
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Scores of one class: how to draw them, and the exact share of patients beyond a threshold.

    ``draw(rng, shape)`` gives scores centred at 0 (images first: shape (..., images) where ``images`` > 1);
    ``below(t)`` is P(patient's score < t) and ``above(t)`` is P(patient's score > t), exactly.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], FloatArray]
    below: Callable[[FloatArray], FloatArray]
    above: Callable[[FloatArray], FloatArray]
    images: int = 1


def gaussian() -> Population:
    """Continuous scores: no ties."""
    return Population("continuous", lambda rng, shape: rng.normal(size=shape), norm.cdf, norm.sf)


def rounded(step: float) -> Population:
    """Gaussian scores rounded to whole multiples of ``step`` (kept as integers): ties everywhere."""
    return Population(
        f"rounded to {step:g} sd",
        lambda rng, shape: np.rint(rng.normal(size=shape) / step),
        lambda t: norm.cdf((np.ceil(t) - 0.5) * step),
        lambda t: norm.sf((np.floor(t) + 0.5) * step),
    )


def three_values(target: float) -> Population:
    """Three scores only, with a little more at either end than may be wrong: the hardest ties there are."""
    end = 1.01 * (1 - target)

    def below(t: FloatArray) -> FloatArray:
        return np.select([t <= -1, t <= 0, t <= 1], [0.0, end, 1 - end], 1.0)

    return Population(
        "three values",
        lambda rng, shape: np.searchsorted([end, 1 - end], rng.random(shape)).astype(np.float64) - 1,
        below,
        lambda t: below(-t),
    )


def several_images(most: int) -> Population:
    """Patients with 1 to ``most`` images each, equally often; the patient's score is the highest."""
    counts = np.arange(1, most + 1)

    def below(t: FloatArray) -> FloatArray:
        return np.mean(norm.cdf(t)[..., np.newaxis] ** counts, axis=-1)

    return Population(
        f"1 to {most} images a patient",
        lambda rng, shape: rng.normal(size=shape),
        below,
        lambda t: 1 - below(t),
        images=most,
    )


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are of calibration sets."""

    population: str
    drawer: str
    target: float
    n: int
    errors_allowed: int
    expected: float
    broken: float
    broken_low: float
    broken_high: float
    mean_truth: float
    quantile_broken: float
    quantile_low: float
    quantile_high: float
    quantile_mean_truth: float
    holds: bool


def measure(population: Population, drawer: str, target: float, n: int, draws: int, seed: int) -> Row:
    """Certify ``draws`` thresholds on ``n`` patients each and compare their truth with the target."""
    rng = np.random.default_rng(seed)
    scores = np.empty((draws, n))
    if population.images == 1:
        scores = population.draw(rng, (draws, n))
    else:
        ids = np.arange(n)
        for row in range(draws):
            owner = np.repeat(ids, rng.integers(1, population.images + 1, n))
            scores[row] = patient_scores(population.draw(rng, owner.shape), owner)
    if drawer == "rule_out":
        certify, promise = rule_out_threshold, {"sensitivity": target}
    else:
        certify, promise = rule_in_threshold, {"specificity": target}
    choices = [certify(sample, **promise, confidence=CONFIDENCE) for sample in scores]
    if not all(choice.certified for choice in choices):
        raise RuntimeError(f"{n} patients were not enough for {target} at {CONFIDENCE}")
    thresholds = np.array([choice.threshold for choice in choices])
    if drawer == "rule_out":
        wrong, usual = population.below, np.quantile(scores, 1 - target, axis=1)
    else:
        wrong, usual = population.above, np.quantile(scores, target, axis=1)
    truth, usual_truth = 1 - wrong(thresholds), 1 - wrong(usual)
    broken = proportion(int((truth < target).sum()), draws, confidence=MONTE_CARLO)
    naive = proportion(int((usual_truth < target).sum()), draws, confidence=MONTE_CARLO)
    k = choices[0].errors_allowed
    return Row(
        population.name, drawer, target, n, k, float(binom.cdf(k, n, 1 - target)),
        broken.value, broken.low, broken.high, float(truth.mean()),
        naive.value, naive.low, naive.high, float(usual_truth.mean()),
        holds=broken.low <= 1 - CONFIDENCE,
    )  # fmt: skip


def measure_all(draws: int, seed: int) -> list[Row]:
    """Measure every population, drawer and size."""
    plan = [
        (population(target), drawer, target, n)
        for population in (lambda _: gaussian(), lambda _: rounded(0.1), three_values)
        for drawer in ("rule_out", "rule_in")
        for target, n in SIZES
    ]
    plan += [(several_images(3), drawer, 0.95, 200) for drawer in ("rule_out", "rule_in")]
    return [measure(*case, draws=draws, seed=seed + number) for number, case in enumerate(plan)]


def cells(row: Row) -> dict[str, object]:
    """Lay a row out for the table."""
    certified, quantile = (
        f"{value:.1%} ({low:.1%} to {high:.1%})"
        for value, low, high in (
            (row.broken, row.broken_low, row.broken_high),
            (row.quantile_broken, row.quantile_low, row.quantile_high),
        )
    )
    return {
        "scores": row.population,
        "drawer": row.drawer,
        "target": f"{row.target:.0%}",
        "n": row.n,
        "k": row.errors_allowed,
        "certified: below target": certified + ("" if row.holds else " FAILS"),
        "expected without ties": f"{row.expected:.1%}",
        "true mean": f"{row.mean_truth:.2%}",
        "empirical quantile: below target": quantile,
        "its true mean": f"{row.quantile_mean_truth:.2%}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument("--draws", type=int, default=2000, help="calibration sets a row (default 2000)")
    options = parser.parse_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws must be at least 1, got {options.draws}")
    started = time.perf_counter()
    rows = measure_all(options.draws, options.seed)
    holds = all(row.holds for row in rows)
    text = (
        f"{markdown_table([cells(row) for row in rows])}\n\n{options.draws} calibration sets a row, confidence "
        f"{CONFIDENCE:.0%}, in brackets the {MONTE_CARLO:.0%} Monte-Carlo interval, "
        f"{time.perf_counter() - started:.1f} s. "
        + ("The certificate holds." if holds else "THE CERTIFICATE FAILS.")
    )
    content = {
        "draws": options.draws,
        "seed": options.seed,
        "confidence": CONFIDENCE,
        "monte_carlo_confidence": MONTE_CARLO,
        "holds": holds,
        "rows": [asdict(row) for row in rows],
    }
    publish(text, content, options.json)
    return 0 if holds else 1


if __name__ == "__main__":
    run(main)
