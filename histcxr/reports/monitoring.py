"""What :func:`histcxr.monitor` found, in words and as a picture; both take its ``to_dict()``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histcxr.exceptions import counted
from histcxr.reports.drawing import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    check_picture,
    label_axes,
    legend_above,
    new_figure,
    save_figure,
)
from histcxr.reports.tables import counts_text, markdown_table
from histcxr.reports.text import DISCLAIMER

_SHOWN = 14  # worklists that the table names
_ASKS = {
    "site": "Are the images of the certified population?",
    "change": "Are they what they were in the beginning?",
    "sensitivity": "Does rule_out keep its promise?",
    "specificity": "Does rule_in keep its promise?",
}
_MEANS = {
    "site": "UNCERTIFIED SITE: these images are not of the population that certified the thresholds. Certify the model "
    "on patients of yours (histcxr adapt or calibrate).",
    "change": "THE IMAGES CHANGED, which another share of sick patients does not explain: ask what is new (a device, "
    "its settings, an export, another hospital's patients), and certify anew on images of today.",
    "sensitivity": "THE PROMISE OF RULE_OUT IS IN DOUBT: more sick patients are ruled out than it allows. Do not use "
    "this drawer until the model is certified anew.",
    "specificity": "THE PROMISE OF RULE_IN IS IN DOUBT: more normal patients are ruled in than it allows. Do not use "
    "this drawer until the model is certified anew.",
}


def monitor_report(result: Mapping[str, Any]) -> str:
    """Lay out the last worklists, the four tests, and what they mean."""
    days, limit = result["days"], result["limit"]
    rows = [
        {
            "worklist": day["worklist"],
            "images": day["images"],
            "new patients": day["patients"],
            **{name: f"{count / max(1, day['images']):.1%}" for name, count in day["drawers"].items()},
            "not judged": f"{day['unjudged'] / max(1, day['images']):.1%}",
            "mean score": day["mean_score"],
            "": "withheld" if day["withheld"] else "",
        }
        for day in days[-_SHOWN:]
    ]
    before = [f"({counted(len(days) - _SHOWN, 'worklist')} before these)"] if len(days) > _SHOWN else []
    reasons = sum((Counter(day["reasons"]) for day in days), Counter())
    tests = [
        {
            "": _ASKS[watch["name"]],
            "evidence against it": f"{watch['evidence'][-1]:.3g} of {limit:g}"
            if watch["tested"]
            else "not tested",
            "alarm": f"since {watch['since']}" if watch["alarm"] else "no",
        }
        for watch in result["watches"]
    ]
    lines = [
        f"{counted(len(days), 'worklist')} of {result['model']}, "
        f"{counted(sum(day['images'] for day in days), 'image')}.",
        "",
        *before,
        markdown_table(rows),
        "",
        *([f"Not judged: {counts_text(reasons)}.", ""] if reasons else []),
        markdown_table(tests),
        "",
        f"Evidence of {limit:g} is an alarm. The chance that any of the tests ever gives a false one is at most "
        f"{result['level']:.0%} in all, however often one looks.",
        *(f"{watch['name']}: {watch['finding']}." for watch in result["watches"]),
        *(_MEANS[watch["name"]] for watch in result["watches"] if watch["alarm"]),
        *(f"Note: {note}." for note in result["notes"]),
        DISCLAIMER,
    ]
    return "\n".join(lines)


def plot_monitor(result: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw the days of :func:`histcxr.monitor` (its ``to_dict()``): drawers, refusals, scores, and the evidence.

    Errors as of :func:`~histcxr.reports.drawing.check_picture`; OutputError: the picture cannot be written.
    """
    check_picture(path)
    days, at = result["days"], np.arange(1, len(result["days"]) + 1)
    images = np.maximum([day["images"] for day in days], 1)
    figure = new_figure(8)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 4))
    below = np.zeros(len(days))
    for drawer, colour in (("rule_out", BLUE), ("review", "#d8d8d8"), ("rule_in", RED)):
        share = np.array([day["drawers"][drawer] for day in days]) / images
        upper.bar(at, share, bottom=below, width=1, color=colour, label=drawer)
        below += share
    unjudged = np.array([day["unjudged"] for day in days]) / images
    upper.step(at, unjudged, where="mid", color="black", lw=1, label="not judged (of review)")
    scores = [np.nan if day["mean_score"] is None else day["mean_score"] for day in days]
    middle.plot(at, scores, "o-", ms=3, lw=1, color=BLUE)
    middle.set_ylim(0, 1)
    for watch, mark, colour in zip(result["watches"], "os^v", (BLUE, ORANGE, RED, GREY), strict=True):
        if watch["tested"]:
            shown = np.clip(watch["evidence"], 1e-3, 1e6)
            lower.plot(at, shown, f"{mark}-", ms=3, lw=1, color=colour, label=watch["name"])
    lower.axhline(result["limit"], color="black", ls=":", lw=1, label=f"alarm ({result['limit']:g})")
    lower.set_yscale("log")
    lower.xaxis.get_major_locator().set_params(integer=True)
    label_axes(upper, "", "share of images")
    label_axes(middle, "", "mean score")
    label_axes(lower, "worklist", "evidence")
    legend_above(upper, 4)
    legend_above(lower, 5)
    return save_figure(figure, path)
