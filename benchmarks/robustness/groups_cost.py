"""Do the promises within groups hold, and what do they cost? Many calibrations of populations whose truth is known.

From each population, calibration patients are drawn again and again and certified within their groups. The *true*
sensitivity of each group at its own threshold, and the true specificity (the share of all normal patients who are
ruled out), are worked out from the population's distribution, not estimated. Beside it stands one threshold for all,
certified over all patients alone: its specificity, and the sensitivity of the group that it treats worst.

    python -m benchmarks.robustness.groups_cost --draws 2000 --json groups_cost.json

Scores are Gaussian with standard deviation 1, normal patients at 0. Populations: ``alike``, the sick of every group at
2; ``harder``, the sick of the first group at 1.5, of the last at 2.5; ``shifted``, sick and normal of the first group
0.5 lower, of the last 0.5 higher, as another kind of image would be scored. Sizes: 200 sick a group, or 110 to 600, the
first group the smallest; as many normal patients. Rule_in is the mirror image.

Prints a Markdown table. Exit status 1 when in more than 5 % of the calibrations any promise (of a group, or over all
patients) is broken, beyond the Monte-Carlo interval (99 %, Clopper-Pearson), else 0.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.common import make_parser, publish, run
from histcxr.decision.groups import certify_groups
from histcxr.decision.intervals import Estimate, proportion
from histcxr.decision.thresholds import errors_allowed
from histcxr.reports.tables import markdown_table

TARGET, CONFIDENCE, MONTE_CARLO = 0.95, 0.95, 0.99
GROUPS, POPULATIONS = (2, 4, 8), ("alike", "harder", "shifted")
EQUAL, SMALLEST, LARGEST = 200, 110, 600
CHECKED = 10  # calibrations whose thresholds are compared with those of certify_groups
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Gaussian scores by group: sick patients, and where the sick and the normal lie; all shape (groups,)."""

    sizes: NDArray[np.int64]
    sick: FloatArray
    normal: FloatArray

    def sensitivities(self, limits: FloatArray) -> FloatArray:
        """Return each group's true sensitivity at its limits: (draws, groups) as ``limits``."""
        return norm.sf(limits - self.sick)

    def overall(self, figures: FloatArray) -> FloatArray:
        """Return the mean over all patients of figures by group, (draws, groups)."""
        return figures @ (self.sizes / self.sizes.sum())

    def specificities(self, limits: FloatArray) -> FloatArray:
        """Return the true share of normal patients ruled out, shape (draws,)."""
        return self.overall(norm.cdf(limits - self.normal))


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are of calibrations, the others means over them."""

    population: str
    groups: int
    smallest: int
    largest: int
    broken: Estimate
    broken_unknown: Estimate
    worst: float
    specificity: float
    specificity_unknown: float
    one_broken: float
    one_worst: float
    one_specificity: float

    @property
    def holds(self) -> bool:
        """Whether the promises are kept, groups known or not."""
        return max(self.broken.low, self.broken_unknown.low) <= 1 - CONFIDENCE


def populate(kind: str, n_groups: int, *, equal: bool) -> Population:
    """Return a population by its name."""
    sizes = np.full(n_groups, EQUAL) if equal else np.geomspace(SMALLEST, LARGEST, n_groups).round()
    away = np.linspace(-0.5, 0.5, n_groups)
    return Population(
        sizes.astype(np.int64),
        2 + away * (kind != "alike"),
        away if kind == "shifted" else np.zeros(n_groups),
    )


def own_limits(scores: list[FloatArray]) -> FloatArray:
    """Certify every calibration within its groups, of scores (draws, n) a group; thresholds, (draws, groups).

    The errors allowed are those of :func:`certify_groups`, and so are the thresholds of the first calibrations.
    """
    names = [f"g{number}" for number in range(len(scores))]
    column = np.repeat(names, [part.shape[1] for part in scores])
    expected = []
    for draw in range(min(CHECKED, len(scores[0]))):
        found = certify_groups(
            np.concatenate([part[draw] for part in scores]), np.ones(len(column), bool), None, {"group": column},
            sensitivity=TARGET, confidence=CONFIDENCE,
        ).rule_out  # fmt: skip
        if not all(choice.certified for choice in found.choices()):
            raise RuntimeError("a group was too small to be certified")
        expected.append(found.limits({"group": names}, len(names)))
    limits = np.minimum(
        smallest(np.concatenate(scores, axis=1), found.overall.errors_allowed)[:, np.newaxis],
        np.stack(
            [
                smallest(part, found.groups["group"][name].errors_allowed)
                for name, part in zip(names, scores, strict=True)
            ],
            axis=1,
        ),
    )
    if not np.array_equal(limits[: len(expected)], expected):
        raise RuntimeError("the thresholds are not those of certify_groups")
    return limits


def smallest(scores: FloatArray, k: int) -> FloatArray:
    """Return the (k+1)-th smallest of each row."""
    return np.partition(scores, k, axis=1)[:, k]


def measure(kind: str, n_groups: int, draws: int, seed: int, *, equal: bool) -> Row:
    """Certify ``draws`` calibrations of a population and work out what is true of them."""
    rng, population = np.random.default_rng(seed), populate(kind, n_groups, equal=equal)
    scores = [
        rng.normal(mean, size=(draws, n)) for mean, n in zip(population.sick, population.sizes, strict=True)
    ]
    known = own_limits(scores)
    unknown = np.broadcast_to(known.min(axis=1, keepdims=True), known.shape)
    pool = np.concatenate(scores, axis=1)
    one = smallest(pool, errors_allowed(pool.shape[1], TARGET, CONFIDENCE))
    one = np.broadcast_to(one[:, np.newaxis], known.shape)

    def broken(limits: FloatArray) -> int:
        true = population.sensitivities(limits)
        return int(((true < TARGET).any(axis=1) | (population.overall(true) < TARGET)).sum())

    return Row(
        kind, n_groups, int(population.sizes.min()), int(population.sizes.max()),
        proportion(broken(known), draws, confidence=MONTE_CARLO),
        proportion(broken(unknown), draws, confidence=MONTE_CARLO),
        float(population.sensitivities(known).min(axis=1).mean()),
        float(population.specificities(known).mean()),
        float(population.specificities(unknown).mean()),
        broken(one) / draws,
        float(population.sensitivities(one).min(axis=1).mean()),
        float(population.specificities(one).mean()),
    )  # fmt: skip


def cells(row: Row) -> dict[str, object]:
    """Lay a row out for the table."""
    sizes = f"{row.smallest} each" if row.smallest == row.largest else f"{row.smallest} to {row.largest}"
    within, unknown = (
        f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})" for one in (row.broken, row.broken_unknown)
    )
    return {
        "groups": row.groups,
        "sick": sizes,
        "population": row.population,
        "any promise broken": within + ("" if row.holds else " FAILS"),
        "group unknown": unknown,
        "worst group's sensitivity": f"{row.worst:.1%}",
        "specificity": f"{row.specificity:.1%}",
        "specificity, group unknown": f"{row.specificity_unknown:.1%}",
        "one threshold: any group short": f"{row.one_broken:.0%}",
        "its worst group's sensitivity": f"{row.one_worst:.1%}",
        "its specificity": f"{row.one_specificity:.1%}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument("--draws", type=int, default=2000, help="calibrations a row (default 2000)")
    options = parser.parse_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws must be at least 1, got {options.draws}")
    started = time.perf_counter()
    plan = [(kind, n, equal) for n in GROUPS for equal in (True, False) for kind in POPULATIONS]
    rows = [
        measure(kind, n, options.draws, options.seed + number, equal=equal)
        for number, (kind, n, equal) in enumerate(plan)
    ]
    holds = all(row.holds for row in rows)
    text = (
        f"{markdown_table([cells(row) for row in rows])}\n\n{options.draws} calibrations a row, {TARGET:.0%} at "
        f"{CONFIDENCE:.0%} confidence, in brackets the {MONTE_CARLO:.0%} Monte-Carlo interval, "
        f"{time.perf_counter() - started:.1f} s. " + ("The promises hold." if holds else "A PROMISE FAILS.")
    )
    publish(
        text, {"draws": options.draws, "holds": holds, "rows": [asdict(row) for row in rows]}, options.json
    )
    return 0 if holds else 1


if __name__ == "__main__":
    run(main)
