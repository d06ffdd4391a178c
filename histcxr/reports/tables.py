"""Tables that are Markdown too, figures with their intervals, and what is promised to whom, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from histcxr.decision.groups import GroupCertificates
from histcxr.decision.thresholds import joint_confidence
from histcxr.exceptions import counted

_GROUPS_MEAN = (
    "Each image is judged by the strictest threshold that applies to it: its own group's where the group is known, the "
    "strictest of the column where it is not. A group without a promise goes to review; where no group of a column has "
    "one, the column decides nothing."
)

#: Of each drawer: the figure that it promises, what that is called, and whose share it is.
PROMISED = {
    "rule_out": ("sensitivity", "sensitivity", "sick"),
    "rule_in": ("rule_in_specificity", "specificity", "normal"),
}


class Kept(NamedTuple):
    """What became of a promise on test patients: how many, and the estimates (None: nobody to count)."""

    patients: int
    judged: Mapping[str, Any] | None
    everybody: Mapping[str, Any] | None


#: Looks a promise up by column, value ("" over all patients) and drawer; None where it was not measured.
Measured = Callable[[str, str, str], Kept | None]


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
        return "one class only" if figures.get("sick") in (0, figures.get("images")) else "too few patients"
    return interval_text(figures["auc"], figures["auc_low"], figures["auc_high"])


def estimate_text(estimate: Mapping[str, Any] | None, nothing: str = "nobody to count") -> str:
    """Write an estimate, or that there is none."""
    if not estimate:
        return nothing
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def counts_text(counts: Mapping[str, int]) -> str:
    """Write how many there are of each, ``3 AP, 5 PA``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def thresholds_report(
    thresholds: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any] | None = None,
    measured: Measured | None = None,
) -> str:
    """Say what the two thresholds promise, what is promised within groups, and what was measured of it."""
    limits = {kind: choice["threshold"] for kind, choice in thresholds.items() if choice["certified"]}
    where, further = "", []
    thresholds = _overall(thresholds, groups)
    if groups is not None:
        certificates = GroupCertificates.from_dict(groups)
        further = certificates.further_promises()
        strictest = {one.overall.kind: float(one.limits({}, 1)[0]) for one in certificates}
        limits = {kind: limit for kind, limit in strictest.items() if thresholds[kind]["certified"]}
        where = " where nothing but the image is known"
    signs = {"rule_out": "<", "rule_in": ">"}
    said = {
        kind: f"score {signs[kind]} {limits[kind]:.4f}{where}" if kind in limits else "nobody"
        for kind in signs
    }
    crossed = len(limits) == 2 and limits["rule_out"] > limits["rule_in"]
    if crossed:
        said["rule_in"] = f"score >= {limits['rule_out']:.4f}{where}"
    lines = [f"{kind}: {said[kind]}, {thresholds[kind]['message']}" for kind in signs]
    if crossed:
        lines.append(
            f"The thresholds cross (rule_in alone would begin above {limits['rule_in']:.4f}): what lies between them "
            "is ruled out, and nothing goes to review for its score."
        )
    together = joint_confidence([*thresholds.values(), *further])
    if together is not None and (len(limits) == 2 or groups is not None):
        lines.append(
            f"All certified promises hold together with a confidence of at least {100 * together:.4g} %."
        )
    if rows := promise_rows(thresholds, groups, measured):
        lines += ["", markdown_table(rows), ""]
    if groups is not None:
        lines.append(_GROUPS_MEAN)
    return "\n".join([*lines, *_missed_lines(_promises(thresholds, groups), measured)])


def promise_rows(
    thresholds: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any] | None = None,
    measured: Measured | None = None,
) -> list[dict[str, object]]:
    """Return a row for each promise within groups, and over all patients where it was measured what became of it."""
    promises = _promises(_overall(thresholds, groups), groups)
    return [_promise_row(*promise, measured) for promise in promises if promise[0] or measured is not None]


def _overall(
    thresholds: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any] | None
) -> Mapping[str, Mapping[str, Any]]:
    """Return the thresholds over all patients: with groups those at their share of the confidence, which decide."""
    return thresholds if groups is None else {kind: one["overall"] for kind, one in groups.items()}


