"""How good is the 1-D LeNet, and what does averaging networks from several seeds add?

    python -m benchmarks.quality.lenet_seeds --data DATA --zones 1 --networks 5

Trains networks that differ in their seed and in the patients held out for early stopping, all on the training part,
and measures the mean of the first one, two, three ... on the validation and the test part. Nothing is chosen.
Prints a Markdown table.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run, zones
from histcxr.decision.auc import auc
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.features.recipe import Recipe
from histcxr.models.lenet import LeNetClassifier
from histcxr.reports.text import interval_text, markdown_table
from histcxr.study.cohort import Cohort, Reading, read_cohort, split_cohort


def scores_by_network(fitted: LeNetClassifier, cohort: Cohort) -> np.ndarray:
    """Return the score of every image by every network, shape (networks, n)."""
    members = fitted.members_
    scores = []
    for member in members:
        fitted.members_ = [member]
        scores.append(fitted.predict_proba(cohort.values)[:, 1])
    fitted.members_ = members
    return np.stack(scores)


def figures(scores: np.ndarray, cohort: Cohort) -> dict[str, Any]:
    """Return accuracy at 0.5, AUC with its interval, and the specificity at 95 % sensitivity."""
    area = auc(scores, cohort.sick, patient_ids=cohort.patients)
    point = specificity_at_sensitivity(scores, cohort.sick, sensitivity=0.95, patient_ids=cohort.patients)
    return {
        "accuracy": float(np.mean((scores >= 0.5) == cohort.sick)),
        "auc": area.value,
        "auc_low": area.low,
        "auc_high": area.high,
        "specificity_at_95": point.specificity.value,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV with labels")
    parser.add_argument("--zones", type=zones, default=1)
    parser.add_argument("--bands", default="")
    parser.add_argument(
        "--areas",
        choices=("none", "zones", "size"),
        default="none",
        help="let the network see the zones' areas, or the lungs' size too, as raw counts do",
    )
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="by default the classifier's own")
    parser.add_argument("--cache")
    options = parser.parse_args(arguments)
    recipe = Recipe(options.zones, options.bands)
    cohort = read_cohort(options.data, recipe, Reading(cache=options.cache, n_jobs=options.jobs))
    parts, _ = split_cohort(cohort, seed=options.seed)
    network = LeNetClassifier(
        n_seeds=options.networks,
        areas={"none": False, "zones": True, "size": "size"}[options.areas],
        random_state=options.seed,
    )
    if options.epochs is not None:
        network.set_params(epochs=options.epochs)
    start = time.perf_counter()
    network.fit(parts["train"].values, parts["train"].sick, groups=parts["train"].patients)
    seconds = time.perf_counter() - start
    rows = []
    for part in ("val", "test"):
        scores = scores_by_network(network, parts[part])
        for n in range(1, options.networks + 1):
            rows.append({"part": part, "networks": n, **figures(scores[:n].mean(axis=0), parts[part])})
    table = [
        {
            **{key: row[key] for key in ("part", "networks", "accuracy")},
            "AUC (95 % interval)": interval_text(row["auc"], row["auc_low"], row["auc_high"]),
            "specificity at 95 % sensitivity": row["specificity_at_95"],
        }
        for row in rows
    ]
    trained = f"{options.networks} networks trained in {seconds:.0f} s; best epochs {network.best_epochs_}"
    publish(f"{markdown_table(table)}\n\n{trained}", {"rows": rows, "seconds": seconds}, options.json)


if __name__ == "__main__":
    run(main)
