"""Does a labelling list certify? Thresholds from many lists of a folder whose truth is known.

    python -m benchmarks.robustness.plan_list --draws 2000 --json list.json

A folder of 4,000 patients is made up again and again (scores of both classes normal, AUC 0.9, brought to (0, 1)), and
a list of 600 is drawn: all at random, or half at random and half by score. Thresholds are certified on the rows that
may certify, and, to show why the others may not, on all rows as if they had been drawn at random. The true sensitivity
(rule_out) and specificity (rule_in) follow from the population; the certificate promises that they lie under the
target in at most 5 % of the lists. The weights are checked by the share of sick that they estimate.

Prints a Markdown table. Exit status 1 when a share of the rows that may certify lies above 5 % beyond its Monte-Carlo
interval (99 %, Clopper-Pearson), else 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.common import make_parser, publish, run
from histcxr.decision.intervals import proportion
from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.reports.tables import markdown_table
from histcxr.site.labelling import draw_patients

PATIENTS, DRAWN, AUC, TARGET, CONFIDENCE = 4000, 600, 0.9, 0.95, 0.95
SHARES = (0.1, 0.25, 0.5)  # of sick
Floats = NDArray[np.float64]


def to_unit(scores: Floats, step: float) -> Floats:
    """Bring normal scores to (0, 1), rounded to ``step`` standard deviations (0: not), most of them low."""
    rounded = np.rint(scores / step) * step if step else scores
    return 1 / (1 + np.exp(-2 * (rounded - 1.5)))


def truths(low: float, high: float, apart: float, step: float) -> tuple[float, float]:
    """Return the true sensitivity and specificity of two thresholds on the scale of :func:`to_unit`."""

    def back(score: float) -> float:
        return float(np.log(score / (1 - score)) / 2 + 1.5)

    if not step:
        return float(norm.sf(back(low) - apart)), float(norm.cdf(back(high)))
    edge = step / 2  # a rounded score holds all within half a step
    return float(norm.sf(back(low) - edge - apart)), float(norm.cdf(back(high) + edge))


def one_list(share: float, step: float, by_score: bool, rng: Any) -> tuple[list[tuple[float, float]], float]:
    """Return the truths of certifying on the rows that may and on all, and the share of sick by the weights."""
    apart = np.sqrt(2) * norm.ppf(AUC)
    sick = rng.random(PATIENTS) < share
    scores = to_unit(rng.normal(size=PATIENTS) + apart * sick, step)
    drawn, random, weights = draw_patients(PATIENTS, DRAWN, scores if by_score else None, rng)
    found = []
    for rows in (drawn[random], drawn):
        low = rule_out_threshold(scores[rows][sick[rows]], sensitivity=TARGET, confidence=CONFIDENCE)
        high = rule_in_threshold(scores[rows][~sick[rows]], specificity=TARGET, confidence=CONFIDENCE)
        true = truths(
            low.threshold if low.certified else 0.5, high.threshold if high.certified else 0.5, apart, step
        )
        found.append((true[0] if low.certified else 1.0, true[1] if high.certified else 1.0))
    return found, float((weights * sick[drawn]).sum() / weights.sum() - sick.mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument("--draws", type=int, default=2000, help="lists a row (default: %(default)s)")
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    holds = True
    for by_score in (False, True):
        for step in (0.0, 0.25):
            for share in SHARES:
                rng = np.random.default_rng([given.seed, by_score, int(100 * step), int(100 * share)])
                lists = [one_list(share, step, by_score, rng) for _ in range(given.draws)]
                broken = np.array([found for found, _ in lists]) < TARGET  # (draws, rows used, drawer)
                errors = np.array([error for _, error in lists])
                row: dict[str, Any] = {
                    "list": "half by score" if by_score else "at random",
                    "scores": f"rounded to {step:g} sd" if step else "continuous",
                    "sick": f"{share:.0%}",
                }
                for used, name in enumerate(("rows that may certify", "all rows")):
                    for drawer, kind in enumerate(("rule_out", "rule_in")):
                        count = proportion(int(broken[:, used, drawer].sum()), given.draws, confidence=0.99)
                        row[f"{kind} under target, {name}"] = f"{count.value:.1%}"
                        holds &= used == 1 or count.low <= 1 - CONFIDENCE
                row["share of sick by weights, mean error"] = f"{errors.mean():+.4f}"
                row["its sd"] = f"{errors.std():.4f}"
                rows.append(row)
    text = f"{markdown_table(rows)}\n\n{given.draws} lists a row of {DRAWN} of {PATIENTS} patients. " + (
        "The certificate holds." if holds else "THE CERTIFICATE FAILS."
    )
    publish(text, {"draws": given.draws, "holds": holds, "rows": rows}, given.json)
    return 0 if holds else 1


if __name__ == "__main__":
    run(main)