def _promises(
    thresholds: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """List column, value ("" over all), drawer and certificate: also of groups that had nobody to certify a drawer."""
    for kind in PROMISED:
        overall = thresholds[kind]
        yield "", "", kind, overall
        nobody = {**overall, "certified": False, "threshold": None, "n": 0}
        columns = dict.fromkeys(column for drawer in (groups or {}).values() for column in drawer["groups"])
        for column in columns:
            own = groups[kind]["groups"].get(column, {}) if groups else {}
            others = [] if groups is None or column == "label" else [
                value for drawer in groups.values() for value in drawer["groups"].get(column, {})
            ]  # fmt: skip
            for value in sorted({*own, *others}):
                yield column, value, kind, own.get(value, nobody)


def _promise_row(
    column: str, value: str, kind: str, choice: Mapping[str, Any], measured: Measured | None
) -> dict[str, object]:
    _, name, whose = PROMISED[kind]
    row: dict[str, object] = {
        "group": f"{column}={value}" if column else "all",
        "drawer": kind,
        "calibration patients": f"{choice['n']} {whose}",
        "threshold": f"{choice['threshold']:.4f}" if choice["certified"] else "",
        "promise": f"{name} {100 * choice['target']:g} %" if choice["certified"]
        else f"no promise: takes {choice['needed']} {whose}",
    }  # fmt: skip
    if measured is None:
        return row
    found = measured(column, value, kind)
    if found is None:
        return {**row, "patients here": "", "measured": "not measured", "among all": ""}
    everybody = estimate_text(found.everybody) if found.everybody else ""
    return {
        **row,
        "patients here": found.patients,
        "measured": estimate_text(found.judged),
        "among all": everybody,
    }


def _missed_lines(
    promises: Iterable[tuple[str, str, str, Mapping[str, Any]]], measured: Measured | None
) -> list[str]:
    """Say in words where a promise was not reached, also where chance may be why."""
    lines: list[str] = []
    for column, value, kind, choice in promises:
        found = measured(column, value, kind) if measured is not None else None
        if found is None or not found.judged or found.judged["value"] >= choice["target"]:
            continue
        figure, name, whose = PROMISED[kind]
        if not choice["certified"]:
            if found.judged["high"] < choice["target"]:
                lines.append(
                    f"NO PROMISE: {kind} promises nothing{_within(column, value)}, and its {name} is "
                    f"{estimate_text(found.judged)} on {found.patients} {whose} patients here. It takes "
                    f"{choice['needed']} of them in histcxr calibrate --by to promise {100 * choice['target']:g} %."
                )
            continue
        if found.judged["high"] < choice["target"]:
            about = {"promise": kind, "column": column, "value": value, "figure": figure}
            judged = {**found.judged, "measured": found.judged["value"], "target": choice["target"]}
            lines += contradiction_lines([{**judged, **about}])
            continue
        lines.append(
            f"NOT REACHED: {kind} promises a {name} of {100 * choice['target']:g} %{_within(column, value)}, and it is "
            f"{estimate_text(found.judged)} on {found.patients} {whose} patients here. The interval includes the "
            "promise, so chance may be why; more patients would tell."
        )
    return lines


def _within(column: str, value: str) -> str:
    return f" within {column}={value}" if column else ""


def certified_lines(certified: Mapping[str, Any]) -> list[str]:
    """Say who certified a model, and what the thresholds do to them."""
    by = [
        f"by {name}: {counts_text(counts)}"
        for name, counts in certified.items()
        if isinstance(counts, Mapping) and not name.startswith(("among", "unusable"))
    ]
    lines = [
        f"Certified on {counted(certified['images'], 'image')} of {counted(certified['patients'], 'patient')} "
        f"({counted(certified['sick'], 'sick image')}){''.join(f'; {one}' for one in by)}.",
        f"Not judged, so not among them: {counted(certified['refused'], 'image')} "
        f"({certified['refused_sick']} sick). A triage sends them to review.",
    ]
    if unusable := certified.get("unusable"):
        lines.append(
            f"Not usable, so not counted at all: {counts_text(unusable)}. A triage sends them to review, too."
        )
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
        lines.append(
            f"CONTRADICTED: {one['promise']} promises a {one['figure'].replace('rule_in_', '')} of "
            f"{100 * one['target']:g} %{_within(one['column'], one['value'])}, and it is "
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
        f"Left out: {counted(seen['images'], 'image')}, because the model was trained or certified on their patients "
        f"({seen_text(seen)})."
    ]


def seen_text(counts: Mapping[str, int]) -> str:
    """Say by what images were recognised."""
    return (
        f"{counts['equal_pixels']} by equal pixels, {counts['near_duplicates']} as near-duplicates, "
        f"{counts['same_patient']} because their patient is known"
    )


def site_lines(site: Mapping[str, Any] | None) -> list[str]:
    """Say that a triage would withhold what is measured above."""
    if not site or not site["differs"]:
        return []
    return [
        "UNCERTIFIED SITE: these images differ from those that the thresholds were certified on (squared distance "
        f"{site['distance']:.1f}, up to {site['tolerance']:g} is like them), so a triage of them "
        "rules nobody out or in; the drawers above are those of --trust-site."
    ]
