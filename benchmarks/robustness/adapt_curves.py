"""What local patients are worth: `histcxr adapt` on more and more of a hospital's patients, tested on the others.

    python -m benchmarks.robustness.adapt_curves --data DATA/foreign/tb_unknown_hospital
    python -m benchmarks.robustness.adapt_curves --data DATA/covid_full -m without_covid_full.histcxr

DATA is one hospital that the model never saw (lungs are found by the network; patients whom the model was trained on
are left out). Each draw takes so many patients, adapts and certifies at 95 % (confidence 95 %), and measures on all
others: AUC, and the specificity of rule_out at the certified threshold; it is 0 where nobody can be certified, which
takes 59 sick. Rows: the model as it is, certified on the draw; a local refit alone; what adapt makes, certified out of
fold, and by splitting the draw. Recalibrating changes no rank, so its row differs from the first in the log loss alone;
``weights`` are those of recalibrated, mixture and local.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.data.splits import patient_folds
from histcxr.decision.out_of_fold import FOLDS, log_losses
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.models.adapted import LOCAL, MIXTURE, RECALIBRATED, AdaptedClassifier, cross_fit
from histcxr.reports.tables import markdown_table
from histcxr.site.adapt import choose
from histcxr.store import Model, load_model
from histcxr.study.certify import unseen
from histcxr.study.cohort import Reading, select_rows

Floats = NDArray[np.float64]
KINDS = (RECALIBRATED, MIXTURE, LOCAL)


@dataclass(frozen=True)
class Hospital:
    """Its patients, one image each, as a model sees them: features (n, p), logits (n,), truth (n,)."""

    features: NDArray[np.floating]
    logits: Floats
    sick: NDArray[np.bool_]

    def part(self, rows: NDArray[Any]) -> Hospital:
        """Return some of the patients."""
        return Hospital(self.features[rows], self.logits[rows], self.sick[rows])


def inputs(
    data: str,
    model: str | None,
    cache: str | None,
    jobs: int,
    most: int = 3000,
    where: dict[str, list[str]] | None = None,
) -> Hospital:
    """Read a hospital's patients whom the model has not seen, at most so many, one image each."""
    loaded = load_model(model or "boxed")
    if not isinstance(loaded, Model):
        raise InputError("model must be a histogram model")
    table = read_manifest(data, require_labels=True)
    table = select_rows(table, where or {})
    # Pictures of lungs alone keep their outline; of others the network finds the lungs, as in the box.
    table["label"] = table["label"].replace({"NORMAL": "Normal"})
    alone = table.get("lungs_only", pd.Series("", index=table.index)).astype(str) == "True"
    table["mask"] = table["mask"].where(alone, "")
    shuffled = table.sample(frac=1, random_state=0)
    own = shuffled["patient_id"].where(shuffled["patient_id"] != "", shuffled["image"])
    table = shuffled[~own.duplicated()].head(most).reset_index(drop=True)
    cohort, _ = unseen(loaded, table, Reading("either", "Normal", cache, jobs))
    judged = cohort.part(~loaded.unfamiliar(cohort.values))
    features, logits = AdaptedClassifier.around(loaded.estimator, loaded.recipe, judged.values).inputs(
        judged.values
    )
    return Hospital(features, logits, judged.sick)


