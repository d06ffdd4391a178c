"""What is told of an adaptation: candidates, the price of each certificate, and what the patients could not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from histcxr.decision.intervals import patient_labels
from histcxr.decision.thresholds import patients_needed
from histcxr.reports.tables import estimate_text, markdown_table
from histcxr.study.cohort import Cohort, groups_of
from histcxr.study.train import one_class_sources, unequal_masks

#: Columns that matter to a radiograph, and how a sentence names their images.
_COLUMNS = {"view": "images in {} view", "age_group": "images of the age group {}", "sex": "images of sex {}"}


def not_shown(training: Mapping[str, Any], cohort: Cohort) -> Iterator[str]:
    """Yield in sentences what local patients cannot tell of an adapted model.

    ``training`` is what the model says of its own data: groups that were there and are not here, columns that nobody
    filled in, groups here of one class alone, too few patients for a promise.
    """
    for column, words in _COLUMNS.items():
        knew = _known(training, column)
        here = groups_of(cohort.table, column) if column in cohort.table else None
        if here is None or not any(here):
            if knew:
                yield (
                    f"The data do not say {column}: whether {', '.join(knew)} are among these patients, nobody can "
                    "tell."
                )
            continue
        for value, count in knew.items():
            if value not in here:
                yield (
                    f"No {words.format(value)} are among these patients (the model knew {count}): how it does on them "
                    "here is not known, and the promise does not cover them."
                )
        for value in sorted(set(here) - {""}):
            sick = cohort.sick[here == value]
            if sick.all() or not sick.any():
                yield (
                    f"All {len(sick)} {words.format(value)} are {'sick' if sick.all() else 'normal'}: the disease and "
                    "the group cannot be told apart there."
                )
    labels = _known(training, "label")
    missing = [
        f"{name} ({labels[name]})" for name in labels if name not in set(groups_of(cohort.table, "label"))
    ]
    if missing:
        yield f"The model knew {', '.join(missing)}, of which these patients show none."
    yield from (
        f"{note[0].upper()}{note[1:]}." for note in (*one_class_sources(cohort), *unequal_masks(cohort))
    )
    needed = patients_needed(0.95, 0.95)
    sick = patient_labels(cohort.sick, cohort.patients)
    for name, own in (("sick", int(sick.sum())), ("normal", int((~sick).sum()))):
        if own < needed:
            yield f"{own} {name} patients are fewer than the {needed} that a promise of 95 % at 95 % confidence takes."


def _known(training: Mapping[str, Any], column: str) -> dict[str, int]:
    """Add up how many images of each group a model was trained and certified on."""
    found: dict[str, int] = {}
    for part in ("train", "val"):
        for value, count in training.get(part, {}).get(column, {}).items():
            if value != "unknown":
                found[value] = found.get(value, 0) + int(count)
    return dict(sorted(found.items()))


def adaptation_text(found: Mapping[str, Any]) -> str:
    """Write what ``Adaptation.to_dict`` gives, as text that is Markdown, too."""
    area = {one["name"]: one["auc"] for one in found["candidates"]}
    rows = [
        {
            "candidate": one["name"] + (" (taken)" if one["name"] == found["chosen"] else ""),
            "AUC (95 % interval)": estimate_text(one["auc"]),
            "log loss": one["log_loss"],
        }
        for one in found["candidates"]
    ]
    shares = ", ".join(f"{share:.0%} {name}" for name, share in found["weights"].items())
    weight = f" ({shares})" if shares else ""
    lines = [
        f"Local patients: {found['sick']} sick, {found['normal']} normal. Every figure of a candidate is by patients "
        "whom its fit had not seen.",
        "",
        markdown_table(rows),
        "",
        f"Taken: {found['chosen']}{weight}; AUC {area[found['chosen']]['value']:.3f} where the model as it is has "
        f"{area['as it is']['value']:.3f}.",
        "",
        markdown_table([_price(kind, one, found["deployed"]) for kind, one in found["offers"].items()]),
        "",
        "What the split costs or gains depends on how its halves fell.",
        _HOW[found["deployed"]] if shares or found["deployed"] != "out-of-fold" else _EXACT,
    ]
    if found["not_shown"]:
        lines += ["", "What these patients could not show:", *(f"- {one}" for one in found["not_shown"])]
    return "\n".join(lines)


_HOW = {
    "out-of-fold": "Out of fold: each patient was scored by what was fitted without him. That this keeps the promise "
    "is simulated, not proven (benchmarks/robustness/adapt_certificate.py); --certificate split is proven.",
    "split": "Split: one half of the patients fitted, the other certified; this is proven.",
}
_EXACT = (
    "The order of patients is the model's own, which never saw them: the certificate is proven for that order; that it "
    "was taken because the others were no better is simulated."
)


def _price(kind: str, one: Mapping[str, Any], deployed: str) -> dict[str, object]:
    return {
        "certificate": kind + (" (taken)" if kind == deployed else ""),
        "sick": one["rule_out"]["n"],
        "normal": one["rule_in"]["n"],
        "normals ruled out": estimate_text(one["specificity"], "no promise"),
        "sick ruled in": estimate_text(one["sensitivity"], "no promise"),
    }
