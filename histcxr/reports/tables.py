"""Tables that are Markdown too, figures with their intervals, and what is promised to whom, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from histcxr.decision.groups import GroupCertificates
from histcxr.decision.thresholds import joint_confidence

_GROUPS_MEAN = (
    "Each image is judged by the strictest threshold that applies to it: its own group's where the group is known, the "
    "strictest of the column where it is not; a group without a promise goes to review."
)


def markdown_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Lay out rows as an aligned Markdown table, numbers to the right, floats with three decimals.

    Columns are those of the first row unless they are given; a missing key is an empty cell.
    """
    columns = list(columns) if columns is not None else list(rows[0]) if rows else []
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    numeric = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    widths = [max(3, len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rules = [
        "-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(columns), f"|{'|'.join(rules)}|", *(line(row) for row in cells)])


def interval_text(value: float, low: float, high: float) -> str:
    """Write an estimate with its interval, ``0.912 (0.897-0.925)``."""
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def auc_text(figures: Mapping[str, Any]) -> str:
    """Write the AUC with its interval, or why there is none."""
    if figures["auc"] is None:
        return "too few patients"
    return interval_text(figures["auc"], figures["auc_low"], figures["auc_high"])


def estimate_text(estimate: Mapping[str, Any] | None) -> str:
    """Write an estimate, or that there is nobody to count."""
    if not estimate:
        return "nobody to count"
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def counts_text(counts: Mapping[str, int]) -> str:
    """Write how many there are of each, ``3 AP, 5 PA``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def thresholds_report(
    thresholds: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any] | None = None
) -> str:
    """Say what the two thresholds promise, and what is promised within groups."""
    out, taken = thresholds["rule_out"], thresholds["rule_in"]
    both = out["certified"] and taken["certified"]
    crossed = both and out["threshold"] > taken["threshold"]
    limits = {
        "rule_out": f"score < {out['threshold']:.4f}" if out["certified"] else "nobody",
        "rule_in": f"score > {taken['threshold']:.4f}" if taken["certified"] else "nobody",
    }
    if crossed:
        limits["rule_in"] = f"score >= {out['threshold']:.4f}"
    lines = [f"{kind}: {limits[kind]}, {thresholds[kind]['message']}" for kind in limits]
    if crossed:
        lines.append(
            f"The thresholds cross (rule_in alone would begin above {taken['threshold']:.4f}): what lies between them "
            "is ruled out, and nothing goes to review for its score."
        )
    together = joint_confidence([out, taken, *_further(groups)])
    if together is not None and (both or groups is not None):
        lines.append(
            f"All certified promises hold together with a confidence of at least {100 * together:.4g} %."
        )
    if groups is not None:
        lines += ["", _groups_table(groups), "", _GROUPS_MEAN]
    return "\n".join(lines)


def certified_lines(certified: Mapping[str, Any]) -> list[str]:
    """Say who certified a model, and what the thresholds do to them."""
    by = [
        f"by {name}: {counts_text(counts)}"
        for name, counts in certified.items()
        if isinstance(counts, Mapping) and not name.startswith("among")
    ]
    lines = [
        f"Certified on {certified['images']} images of {certified['patients']} patients ({certified['sick']} sick "
        f"images){''.join(f'; {one}' for one in by)}.",
        f"Refused as unlike the training images, so not among them: {certified['refused']} images "
        f"({certified['refused_sick']} sick). A triage sends them to review.",
    ]
    judged, everybody = certified["among_judged"], certified["among_all"]
    for figure, name in (
        ("sensitivity", "Sensitivity of rule_out"),
        ("rule_in_specificity", "Specificity of rule_in"),
    ):
        if judged[figure] is not None:
            lines.append(
                f"{name} on these patients: {judged[figure]:.3f} among the judged, {everybody[figure]:.3f} among all."
            )
    return lines


def contradiction_lines(contradicted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shout where a certified promise does not hold here."""
    lines = []
    for one in contradicted:
        within = f" within {one['column']}={one['value']}" if one["column"] else ""
        lines.append(
            f"CONTRADICTED: {one['promise']} promises a {one['figure'].replace('rule_in_', '')} of "
            f"{100 * one['target']:g} %{within}, and it is "
            f"{interval_text(one['measured'], one['low'], one['high'])} here. Do not use this drawer on such patients."
        )
    return lines


def seen_lines(result: Mapping[str, Any]) -> list[str]:
    """Say who was left out because the model has seen him, or that nobody could be."""
    seen = result["seen"]
    if not result.get("remembers", True):
        return [
            "WARNING: the model does not remember whom it was trained on, so nobody could be left out: on its own "
            "training patients these figures are too good."
        ]
    if not seen["images"]:
        return ["Nobody was recognised as seen in training or certification."]
    return [
        f"Left out: {seen['images']} images, because the model was trained or certified on their patients "
        f"({seen['equal_pixels']} by equal pixels, {seen['near_duplicates']} as near-duplicates, "
        f"{seen['same_patient']} because their patient is known)."
    ]


def _groups_table(groups: Mapping[str, Any]) -> str:
    rows = [
        {
            "group": f"{column}={value}",
            "promise": kind,
            "patients": choice["n"],
            "threshold": f"{choice['threshold']:.4f}" if choice["certified"] else "",
            "": f"{100 * choice['target']:g} % certified" if choice["certified"]
            else f"no promise: takes {choice['needed']}",
        }
        for kind, drawer in groups.items()
        for column, values in drawer["groups"].items()
        for value, choice in values.items()
    ]  # fmt: skip
    return markdown_table(rows)


def _further(groups: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """List the promises within groups."""
    return [] if groups is None else GroupCertificates.from_dict(groups).further_promises()