def worth(
    scores: Floats, certifying: Floats, mine: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> dict[str, float]:
    """Return AUC and log loss on the others (scores, truth), and what the threshold certified on ``mine`` does."""
    found = rule_out_threshold(certifying[mine])
    return {
        "auc": float(roc_auc_score(truth, scores)),
        "log_loss": float(log_losses(scores, truth).mean()),
        "certified": float(found.certified),
        "specificity": float((scores[~truth] < found.threshold).mean()),
        "sensitivity": float((scores[truth] >= found.threshold).mean()),
    }


def one_draw(hospital: Hospital, n: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Adapt to ``n`` patients, drawn at random, and measure on the others."""
    order = rng.permutation(len(hospital.sick))
    local, others = hospital.part(order[:n]), hospital.part(order[n:])
    patients, truth = np.arange(n), others.sick
    folds = patient_folds(local.sick, patients, FOLDS, 0)
    apart, fitted = cross_fit(local.features, local.logits, local.sick, folds, (RECALIBRATED, LOCAL))
    alone = fitted[LOCAL](others.features, others.logits)
    choice = choose(local.features, local.logits, local.sick, patients)
    adapted = scored(choice, others)
    first = np.zeros(n, bool)
    first[patient_folds(local.sick, patients, 2, 0)[0][0]] = True
    half, rest = local.part(first), local.part(~first)
    split = choose(half.features, half.logits, half.sick, np.arange(len(half.sick)))
    recalibrated = fitted[RECALIBRATED](others.features, others.logits)
    return {
        "as it is": worth(others.logits, local.logits, local.sick, truth),
        "recalibrated": worth(
            recalibrated, fitted[RECALIBRATED](local.features, local.logits), local.sick, truth
        ),
        "local alone": worth(alone, apart[LOCAL], local.sick, truth),
        "adapt, out of fold": {**worth(adapted, choice.scores, local.sick, truth), **shares(choice)},
        "adapt, split": {
            **worth(scored(split, others), scored(split, rest), rest.sick, truth),
            **shares(split),
        },
    }


def shares(choice: Any) -> dict[str, float]:
    """Return how much of a choice each candidate is."""
    return {
        kind: choice.weights.get(kind, float(kind == RECALIBRATED and not choice.weights)) for kind in KINDS
    }


def scored(choice: Any, hospital: Hospital) -> Floats:
    """Return the logits that a choice gives to patients."""
    return hospital.logits if choice.part is None else choice.part(hospital.features, hospital.logits)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="labelled radiographs of one hospital", many=True)
    parser.add_argument("-m", "--model", help="a saved histogram model; by default the one in the box")
    parser.add_argument("--cache", help="folder that keeps counts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 100, 200, 400])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--most", type=int, default=3000, help="patients to read (default: %(default)s)")
    parser.add_argument("--where", action="append", default=[], help="COLUMN=VALUE: use only these rows")
    given = parser.parse_args(arguments)
    where = {column: [value] for column, _, value in (one.partition("=") for one in given.where)}
    rows: list[dict[str, Any]] = []
    for data in given.data:
        hospital = inputs(data, given.model, given.cache, given.jobs, given.most, where)
        name, total = " ".join([os.path.basename(os.path.normpath(data)), *given.where]), len(hospital.sick)
        print(f"{name}: {total} patients, {int(hospital.sick.sum())} sick", flush=True)
        for n in given.sizes:
            if n > total - 90:
                print(f"{name} has too few patients for {n} and 90 others", flush=True)
                continue
            draws = [
                one_draw(hospital, n, np.random.default_rng([given.seed, n, draw]))
                for draw in range(given.draws)
            ]
            for way in draws[0]:
                values = {key: np.array([draw[way][key] for draw in draws]) for key in draws[0][way]}
                gain = values["auc"] - np.array([draw["as it is"]["auc"] for draw in draws])
                low, high = np.quantile(values["auc"], [0.05, 0.95])
                rows.append(
                    {
                        "hospital": name,
                        "patients": n,
                        "way": way,
                        "AUC": float(values["auc"].mean()),
                        "5-95 %": f"{low:.3f}-{high:.3f}",
                        "least gain": float(gain.min()),
                        "log loss": float(values["log_loss"].mean()),
                        "certified": f"{values['certified'].mean():.0%}",
                        "specificity": float(values["specificity"].mean()),
                        "sensitivity": float(values["sensitivity"].mean()),
                        "weights": " ".join(f"{values[key].mean():.2f}" for key in KINDS if key in values),
                    }
                )
    publish(markdown_table(rows), {"draws": given.draws, "rows": rows}, given.json)


if __name__ == "__main__":
    run(main)
