"""The reports that commands print: figures with their intervals, and what they do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histcxr.networks.search import TuningResult
from histcxr.reports.tables import interval_text, markdown_table

_BEST_TRIALS = 10

DISCLAIMER = "Research software, not a medical device."


def training_report(report: Mapping[str, Any]) -> str:
    """Lay out the report of :func:`histcxr.train`: one row a classifier, then the promises and the notes."""
    data = report["data"]
    rows = [
        {
            "classifier": name,
            "test accuracy": figures["test"]["accuracy"],
            "AUC (95 % interval)": auc_text(figures["test"]),
            "sensitivity": figures["test"]["sensitivity"],
            "specificity": figures["test"]["specificity"],
            "at 95 % sensitivity": _estimate_text(figures["test"]["specificity_at_95"]),
            "cross-validated AUC": figures["cross_validated_auc"],
            "fit seconds": f"{figures['fit_seconds']:.1f}",
        }
        for name, figures in report["classifiers"].items()
    ]
    best = report["classifiers"][report["best"]]
    lines = [
        f"Lungs in zones {report['zones']}"
        + (f", bands {', '.join(report['bands'])}. " if report["bands"] else ". ")
        + "; ".join(_part_text(part, data[part]) for part in ("train", "val", "test")),
        "",
        markdown_table(rows),
        "",
        "Accuracy calls sick at a score of 0.5; sensitivity and specificity are at the rule-out threshold, the next",
        "column is the specificity where the test images themselves reach 95 % sensitivity.",
        f"Best by cross-validation: {report['best']}.",
        f"  rule_out: {best['threshold']['message']}",
        f"  rule_in:  {best['rule_in_threshold']['message']}",
    ]
    failed = {name: figures["failed_trials"] for name, figures in report["classifiers"].items()}
    lines += [f"Note: {count} trials of {name} failed." for name, count in failed.items() if count]
    lines += [f"Note: {count} images could not be used: {code}." for code, count in data["unusable"].items()]
    if "refused" in report:
        lines.append(
            f"Lungs unlike the training ones are refused: {100 * report['refused']['val']:.1f} % of the validation "
            f"images, {100 * report['refused']['test']:.1f} % of the test images."
        )
    lines += [f"Note: {note}." for note in data["notes"]]
    return "\n".join([*lines, DISCLAIMER])


def search_report(result: TuningResult) -> str:
    """Lay out what a search found: its best trials, the failed ones, and the settings to use."""
    table = result.trials
    fine = table[table["status"] == "ok"].sort_values(["images", "score"], ascending=False, kind="stable")
    failed = table[table["status"] == "failed"]
    rows = [
        {
            **{key: row[key] for key in ("classifier", "trial")},
            "AUC": float(row["score"]),
            "images": int(row["images"]),
            "seconds": f"{row['seconds']:.1f}",
        }
        for _, row in fine.head(_BEST_TRIALS).iterrows()
    ]
    lines = [
        f"{len(table)} trials in {result.seconds:.0f} s"
        + (f"; the best {len(rows)}:" if len(table) > len(rows) else ":"),
        "",
        markdown_table(rows),
        "",
        f"{result.name}: {result.measure} {result.score:.4f}"
        + (" with" if result.parameters else " with the defaults, which no trial beat"),
        *(
            f"  {key.removeprefix('classifier__estimator__')} = {value}"
            for key, value in result.parameters.items()
        ),
    ]
    lines += [
        f"Failed: {row['classifier']} trial {row['trial']}: {row['error']}" for _, row in failed.iterrows()
    ]
    if result.not_tried:
        lines.append(
            f"Note: time ended before {result.not_tried} trials; the same command goes on with them."
        )
    return "\n".join(lines)


def evaluation_report(result: Mapping[str, Any]) -> str:
    """Lay out the result of :func:`histcxr.evaluate`."""
    overall = result["overall"]
    decisions = overall["decisions"]
    rows = [_figures_row("all", overall)]
    for column, groups in result["groups"].items():
        rows += [_figures_row(f"{column}={value or 'unknown'}", figures) for value, figures in groups.items()]
    lines = [
        f"{result['model']['name']} on {overall['images']} images ({overall['sick']} sick), split {result['split']}",
        "",
        markdown_table(rows),
        "",
        "Sensitivity and specificity are at the rule-out threshold, by patient; accuracy at a score of 0.5, by image.",
        "",
        markdown_table(
            [
                {
                    "drawer": drawer,
                    "share of patients": _estimate_text(share),
                    "images": decisions["images"][drawer],
                }
                for drawer, share in decisions["shares"].items()
            ]
        ),
        "",
        f"Ruled out although sick: {decisions['missed']} patients. NPV {_estimate_text(decisions['npv'])}.",
        f"Ruled in although normal: {decisions['false_alarms']} patients. PPV {_estimate_text(decisions['ppv'])}.",
        thresholds_report(result["thresholds"]),
    ]
    lines += [
        f"Note: {count} images go to review unjudged: {code}." for code, count in result["unusable"].items()
    ]
    lines.append(f"Not judged in all: {100 * result['refused']:.1f} % of the images.")
    if result["seen"]:
        lines.append(
            f"Note: {result['seen']} images were left out: the model was trained or certified on their patients."
        )
    return "\n".join([*lines, DISCLAIMER])


def thresholds_report(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what the two thresholds promise."""
    return "\n".join(
        f"{kind}: "
        + (f"score {sign} {choice['threshold']:.4f}, " if choice["certified"] else "nobody, ")
        + str(choice["message"])
        for kind, sign, choice in (
            ("rule_out", "<", thresholds["rule_out"]),
            ("rule_in", ">", thresholds["rule_in"]),
        )
    )


