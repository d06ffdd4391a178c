"""Build the model in the box: train it on full and lungs-only radiographs, certify, measure, write.

    python tools/box_model.py --data DATA -o boxed.histcxr        (`make model DATA=DATA` puts it into the package)

DATA holds ``radiography`` (lungs only), ``covid_full`` and ``chest_xray`` (full radiographs), each with a manifest. The
lungs of full radiographs are found by the package's own network, for every class; lungs-only pictures keep the
outline they have, which the network was taught. Of each collection's training part as many sick as normal
radiographs are taken, patient by patient, so that the collection does not betray the class.

Thresholds are certified on full radiographs of validation patients alone, the kind that will be judged, and of these
on what triage would judge. A patient who is a test patient in one collection is one in all; else who is a validation
patient among the full radiographs is one in all, and his lungs-only pictures are left out; everybody else trains,
but for COVID patients in excess of the normal ones, who certify.
Training images that show a radiograph of validation or test again, under whatever patient, are left out as well.

Equal data, seed and versions give equal scores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from box_certificates import (
    Reading,
    certified,
    judge,
    promises,
    promises_table,
    with_groups,
    withdrawn,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from histcxr.data.fingerprints import FINGERPRINT_BYTES, fingerprint, recognised
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.radiograph import read_radiograph
from histcxr.data.splits import patient_groups, split_patients
from histcxr.exceptions import RadiographError
from histcxr.features.band_features import BandFeatures, BothSides
from histcxr.features.recipe import Recipe
from histcxr.reports.text import auc_text, markdown_table, training_report
from histcxr.store import Model, save_model
from histcxr.study.evaluate import evaluate
from histcxr.study.train import train

#: Collections, and whether they hold lungs only.
COLLECTIONS = {"radiography": True, "covid_full": False, "chest_xray": False}

#: Collections whose surplus of one class certifies: few of their sick are left for it otherwise.
SURPLUS_CERTIFIES = ("covid_full",)

#: Columns to measure within.
GROUPS = ("origin", "source", "age_group", "view", "sex")

#: What the card keeps of a group's figures.
KEPT = ("images", "sick", "auc", "auc_low", "auc_high", "accuracy", "sensitivity", "specificity")

#: What is counted.
RECIPE = Recipe("1+6", "full")

# Quantiles a row; main components for the kernel; its width, times the number of features.
_QUANTILES = 12
_COMPONENTS = 200
_GAMMA = 0.25

SOURCES = [
    {
        "name": "RSNA Pneumonia Detection Challenge",
        "what": "adults, opacity and normal",
        "licence": "RSNA's terms of the challenge: academic and non-commercial use",
    },
    {
        "name": "Kermany et al. 2018, chest X-ray images (Guangzhou)",
        "what": "children, pneumonia and normal",
        "licence": "CC BY 4.0",
    },
    {
        "name": "COVID-19 Radiography Database (Chowdhury, Rahman et al.)",
        "what": "adults, COVID from several public collections; lung masks",
        "licence": "academic use",
    },
]
LIMITS = [
    "Research use only: the collections' own licences apply.",
    "All COVID radiographs come from other collections than all normals: figures on them flatter the model.",
    "In RSNA, normals are mostly PA and opacities mostly AP radiographs: part of the figures is the view.",
    "All radiographs were public 8-bit pictures of 224 pixels; originals at full depth look different.",
]


def joined_manifest(data: str) -> pd.DataFrame:
    """Read all collections as one manifest with the columns ``origin`` and one split for each patient."""
    tables = []
    for name, lungs_only in COLLECTIONS.items():
        table = read_manifest(os.path.join(data, name), require_labels=True)
        if not (table["split"] == "val").any():
            learning = table["split"] == "train"
            fresh = split_patients(table[learning].reset_index(drop=True), (0.8, 0.2, 0.0))
            table.loc[learning, "split"] = fresh
        if not lungs_only:
            table["mask"] = ""
        table["label"] = table["label"].replace({"NORMAL": "Normal"})
        tables.append(table.assign(origin=name, patient_id=patient_groups(table)))
    joined = pd.concat(tables, ignore_index=True)
    full, own = _full(joined), joined["split"].copy()
    joined["split"] = "train"
    for split, told in (("val", full), ("test", full | ~full)):  # the test has the last word
        patients = joined.loc[told & (own == split), "patient_id"]
        joined.loc[joined["patient_id"].isin(patients), "split"] = split
    texts = [
        column for column in joined if joined[column].dtype == object or str(joined[column].dtype) == "str"
    ]
    joined[texts] = joined[texts].fillna("")
    return _certified_whole(joined)


def _full(manifest: pd.DataFrame) -> pd.Series:
    return ~manifest["origin"].map(COLLECTIONS).astype(bool)


def _certified_whole(manifest: pd.DataFrame) -> pd.DataFrame:
    """Drop lungs-only pictures of validation patients."""
    return manifest[_full(manifest) | (manifest["split"] != "val")].reset_index(drop=True)


def without_twins(manifest: pd.DataFrame) -> pd.DataFrame:
    """Drop training images that validation or test shows again, and validation images that the test does.

    Same pixels or near-duplicates, whoever the patient is said to be; patients that are known to be the same are in
    one part anyway.
    """
    prints = np.zeros((len(manifest), FINGERPRINT_BYTES), np.uint8)
    read = np.zeros(len(manifest), bool)
    for row, image in enumerate(manifest["image"]):
        try:
            prints[row], read[row] = fingerprint(read_radiograph(image).pixels), True
        except RadiographError:
            continue  # nobody learns from it
    keep = np.ones(len(manifest), bool)
    split = manifest["split"].to_numpy(dtype=object)
    for part, others in (("val", ("test",)), ("train", ("val", "test"))):
        mine, theirs = np.flatnonzero(read & (split == part)), read & np.isin(split, others)
        keep[mine[recognised(prints[mine], prints[theirs])]] = False
    return manifest[keep].reset_index(drop=True)


def balanced(manifest: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Let as many sick as normal images of each collection train, by taking out patients of the commoner class.

    They are drawn at random. Those of :data:`SURPLUS_CERTIFIES` become validation patients, the others are dropped.
    """
    manifest = manifest.copy()
    sick = pd.Series(is_sick(manifest["label"]), index=manifest.index)
    rng = np.random.default_rng(seed)
    keep = np.ones(len(manifest), bool)
    for origin, rows in manifest[manifest["split"] == "train"].groupby("origin"):
        many = bool(sick[rows.index].sum() * 2 > len(rows))
        common = rows[sick[rows.index] == many]
        excess = len(common) - (len(rows) - len(common))
        sizes = common["patient_id"].value_counts().sort_index()
        order = rng.permutation(sizes.index.to_numpy(dtype=object))
        surplus = order[: int(np.searchsorted(np.cumsum(sizes[order]), excess, side="right"))]
        if origin in SURPLUS_CERTIFIES:
            manifest.loc[manifest["patient_id"].isin(surplus), "split"] = "val"
        else:
            keep[common.index[common["patient_id"].isin(surplus)]] = False
    return _certified_whole(manifest[keep])


