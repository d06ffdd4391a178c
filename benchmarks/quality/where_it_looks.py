"""What do networks look at? Grad-CAM inside the lungs, a check of the maps themselves, and the lungs hidden.

    python -m benchmarks.quality.where_it_looks --data CHEST_XRAY -m net.histcxr --images 100

Per network: the share of its Grad-CAM inside the lungs beside that of an even map (the lungs' share of the area). The
deletion test: the hottest tenth of what the network sees is blanked with the mean of the rest, and the fall of the
probability of its class is set against that of a random tenth in patches; maps that do not beat chance explain nothing.
Of a network of full images also the AUC of the test images, and of the same images with the lungs hidden: what is left
above 0.5 was read outside of them. (The network was not trained on hidden lungs, so a low figure is no proof that it
looks at lungs; a high one proves that it does without.) Images are of the test part, equally many of each label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.decision.auc import auc
from histcxr.decision.intervals import Estimate, patient_bootstrap
from histcxr.exceptions import InputError
from histcxr.reports.tables import estimate_text, markdown_table
from histcxr.store import ReferenceModel, load_model
from histcxr.study.cohort import Reading, only_split, read_cohort
from histcxr.study.explain import Explanation, explain_images, images_to_explain
from histcxr.study.network_train import lungs_hidden

SHARE = 0.1  # of what is seen, blanked


def random_map(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a map (side, side) with hills at random places, as wide as those of a Grad-CAM."""
    return np.asarray(cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), side / 14))


def blanked(pixels: NDArray[np.uint8], cam: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image (side, side) in which the hottest tenth of what is seen has the mean of the rest."""
    rows = np.flatnonzero(seen)
    order = np.lexsort([np.random.default_rng(0).random(len(rows)), -cam.ravel()[rows]])  # equal ones by lot
    out = rows[order[: max(1, round(SHARE * len(rows)))]]
    changed = pixels.copy()
    changed.ravel()[out] = round(float(pixels.ravel()[np.setdiff1d(rows, out)].mean()))
    return changed


def falls(
    model: ReferenceModel, found: Explanation, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far blanking lowers the probability of each image's class, (n,): the hottest tenth, a random one."""
    rng = np.random.default_rng(seed)
    seen = np.ones(found.pixels.shape, bool) if model.inputs.region == "full" else found.pixels > 0
    called = [model.classes.index(name) for name in found.table["explained"]]
    everyone = np.arange(len(called))
    hot = np.stack([blanked(*one) for one in zip(found.pixels, found.maps, seen, strict=True)])
    drawn = np.stack(
        [blanked(p, random_map(len(p), rng), s) for p, s in zip(found.pixels, seen, strict=True)]
    )
    before, after, chance = (
        model.probabilities(images)[everyone, called] for images in (found.pixels, hot, drawn)
    )
    return before - after, before - chance


def _mean(values: NDArray[np.float64], patients: NDArray[Any]) -> Estimate:
    return patient_bootstrap(np.mean, values, sick=np.ones(len(values), bool), patient_ids=patients)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder or CSV with labels and masks")
    parser.add_argument("-m", "--model", action="append", required=True, help="a saved network; repeatable")
    parser.add_argument("--images", type=int, default=100, help="of each label, mapped")
    parser.add_argument("--split", default="test")
    options = parser.parse_args(arguments)
    manifest = images_to_explain(
        [options.data], split=options.split, where={}, per_label=options.images, seed=options.seed
    )
    everything = only_split(read_manifest(options.data, require_labels=True), options.split)
    table, found = [], []
    for path in options.model:
        model = load_model(path)
        if not isinstance(model, ReferenceModel):
            raise InputError(f"model must be a network, got {model.name} in {path}")
        own = explain_images(model, manifest, n_jobs=options.jobs)
        total, patients = own.summary(seed=options.seed)[0], own.table["patient_id"].to_numpy(object)
        hot, drawn = falls(model, own, seed=options.seed)
        more = {
            "fall": _mean(hot, patients),
            "fall_by_chance": _mean(drawn, patients),
            "beyond_chance": _mean(hot - drawn, patients),
        }
        row: dict[str, Any] = {"network": path, "region": model.inputs.region, "layer": own.layer, **total}
        row |= {name: one.to_dict() for name, one in more.items()}
        shown = {
            "network": f"{model.name}, {model.inputs.size} px",
            "region": model.inputs.region,
            "maps": total["maps"],
            "inside the lungs": f"{total['inside']:.3f}",
            "an even map": f"{total['even']:.3f}",
            **{name.replace("_", " "): f"{one.value:+.3f}" for name, one in more.items()},
            "interval": f"{more['beyond_chance'].low:+.3f} to {more['beyond_chance'].high:+.3f}",
            "AUC": "",
            "AUC, lungs hidden": "",
        }
        if model.inputs.region == "full":
            reading = Reading(n_jobs=options.jobs)
            cohort = read_cohort(everything, model, reading)
            row["auc"] = auc(model.score(cohort.values), cohort.sick, patient_ids=cohort.patients).to_dict()
            row["hidden"] = lungs_hidden(model, everything, reading)
            shown |= {"AUC": estimate_text(row["auc"]), "AUC, lungs hidden": estimate_text(row["hidden"])}
        table.append(shown)
        found.append(row)
    publish(markdown_table(table), {"networks": found}, options.json)


if __name__ == "__main__":
    run(main)