def triage_report(summary: Mapping[str, Any]) -> str:
    """Say what a triage did: drawers, what needs attention, where the files are."""
    total = summary["total"]
    lines = [f"{total} inputs, each with one row in {summary['output']}"]
    for drawer in ("rule_out", "review", "rule_in"):
        count = summary["drawers"][drawer]
        share = f"{100 * count / total:5.1f} %" if total else ""
        lines.append(f"  {drawer:<9} {count:>7}  {share}")
    if summary["unjudged"]:
        lines.append(f"Could not be judged, so in review: {summary['unjudged']}")
        lines += [f"  {count:>5}  {code}" for code, count in summary["reasons"].items()]
    lines += [
        f"Skipped {count} {ext or 'other'} files, which are not images"
        for ext, count in summary["skipped"].items()
    ]
    if summary["resumed"]:
        lines.append(f"{summary['resumed']} rows were already there from an earlier run")
    lines += [str(note) for note in summary.get("notes", ())]
    lines.append(f"Audit trail: {summary['audit']}")
    return "\n".join([*lines, DISCLAIMER])


def auc_text(figures: Mapping[str, Any]) -> str:
    """Write the AUC with its interval, or why there is none."""
    if figures["auc"] is None:
        return "too few patients"
    return interval_text(figures["auc"], figures["auc_low"], figures["auc_high"])


def _figures_row(name: str, figures: Mapping[str, Any]) -> dict[str, object]:
    return {
        "patients": name,
        "images": figures["images"],
        "sick": figures["sick"],
        "accuracy": figures["accuracy"],
        "AUC (95 % interval)": auc_text(figures),
        "sensitivity": _estimate_text(figures["decisions"]["sensitivity"]),
        "specificity": _estimate_text(figures["decisions"]["specificity"]),
    }


def _estimate_text(estimate: Mapping[str, Any] | None) -> str:
    return (
        interval_text(estimate["value"], estimate["low"], estimate["high"]) if estimate else "nobody to count"
    )


def _part_text(part: str, about: Mapping[str, Any]) -> str:
    return f"{part}: {about['images']} images, {about['patients']} patients, {about['sick']} sick"
