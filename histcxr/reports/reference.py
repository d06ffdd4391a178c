"""The reports of ``histcxr reference``: how a network was trained, what it is worth, where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from histcxr.reports.evaluation import DISCLAIMER, auc_text, evaluation_report
from histcxr.reports.tables import interval_text, markdown_table

__all__ = [
    "architectures_report",
    "classes_report",
    "explanation_report",
    "measured_report",
    "trained_report",
]

_REGIONS = {"lungs": "the lungs only", "hidden": "everything but the lungs", "full": "the full image"}


def trained_report(report: Mapping[str, Any]) -> str:
    """Lay out the report of :func:`histcxr.study.network_train.train_reference`."""
    test, data, inputs = report["test"], report["data"], report["inputs"]
    history = report["history"]
    best = report["best_epoch"] - 1
    learnt = ", ".join(f"{count} {name}" for name, count in report["learnt_from"].items())
    stopped = (
        f"best epoch {report['best_epoch']} with validation loss {history['val_loss'][best]:.3f} and accuracy "
        f"{history['val_accuracy'][best]:.3f}"
        if "val_loss" in history
        else "none held out to stop early"
    )
    figures = [
        ("accuracy at a score of 0.5", f"{test['accuracy']:.3f}"),
        ("accuracy at the rule-out threshold", _accuracy_text(test["confusion_at_rule_out"])),
        ("AUC (95 % interval)", auc_text(test)),
        ("sensitivity at the rule-out threshold, by patient", _share_text(test["decisions"]["sensitivity"])),
        ("specificity at the rule-out threshold, by patient", _share_text(test["decisions"]["specificity"])),
        ("specificity where the test images reach 95 % sensitivity", _share_text(test["specificity_at_95"])),
    ]
    lines = [
        f"{report['architecture']}, {report['parameters']:,} parameters, on {_REGIONS[inputs['region']]} at "
        f"{inputs['size']} x {inputs['size']} pixels",
        "; ".join(_part_text(part, data[part]) for part in ("train", "val", "test")),
        f"Learnt from {learnt} in {report['fit_seconds']:.0f} s, {report['epochs']} epochs; {stopped}.",
        "",
        markdown_table([{"sick against normal, test": name, "value": value} for name, value in figures]),
        "",
        classes_report(test["classes"]),
        "",
        f"  rule_out: {report['threshold']['message']}",
        f"  rule_in:  {report['rule_in_threshold']['message']}",
    ]
    lines += [f"Note: {count} images could not be used: {code}." for code, count in data["unusable"].items()]
    lines += [f"Note: {note}." for note in data["notes"]]
    return "\n".join([*lines, DISCLAIMER])


def measured_report(result: Mapping[str, Any]) -> str:
    """Lay out the result of :func:`histcxr.study.network_evaluate.evaluate_reference`."""
    whole = evaluation_report(result).removesuffix(f"\n{DISCLAIMER}")
    lines = [whole, "", classes_report(result["overall"]["classes"])]
    several = len(result["overall"]["classes"]["names"]) > 2  # of two classes the table above says it all
    for column, groups in result["groups"].items() if several else ():
        for value, figures in groups.items():
            lines += ["", f"{column}={value or 'unknown'}", "", classes_report(figures["classes"])]
    return "\n".join([*lines, DISCLAIMER])


def classes_report(figures: Mapping[str, Any]) -> str:
    """Lay out figures by class and the confusion matrix, one row a class."""
    rows = []
    for about, calls in zip(figures["classes"], figures["matrix"], strict=True):
        row = dict(about)
        if row["auc"] is None:
            row["auc"] = ""
        rows.append(row | {f"called {name}": n for name, n in zip(figures["names"], calls, strict=True)})
    return "\n".join(
        [
            markdown_table(rows),
            f"By class: accuracy {figures['accuracy']:.3f}, balanced accuracy {figures['balanced_accuracy']:.3f}, "
            f"macro F1 {figures['macro_f1']:.3f}, loss {figures['loss']:.3f}.",
        ]
    )


def explanation_report(result: Mapping[str, Any]) -> str:
    """Lay out where a network looks: the share of its maps inside the lungs beside that of an even map."""
    rows = [
        {
            "label": row["label"] or "unknown",
            "images": row["images"],
            "share inside the lungs": row["inside"],
            "of an even map": row["even"],
            "difference (95 % interval)": _gap_text(row),
        }
        for row in result["shares"]
    ]
    return "\n".join(
        [
            f"Grad-CAM of {result['model']['name']}, layer {result['layer']}, on "
            f"{_REGIONS[result['model']['inputs']['region']]}; for {result['target'] or 'the predicted class'}",
            "",
            markdown_table(rows),
            "",
            f"Pictures in {result['output']}: {', '.join(result['pictures'])}.",
            DISCLAIMER,
        ]
    )


def architectures_report(rows: Sequence[Mapping[str, Any]]) -> str:
    """List the networks that there are."""
    return markdown_table(rows)


def _gap_text(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "no map inside known lungs"
    if row["low"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def _share_text(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "too few patients"
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def _accuracy_text(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "no threshold"
    right = counts["tp"] + counts["tn"]
    return f"{right / sum(counts.values()):.3f} ({counts['tp']} sick and {counts['tn']} normal right)"


def _part_text(part: str, about: Mapping[str, Any]) -> str:
    return f"{part}: {about['images']} images, {about['patients']} patients, {about['sick']} sick"