def members() -> dict[str, dict[str, Any]]:
    """Return the stack's members: what differs from the registry's defaults, which are made for other recipes.

    Both see the same few quantiles of an image and of its mirror image, the intensity on the lungs' own scale only:
    chosen by validation and by leaving out one collection at a time. Shallow, strongly regularised trees and the main
    components keep it small.
    """
    quantiles = BandFeatures(
        zones=RECIPE.zones, bands=RECIPE.bands, intensity="own", n_quantiles=_QUANTILES, dtype="float32"
    )
    scaled = Pipeline([("quantiles", quantiles), ("scale", StandardScaler())])
    both = BothSides(scaled, zones=RECIPE.zones, bands=RECIPE.bands)
    shared = {"features": both, "classifier__views": 2}
    machine = {
        "C": 10.0,
        "gamma": _GAMMA / (len(RECIPE.names) * _QUANTILES),
        "n_components": _COMPONENTS,
    }
    trees = {
        "n_estimators": 600,
        "learning_rate": 0.05,
        "max_depth": 3,
        "min_child_weight": 8,
        "subsample": 0.5,
        "colsample_bytree": 0.05,
        "reg_lambda": 10.0,
    }
    return {
        name: shared | {f"classifier__estimator__{key}": value for key, value in settings.items()}
        for name, settings in {"svm": machine, "xgboost": trees}.items()
    }


