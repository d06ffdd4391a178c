"""Does a plan foretell what calibrating really gives? Expected specificities against those of random subsets.

    python -m benchmarks.robustness.plan_worth --data COLLECTIONS

COLLECTIONS holds covid_full and chest_xray. The model's scores of patients that it was not trained on are computed
once. Then, for n sick patients:

- "real": a threshold is certified on n of the sick, drawn without replacement, again and again; its specificity is
  counted among all normals;
- "the same patients": the plan that takes them for the whole population (draws 0), which should give just that, but
  for drawing without replacement where n is a large part of them;
- "from a few": the plan from a pilot of as many sick as normal patients, drawn at random. How many of the calibrations
  on the other patients lie within its 5-95 % range, and how many under it? 90 % are wanted, and 5 %. Beside it the
  same with a pilot taken for the whole population.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.decision.intervals import patient_labels, patient_scores
from histcxr.decision.planning import expected_worth, worths_of_scores
from histcxr.decision.thresholds import patients_needed, rule_out_threshold
from histcxr.reports.tables import markdown_table
from histcxr.store import load_model
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import Reading, read_cohort
from histcxr.study.evaluate import Judged
from histcxr.study.seen import leave_out_seen

SETS = {"covid_full": "Normal", "chest_xray": "NORMAL"}
SIZES = (59, 100, 200, 500)
TARGET, CONFIDENCE = 0.95, 0.95
Floats = NDArray[np.float64]
Patients = tuple[Floats, Floats]  # scores of the sick and of the normal ones


def read(model: SavedModel, folder: str, reading: Reading) -> Patients:
    """Return the scores of patients that the model was not trained on, the sick and the normal."""
    cohort = read_cohort(read_manifest(folder, require_labels=True), model, reading)
    judged = Judged.of(model, leave_out_seen(cohort, model, ("train",))[0])
    scores = patient_scores(judged.scores, judged.cohort.patients)
    sick = patient_labels(judged.cohort.sick, judged.cohort.patients)
    return scores[sick], scores[~sick]


def real(patients: Patients, n: int, draws: int, rng: Any, *, again: bool = False) -> Floats:
    """Return the specificity of ``draws`` thresholds, each certified on ``n`` sick (with replacement: ``again``)."""
    normal = np.sort(patients[1])
    chosen = [
        rule_out_threshold(
            rng.choice(patients[0], n, replace=again), sensitivity=TARGET, confidence=CONFIDENCE
        )
        for _ in range(draws)
    ]
    return np.searchsorted(normal, [choice.threshold for choice in chosen]) / len(normal)


def planned(patients: Patients, n: int, draws: int, seed: int) -> Floats:
    """Return low, median and high of the plan."""
    sick = np.repeat([True, False], [len(part) for part in patients])
    worths = worths_of_scores(np.concatenate(patients), sick, draws=draws, seed=seed)
    found = expected_worth(worths, n, TARGET, CONFIDENCE)
    return np.array([found.low, found.median, found.high])


def pilots(patients: Patients, size: int, n: int, given: Any, rng: Any) -> dict[str, float]:
    """Plan from many pilots of ``size`` sick and ``size`` normal patients, and calibrate on the others."""
    found = []
    for number in range(given.pilots):
        orders = [rng.permutation(len(part)) for part in patients]
        pilot, others = (
            tuple(part[order[where]] for part, order in zip(patients, orders, strict=True))
            for where in (slice(size), slice(size, None))
        )
        worth = real(others, n, given.draws // 5, rng, again=True)
        for draws in (200, 0):
            low, _, high = planned(pilot, n, draws, number)
            found += [np.mean((worth >= low) & (worth <= high)), np.mean(worth < low), high - low]
    within, under, wide, within_plain, under_plain, _ = np.mean(np.reshape(found, (-1, 6)), axis=0).tolist()
    return {
        "within": within,
        "under": under,
        "wide": wide,
        "within, plain": within_plain,
        "under, plain": under_plain,
    }


def words(values: Floats) -> str:
    """Write a median with its range."""
    return f"{values[1]:.3f} ({values[0]:.3f}-{values[2]:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder with covid_full and chest_xray")
    parser.add_argument("--model", help="a saved model; by default the one in the box")
    parser.add_argument("--cache", help="folder that keeps counts of histograms")
    parser.add_argument("--draws", type=int, default=1000, help="calibrations a row (default: %(default)s)")
    parser.add_argument("--pilots", type=int, default=100, help="pilots a row (default: %(default)s)")
    given = parser.parse_args(arguments)
    model, rng = load_model(given.model or "boxed"), np.random.default_rng(given.seed)
    sets = {
        name: read(model, os.path.join(given.data, name), Reading("found", normal, given.cache, given.jobs))
        for name, normal in SETS.items()
    }
    sets["both"] = tuple(np.concatenate(parts) for parts in zip(*sets.values(), strict=True))
    rows, few = [], []
    for name, patients in sets.items():
        for n in SIZES:
            if n > len(patients[0]):
                continue
            found = np.quantile(real(patients, n, given.draws, rng), (0.05, 0.5, 0.95))
            rows.append(
                {
                    "patients": f"{name}: {len(patients[0])} sick, {len(patients[1])} normal",
                    "n sick": n,
                    "real": words(found),
                    "plan, the same patients": words(planned(patients, n, 0, given.seed)),
                    "plan by default": words(planned(patients, n, 200, given.seed)),
                }
            )
            few += [
                {"patients": name, "pilot": f"{size} + {size}", "n sick": n}
                | pilots(patients, size, n, given, rng)
                for size in (patients_needed(TARGET, CONFIDENCE), 200)
            ]
    text = (
        f"{markdown_table(rows)}\n\nSpecificity, median and 5-95 % range; {given.draws} calibrations a row.\n\n"
        f"{markdown_table(few)}\n\nShares of calibrations within and under the range that a pilot foretold, and its "
        f"width; plain: the pilot taken for the whole population. {given.pilots} pilots a row."
    )
    publish(text, {"rows": rows, "pilots": few}, given.json)


if __name__ == "__main__":
    run(main)
