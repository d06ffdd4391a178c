"""The page about an evaluation: what :func:`histcxr.evaluate` found with a closer look, to look at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr import __version__
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import WORKING_SIDE, read_radiograph
from histcxr.decision.groups import GroupCertificates
from histcxr.exceptions import UnjudgeableError
from histcxr.lungs.segmenter import Segmenter, load_segmenter
from histcxr.reports.displays import (
    CalibrationDisplay,
    ConfusionDisplay,
    DecisionCurveDisplay,
    GroupsDisplay,
    ImportanceDisplay,
    PredictiveValueDisplay,
    RocDisplay,
    ScoreDisplay,
)
from histcxr.reports.drawing import Display
from histcxr.reports.page import embedded, svg, write_page
from histcxr.reports.pages.checklists import checklist
from histcxr.reports.tables import auc_text, promise_rows, seen_lines, thresholds_report
from histcxr.reports.text import calibration_lines, measured_promises, within_lines

_POINTS = {
    "rule_out": ("At the rule-out threshold", ("ruled out", "not ruled out")),
    "rule_in": ("At the rule-in threshold", ("not ruled in", "ruled in")),
    "0.5": ("At a score of 0.5", ("normal", "sick")),
}
_MOST_BARS = 12
# How sentences begin that nobody must miss.
_LOUD = ("CONTRADICTED", "NOT REACHED", "NO PROMISE")


def displays(result: Mapping[str, Any]) -> dict[str, tuple[Display, str, tuple[float, float]]]:
    """Return the plots of an evaluation with its closer look, by name: display, what it shows, size in inches."""
    closer, decisions = result["closer"], result["overall"]["decisions"]
    found: dict[str, tuple[Display, str, tuple[float, float]]] = {}

    def add(name: str, display: Display, words: str, height: float = 3.4) -> None:
        found[name] = (display, words, (4.4, height))

    operating = closer["operating"]
    marks = {
        "score 0.5" if kind == "0.5" else kind: (point["sensitivity"]["value"], point["specificity"]["value"])
        for kind, point in operating.items()
        if point["sensitivity"] and point["specificity"] and (kind == "0.5" or decisions[kind] is not None)
    }
    if closer["roc"]:
        add("roc", RocDisplay(closer["roc"], marks=marks), "ROC curve with its 95 % band")
    limits = deciding_limits(result["thresholds"], result.get("certificates"))
    add("scores", ScoreDisplay(closer["scores"], limits), "scores of normal and sick with both thresholds")
    for kind, point in operating.items():
        title, called = _POINTS[kind]
        matrix = [[point["tn"], point["fp"]], [point["fn"], point["tp"]]]
        add(
            f"confusion-{kind}",
            ConfusionDisplay(matrix, ("normal", "sick"), called),
            f"confusion: {title}",
            2.4,
        )
    add("calibration", CalibrationDisplay(closer["calibration"]), "calibration curve")
    for kind in ("npv", "ppv"):
        if closer[kind]:
            add(kind, PredictiveValueDisplay(closer[kind]), f"{kind.upper()} over the share of sick")
    if closer["decision_curve"]:
        add("decision", DecisionCurveDisplay(closer["decision_curve"]), "decision curve")
    out = result["thresholds"]["rule_out"]
    for figure in ("sensitivity", "specificity", "auc"):
        rows = [
            {"name": f"{row['column']} {row['value']}", **row[figure]}
            for row in closer["subgroups"]
            if row[figure]
        ]
        if rows:
            target = out["target"] if figure == "sensitivity" and out["certified"] else None
            label = "AUC" if figure == "auc" else f"{figure} at rule-out"
            words = f"{label} of subgroups"
            add(f"groups-{figure}", GroupsDisplay(rows, label, target), words, 1.2 + 0.26 * len(rows))
    drives = closer["drives"]
    for kind, words in (("zones", "AUC lost without the zone"), ("bands", "AUC lost without the channel")):
        if drives["permutation"]:
            rows = drives["permutation"][kind][:_MOST_BARS]
            add(f"lost-{kind}", ImportanceDisplay(rows, words), words, 1.0 + 0.24 * len(rows))
    for kind, words in (("zones", "zone"), ("bands", "channel"), ("levels", "part of the pixels")):
        if drives["contributions"] and drives["contributions"][kind]:
            rows = drives["contributions"][kind][:_MOST_BARS]
            label = "mean |SHAP value| (log-odds)"
            add(f"shap-{kind}", ImportanceDisplay(rows, label), f"{label} by {words}", 1.0 + 0.24 * len(rows))
    return found


def write_evaluation(result: Mapping[str, Any], path: str | os.PathLike[str], data: str = "") -> None:
    """Write the page of an evaluation that has ``closer``. OutputError: it cannot be written."""
    closer, overall, decisions = result["closer"], result["overall"], result["overall"]["decisions"]
    software = f"histcxr {__version__}"
    groups, measured = result.get("certificates"), measured_promises(result)
    told = thresholds_report(result["thresholds"], groups, measured)
    promises = [line for line in told.splitlines() if line and not line.startswith("|")]
    warnings = [line for line in promises if line.startswith(_LOUD)] + within_lines(result["within"], overall)
    content = {
        "result": result,
        "data": data,
        "auc": auc_text(overall),
        "plots": {name: svg(*one) for name, one in displays(result).items()},
        "points": {kind: title for kind, (title, _) in _POINTS.items()},
        "promises": [line for line in promises if not line.startswith(_LOUD)],
        "calibration": calibration_lines(result),
        "within": promise_rows(result["thresholds"], groups, measured) if groups else [],
        "warnings": warnings,
        "seen": seen_lines(result),
        "npv": decisions["npv"],
        "ppv": decisions["ppv"],
        "subgroups": [_subgroup(row) for row in closer["subgroups"]],
        "errors": {kind: [_shown(one) for one in rows] for kind, rows in closer["errors"].items()},
        "items": checklist(result, software),
    }
    write_page(Path(path), "evaluation.html", content)


def deciding_limits(
    thresholds: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any] | None
) -> dict[str, float]:
    """Return the thresholds that decide where nothing but the image is known, of the drawers that have one."""
    if groups is None:
        return {kind: choice["threshold"] for kind, choice in thresholds.items() if choice["certified"]}
    found = GroupCertificates.from_dict(groups)
    return {one.overall.kind: float(one.limits({}, 1)[0]) for one in found if one.overall.certified}


def _subgroup(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "group": f"{row['column']}: {row['value']}",
        "patients": row["patients"],
        "sick": row["sick"],
        "sensitivity": row["sensitivity"],
        "specificity": row["specificity"],
        "AUC": row["auc"],
        "": row["sentence"],
    }


def _shown(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error with its small picture, "" where the file cannot be read any more."""
    file = os.path.join(*Path(error["image"]).parts[-2:])
    found = look_at(error["image"], error["mask"], load_segmenter())
    if found is None:
        return {**error, "file": file, "picture": "", "outline": []}
    pixels, lungs = found
    shown = {"picture": embedded(pixels, 128), "outline": [] if lungs is None else outline(lungs)}
    return {**error, "file": file, **shown}


def look_at(
    path: str, mask: str, segmenter: Segmenter | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None] | None:
    """Return the pixels of an image file and its lungs, to look at; None where the file cannot be read any more.

    The lungs, bool (height, width), are those that a mask file marks, or, where there is none, a network; None for
    none.
    """
    try:
        pixels = read_radiograph(path, side=WORKING_SIDE).pixels
    except UnjudgeableError:
        return None
    lungs = None
    if mask:
        with contextlib.suppress(UnjudgeableError):
            lungs = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
    elif segmenter is not None:
        lungs = segmenter.outline([pixels])[0]
    return pixels, lungs if lungs is not None and lungs.any() else None


def outline(lungs: NDArray[np.bool_]) -> list[str]:
    """Return the outlines of lungs, bool (height, width), as points of SVG polygons in % of width and height."""
    size = 100
    small = cv2.resize(lungs.view(np.uint8), (size, size), interpolation=cv2.INTER_AREA)
    found, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    shapes = [cv2.approxPolyDP(one, 0.8, True)[:, 0] for one in found if cv2.contourArea(one) > size]
    return [" ".join(f"{x},{y}" for x, y in shape.tolist()) for shape in shapes]
