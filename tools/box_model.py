"""Build the model in the box: train it on full and lungs-only radiographs, certify, measure, write.

    python tools/box_model.py --data DATA -o boxed.histcxr        (`make model DATA=DATA` puts it into the package)

DATA holds ``radiography`` (lungs only), ``covid_full`` and ``chest_xray`` (full radiographs), each with a manifest. The
lungs of full radiographs are found by the package's own network, for every class; lungs-only pictures keep the
outline they have, which the network was taught. Of each collection's training part as many sick as normal
radiographs are taken, patient by patient, so that the collection does not betray the class. A patient who is
a test patient in one collection is one in all; else who is a training patient in one is one in all.

Equal data, seed and versions give equal scores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.splits import patient_groups, split_patients
from histcxr.reports.tables import auc_text, markdown_table
from histcxr.reports.text import training_report
from histcxr.store import Model, save_model
from histcxr.study.evaluate import evaluate
from histcxr.study.train import train

#: Collections, and whether they hold lungs only.
COLLECTIONS = {"radiography": True, "covid_full": False, "chest_xray": False}

#: Columns to measure within.
GROUPS = ("origin", "source", "age_group", "view", "sex")

#: What the card keeps of a group's figures.
KEPT = ("images", "sick", "auc", "auc_low", "auc_high", "accuracy", "sensitivity", "specificity")

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
    known = {split: set(joined.loc[joined["split"] == split, "patient_id"]) for split in ("train", "test")}
    for split, patients in known.items():  # the test has the last word
        joined.loc[joined["patient_id"].isin(patients), "split"] = split
    texts = [
        column for column in joined if joined[column].dtype == object or str(joined[column].dtype) == "str"
    ]
    joined[texts] = joined[texts].fillna("")
    return joined


def balanced(manifest: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Drop training patients of the commoner class until each collection has as many sick as normal images."""
    sick = pd.Series(is_sick(manifest["label"]), index=manifest.index)
    rng = np.random.default_rng(seed)
    keep = np.ones(len(manifest), bool)
    for _, rows in manifest[manifest["split"] == "train"].groupby("origin"):
        many = bool(sick[rows.index].sum() * 2 > len(rows))
        common = rows[sick[rows.index] == many]
        excess = len(common) - (len(rows) - len(common))
        sizes = common["patient_id"].value_counts().sort_index()
        order = rng.permutation(sizes.index.to_numpy(dtype=object))
        surplus = order[: int(np.searchsorted(np.cumsum(sizes[order]), excess, side="right"))]
        keep[common.index[common["patient_id"].isin(surplus)]] = False
    return manifest[keep].reset_index(drop=True)


def test_sets(data: str) -> dict[str, pd.DataFrame]:
    """The test parts of the full radiographs, with their published masks as masks."""
    sets = {}
    for name, lungs_only in COLLECTIONS.items():
        if lungs_only:
            continue
        table = read_manifest(os.path.join(data, name), require_labels=True)
        table["label"] = table["label"].replace({"NORMAL": "Normal"})
        sets[name] = table[table["split"] == "test"].reset_index(drop=True)
    return sets


def measured(model: Model, data: str, n_jobs: int) -> dict[str, dict[str, Any]]:
    """Measure on full test radiographs: lungs found by the package's network, and the collections' own masks."""
    figures: dict[str, dict[str, Any]] = {}
    for name, table in test_sets(data).items():
        for lungs in ("found", "given"):
            result = evaluate(model, table, split="test", lungs=lungs, n_jobs=n_jobs)
            figures[f"{name}, lungs {lungs}"] = {**_brief(result["overall"]), "refused": result["refused"]}
    return figures


def by_group(model: Model, manifest: pd.DataFrame, n_jobs: int) -> dict[str, dict[str, Any]]:
    """Measure within collections, sources, ages, views and sexes, where both classes are there."""
    result = evaluate(model, manifest, by=GROUPS, n_jobs=n_jobs)
    return {
        f"{column} {value}": {**_brief(figures), "refused": None}
        for column, values in result["groups"].items()
        for value, figures in values.items()
        if value and figures["auc"] is not None
    }


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", help="write the figures here")
    given = parser.parse_args(arguments)

    manifest = balanced(joined_manifest(given.data), given.seed)
    result = train(
        manifest,
        classifiers="stack",
        zones=6,
        bands=True,
        trials=0,
        lungs="either",
        seed=given.seed,
        n_jobs=given.jobs,
    )
    print(training_report(result.report))
    figures = measured(result.best, given.data, given.jobs)
    print("\nThe published test parts of the full radiographs:\n")
    print(figures_table(figures))
    groups = by_group(result.best, manifest, given.jobs)
    print("\nAll test patients, by group:\n")
    print(figures_table(groups))
    card = {"sources": SOURCES, "limits": LIMITS, "groups": figures | groups}
    model = Model(
        name=result.best.name,
        estimator=result.best.estimator,
        recipe=result.best.recipe,
        rule_out=result.best.rule_out,
        rule_in=result.best.rule_in,
        metrics=result.best.metrics,
        training=result.best.training,
        card=card,
    )
    path = save_model(model, given.output, overwrite=True)
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"\nSaved to {path}: {size / 1e6:.2f} MB")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"report": result.report, "full": figures, "bytes": size}, file, indent=2)


if __name__ == "__main__":
    main()
