"""What the model in the box promises: who certifies it, within which groups, and what the site test compares with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick
from histcxr.decision.groups import GroupCertificates, certify_groups
from histcxr.decision.intervals import proportion
from histcxr.decision.site import SiteReference, fit_site
from histcxr.decision.thresholds import RULE_IN, RULE_OUT, certify
from histcxr.exceptions import Reason
from histcxr.features.extraction import extract_features
from histcxr.reports.tables import markdown_table
from histcxr.store import Model

#: Columns to certify within.
CERTIFIED_GROUPS = ("label", "age_group", "view")


@dataclass(frozen=True)
class Reading:
    """How radiographs are read."""

    cache: str | None = None
    n_jobs: int = 1


@dataclass(frozen=True)
class Judged:
    """Radiographs as triage would take them: those it judges, with counts and scores, and those it refuses."""

    table: pd.DataFrame
    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    refused: pd.DataFrame  # with the column ``reason``

    @property
    def sick(self) -> NDArray[np.bool_]:
        """Whether each is sick, shape (n,)."""
        return is_sick(self.table["label"])


def certified(model: Model, full: pd.DataFrame, reading: Reading) -> tuple[Model, GroupCertificates]:
    """Certify on those validation patients among full radiographs whom triage would judge, and say who they are."""
    val = judge(model, full[full["split"] == "val"], reading)
    learnt = judge(model, full[full["split"] == "train"], reading)
    overall = certify(val.scores, val.sick, val.table["patient_id"].to_numpy(dtype=object))
    groups = certify_within_groups(val)
    about = described(val.table)
    refused = {str(reason): int(count) for reason, count in val.refused["reason"].value_counts().items()}
    note = (
        f"thresholds were certified on full radiographs alone: {about['patients']} patients of whom triage judges an "
        f"image; {len(val.refused)} images that it refuses go to review and were left out"
    )
    training = {
        **model.training,
        "notes": [*model.training["notes"], note],
        "val": {**about, "not_judged": refused},
        "groups": groups.to_dict(),
        "site": site_reference(model, learnt, val).to_dict(),
    }
    return replace(model, rule_out=overall.rule_out, rule_in=overall.rule_in, training=training), groups


def judge(model: Model, manifest: pd.DataFrame, reading: Reading) -> Judged:
    """Score radiographs as triage would, and keep apart what it would refuse."""
    found = extract_features(
        manifest.reset_index(drop=True),
        model.recipe,
        lungs="either",
        cache=reading.cache,
        n_jobs=reading.n_jobs,
    )
    table, usable = found.table, found.usable
    strange = np.zeros(len(table), bool)
    strange[usable] = model.unfamiliar(found.counts[usable])
    table.loc[strange, "reason"] = Reason.UNLIKE_TRAINING.value
    kept = usable & ~strange
    counts = found.counts[kept]
    return Judged(
        table[kept].reset_index(drop=True), counts, model.score(counts), table[~kept].reset_index(drop=True)
    )


def certify_within_groups(judged: Judged) -> GroupCertificates:
    """Certify the promises over all patients and within each disease, age group and view, all at once."""
    patients = judged.table["patient_id"].to_numpy(dtype=object)
    groups = {column: judged.table[column].to_numpy(dtype=object) for column in CERTIFIED_GROUPS}
    return certify_groups(judged.scores, judged.sick, patients, groups)


def site_reference(model: Model, *parts: Judged) -> SiteReference:
    """Describe the full radiographs that the model knows, as mixtures of collections, labels and views."""
    table = pd.concat([part.table for part in parts], ignore_index=True)
    rows = np.concatenate([model.site_numbers(part.counts) for part in parts])
    view = table["view"].where(table["view"] != "", "unknown")
    groups = (table["origin"] + " / " + table["label"] + " / " + view).to_numpy(dtype=object)
    return fit_site(rows, groups, model.site_names)


def described(table: pd.DataFrame) -> dict[str, Any]:
    """Count images, patients and groups: who it was, for the card."""
    sick = is_sick(table["label"])
    about: dict[str, Any] = {
        "images": len(table),
        "patients": table["patient_id"].nunique(),
        "sick": int(sick.sum()),
        "normal": int((~sick).sum()),
    }
    for column in ("origin", "label", "source", "age_group", "view", "sex"):
        values = table[column].replace("", "unknown").value_counts()
        about[column] = {str(value): int(count) for value, count in sorted(values.items())}
    by = table["origin"] + ", " + table["label"]
    about["sick patients"] = {
        str(name): int(count) for name, count in table[sick].groupby(by[sick])["patient_id"].nunique().items()
    }
    return about


def promises(judged: Judged, thresholds: GroupCertificates) -> dict[str, dict[str, Any]]:
    """Measure the group certificates by patient, where nothing is known of an image but the image itself.

    Returns group to ``sick`` (patients), ``sensitivity`` (among those that were judged, with its interval),
    ``sensitivity_of_all`` (refused ones count as not ruled out), ``normal``, ``specificity`` (ruled out),
    ``rule_in_specificity`` (not ruled in).
    """
    drawers = thresholds.decide(judged.scores, {})
    table = judged.table.assign(sick=judged.sick, out=drawers == RULE_OUT, in_=drawers == RULE_IN)
    refused = judged.refused.assign(sick=is_sick(judged.refused["label"]))
    found = {}
    groups = [("all", "", "")] + [
        (f"{column} {value}", column, value)
        for column in ("origin", *CERTIFIED_GROUPS)
        for value in sorted(set(table[column]) - {""})
    ]
    for name, column, value in groups:
        mine = table[table[column] == value] if column else table
        lost = refused[refused[column] == value] if column else refused
        patients = mine.groupby("patient_id").agg({"sick": "any", "out": "all", "in_": "any"})
        sick, normal = patients[patients["sick"]], patients[~patients["sick"]]
        unseen = set(lost.loc[lost["sick"], "patient_id"]) - set(patients.index)
        missed = int(sick["out"].sum())
        found[name] = {
            "sick": len(sick),
            "refused": len(unseen),
            "sensitivity": _share(len(sick) - missed, len(sick)),
            "sensitivity_of_all": _share(len(sick) + len(unseen) - missed, len(sick) + len(unseen)),
            "normal": len(normal),
            "specificity": _share(int(normal["out"].sum()), len(normal)),
            "rule_in_specificity": _share(int((~normal["in_"]).sum()), len(normal)),
        }
    return found


def _share(count: int, n: int) -> dict[str, float] | None:
    if not n:
        return None
    share = proportion(count, n)
    return {"value": share.value, "low": share.low, "high": share.high}


def promises_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out :func:`promises`, one row a group."""
    rows = [
        {
            key: ""
            if value is None
            else f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
            if isinstance(value, Mapping)
            else value
            for key, value in {"group": name, **one}.items()
        }
        for name, one in figures.items()
    ]
    return markdown_table(rows)