def measured(
    model: Model, manifest: pd.DataFrame, reading: Reading
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Measure on full test radiographs, whose figures come first, and within groups of these and of lungs alone."""
    full, figures, overall = _full(manifest), {}, {}
    for kind, rows in {"": full, "lungs only, ": ~full}.items():
        table = manifest[rows].reset_index(drop=True)
        if not len(table):  # a collection was left out
            continue
        result = evaluate(model, table, by=GROUPS, cache=reading.cache, n_jobs=reading.n_jobs)
        overall = overall or result["overall"]
        figures[f"{kind}all"] = {**_brief(result["overall"]), "refused": result["refused"]}
        figures |= {
            f"{kind}{column} {value}": {**_brief(group), "refused": None}
            for column, values in result["groups"].items()
            for value, group in values.items()
            if value and group["auc"] is not None
        }
    return overall, figures


def _brief(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in KEPT}


def figures_table(figures: dict[str, dict[str, Any]]) -> str:
    """Lay out one row a test set."""
    rows = [
        {
            "test set": name,
            "images": one["images"],
            "AUC (95 % interval)": auc_text(one),
            "accuracy": one["accuracy"],
            "sensitivity": one["sensitivity"],
            "specificity": one["specificity"],
            "not judged": "" if one["refused"] is None else f"{100 * one['refused']:.1f} %",
        }
        for name, one in figures.items()
    ]
    return markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with radiography, covid_full and chest_xray")
    parser.add_argument("-o", "--output", required=True, help="the model's folder; replaced if it exists")
    parser.add_argument("--cache", help="folder that keeps counts for next time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="leave out a collection (origin=chest_xray) or a source (source=kermany), to see how the rest travels",
    )
    given = parser.parse_args(arguments)
    reading = Reading(given.cache, given.jobs)

    joined = joined_manifest(given.data)
    for column, value in (pair.split("=", 1) for pair in given.without):
        joined = joined[joined[column] != value].reset_index(drop=True)
    manifest = without_twins(balanced(joined, given.seed))
    full = manifest[_full(manifest)]
    settings = members()
    result = train(
        manifest,
        classifiers=[*settings, "stack"],
        zones=RECIPE.zones,
        bands="full",
        tuned=settings,
        trials=0,
        lungs="either",
        seed=given.seed,
        n_jobs=given.jobs,
        cache=given.cache,
    )
    print(training_report(result.report))
    model, groups = certified(result.models["stack"], full, reading)
    test = judge(model, full[full["split"] == "test"], reading)
    groups, taken_back = withdrawn(groups, test)
    model = with_groups(model, groups)
    kept = promises(test, groups)
    print("\n" + "\n".join(taken_back))
    print("\nThe group certificates on full test radiographs, by patient:\n")
    print(promises_table(kept))
    overall, figures = measured(model, manifest, reading)
    print("\nTest patients, full radiographs and lungs alone, by group:\n")
    print(figures_table(figures))
    card = {
        "sources": SOURCES,
        "limits": LIMITS,
        "groups": figures,
        "promises": kept,
        "taken_back": taken_back,
    }
    model = replace(model, metrics={"test": overall}, card=card)
    path = save_model(model, given.output, overwrite=True)
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"\nSaved to {path}: {size / 1e6:.2f} MB")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            report = {"report": result.report, "promises": kept, "groups": figures, "bytes": size}
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
