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
from histcxr.decision.site import SiteReference, fit_site
from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import Reason
from histcxr.features.extraction import extract_features
from histcxr.reports.tables import estimate_text, markdown_table
from histcxr.store import Model
from histcxr.study.cohort import Cohort
from histcxr.study.figures import among

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
        "certified": _who(val, groups, about),
        "site": site_reference(model, learnt, val).to_dict(),
    }
    return with_groups(replace(model, training=training), groups), groups


def with_groups(model: Model, groups: GroupCertificates) -> Model:
    """Return the model with these promises alone."""
    training = {**model.training, "groups": groups.to_dict()}
    return replace(model, rule_out=groups.rule_out.overall, rule_in=groups.rule_in.overall, training=training)


def withdrawn(groups: GroupCertificates, test: Judged) -> tuple[GroupCertificates, list[str]]:
    """Take back what test patients do not confirm: a group's promise that they lie under when the group is known.

    They are other patients of the hospitals that certified, so a promise that misses them is no promise about these
    hospitals. Taking back is safe; nothing is made stricter or looser by what the test shows. The sentences say what
    was taken back, for the card.
    """
    kept, notes = [], []
    for drawer, figure in zip(groups, ("sensitivity", "rule_in_specificity"), strict=True):
        columns: dict[str, dict[str, ThresholdChoice]] = {}
        for column, values in drawer.groups.items():
            columns[column] = dict(values)
            for value, choice in values.items():
                mine = (test.table[column] == value).to_numpy()
                known = {column: np.full(int(mine.sum()), value, dtype=object)}
                cohort = _cohort(test.table[mine])
                worth = among(cohort, groups.decide(test.scores[mine], known))[figure]
                if choice.certified and worth is not None and worth["value"] < choice.target:
                    nobody = {"threshold": None, "n": 0, "errors_allowed": -1, "certified": False}
                    columns[column][value] = ThresholdChoice.from_dict({**choice.to_dict(), **nobody})
                    notes.append(
                        f"No {choice.kind} within {column} {value}: {choice.target:.0%} was certified on {choice.n} "
                        f"patients, and {estimate_text(worth)} measured on test patients of the same hospitals."
                    )
        left = 1 + sum(choice.certified for values in columns.values() for choice in values.values())
        kept.append(replace(drawer, groups=columns, promises=min(drawer.promises, left)))
    return GroupCertificates(*kept), notes


def _who(val: Judged, groups: GroupCertificates, about: Mapping[str, Any]) -> dict[str, Any]:
    """Say who certified and with what result, as :func:`histcxr.study.certify.certified` does."""
    drawers, cohort, rest = groups.decide(val.scores, {}), _cohort(val.table), _cohort(val.refused)
    worth = {"among_judged": among(cohort, drawers), "among_all": among(cohort, drawers, rest)}
    return {
        **about,
        "refused": len(rest),
        "refused_sick": int(rest.sick.sum()),
        **{
            whom: {name: one[name]["value"] for name in ("sensitivity", "rule_in_specificity")}
            for whom, one in worth.items()
        },
        "by": list(CERTIFIED_GROUPS),
    }


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

    Returns group to ``sick``, ``normal`` (patients), ``refused`` (sick patients without a judged image),
    ``sensitivity``, ``specificity`` and ``rule_in_specificity`` as :func:`histcxr.study.figures.among` counts them
    among the judged, and the promised two ``_of_all``.
    """
    drawers = thresholds.decide(judged.scores, {})
    cohort, rest = _cohort(judged.table), _cohort(judged.refused)
    found = {}
    groups = [("all", "", "")] + [
        (f"{column} {value}", column, value)
        for column in ("origin", *CERTIFIED_GROUPS)
        for value in sorted(set(judged.table[column]) - {""})
    ]
    for name, column, value in groups:
        mine, lost = (
            (one.table[column] == value).to_numpy() if column else np.ones(len(one), bool)
            for one in (cohort, rest)
        )
        part, left = cohort.part(mine), rest.part(lost)
        worth, of_all = among(part, drawers[mine]), among(part, drawers[mine], left)
        found[name] = {
            "refused": len(set(left.patients[left.sick]) - set(part.patients)),
            **{key: value for key, value in worth.items() if key not in ("images", "patients")},
            **{f"{key}_of_all": of_all[key] for key in ("sensitivity", "rule_in_specificity")},
        }
    return found


def _cohort(table: pd.DataFrame) -> Cohort:
    return Cohort(table, is_sick(table["label"]), table["patient_id"].to_numpy(dtype=object))


def promises_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out :func:`promises`, one row a group."""
    rows = [
        {
            "group": name,
            **{key: value if isinstance(value, int) else estimate_text(value) for key, value in one.items()},
        }
        for name, one in figures.items()
    ]
    return markdown_table(rows)
