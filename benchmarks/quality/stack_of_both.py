"""Does the stack of histograms and a network beat either?

    python -m benchmarks.quality.stack_of_both --data RADIOGRAPHY -m histograms.histcxr -m network.histcxr

Both models were trained on the train part. A logistic regression weighs their logits on the val part, which neither
has learnt from; nothing is chosen. The test part is scored once: each model, the stack, and the paired differences on
the images that all can judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.decision.auc import compare
from histcxr.exceptions import InputError
from histcxr.reports.tables import markdown_table
from histcxr.store import load_model
from histcxr.store.judges import SavedModel
from histcxr.study.certify import unseen
from histcxr.study.cohort import Cohort, Reading, only_split

# A network's float32 reaches 0 and 1.
EDGE = 1e-4


def scores_of_both(
    models: Sequence[SavedModel], data: Any, reading: Reading
) -> tuple[NDArray[np.float64], Cohort]:
    """Return the scores (n, models) of images that no model was trained on and all can judge."""
    cohorts = [unseen(model, data, reading)[0] for model in models]
    cohorts = [one.part(~model.unfamiliar(one.values)) for model, one in zip(models, cohorts, strict=True)]
    common = set.intersection(*(set(one.table["image"]) for one in cohorts))
    cohorts = [one.part(one.table["image"].isin(common).to_numpy()) for one in cohorts]
    scores = [model.score(one.values) for model, one in zip(models, cohorts, strict=True)]
    return np.column_stack(scores), cohorts[0]


def stack(scores: NDArray[np.float64], sick: NDArray[np.bool_]) -> LogisticRegression:
    """Weigh scores (n, models) in [0, 1] of images that none of the models has learnt from."""
    return LogisticRegression(C=1e3).fit(logits(scores), sick)


def logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the regression sees of scores in [0, 1], squeezed so that none is infinite and the order stays."""
    return np.asarray(logit(EDGE + (1 - 2 * EDGE) * scores))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV with labels and splits", seed=False)
    parser.add_argument("-m", "--model", action="append", required=True, help="a saved model; twice")
    parser.add_argument("--cache", help="folder that keeps counts")
    options = parser.parse_args(arguments)
    if len(options.model) != 2:
        raise InputError(f"give two models, got {len(options.model)}")
    models = [load_model(path) for path in options.model]
    manifest = read_manifest(options.data, require_labels=True)
    reading = Reading("either", cache=options.cache, n_jobs=options.jobs)
    own, val = scores_of_both(models, only_split(manifest, "val"), reading)
    weights = stack(own, val.sick)
    scores, test = scores_of_both(models, only_split(manifest, "test"), reading)
    columns = {model.name: scores[:, place] for place, model in enumerate(models)}
    columns["both"] = weights.predict_proba(logits(scores))[:, 1]
    rows, found = [], {}
    for first, second in (
        ("both", models[0].name),
        ("both", models[1].name),
        (models[1].name, models[0].name),
    ):
        one = compare(columns[first], columns[second], test.sick, test.patients)
        found[f"{first} - {second}"] = one.to_dict()
        rows.append(
            {
                "first": first,
                "second": second,
                **{
                    f"{name}, {side}": f"{getattr(getattr(one, name), side):.3f}"
                    for name in ("auc", "specificity")
                    for side in ("first", "second")
                },
                **{
                    f"{name}, difference": "{0.value:+.3f} ({0.low:+.3f} to {0.high:+.3f})".format(
                        getattr(one, name).difference
                    )
                    for name in ("auc", "specificity")
                },
            }
        )
    weighed = dict(zip((model.name for model in models), weights.coef_[0].tolist(), strict=True))
    text = [
        markdown_table(rows),
        f"\n{len(test)} test images of {len(set(test.patients))} patients, {int(test.sick.sum())} sick; specificity "
        f"at 95 % sensitivity; weights from {len(val)} images of the val part: "
        + ", ".join(f"{name} {value:.2f}" for name, value in weighed.items()),
    ]
    publish("\n".join(text), {"comparisons": found, "weights": weighed, "images": len(test)}, options.json)


if __name__ == "__main__":
    run(main)
