"""A plan of what to read, as text and as a picture, and what a labelling list holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histcxr.exceptions import counted
from histcxr.reports.drawing import BLUE, GREY, RED, check_picture, label_axes, new_figure, save_figure
from histcxr.reports.tables import counts_text, markdown_table
from histcxr.reports.text import DISCLAIMER

_OWN = {"rule_out": "sick", "rule_in": "normal"}
_PROMISED = {"rule_out": "sensitivity", "rule_in": "specificity"}
_WORTH = {"rule_out": "specificity", "rule_in": "sensitivity"}


def plan_report(plan: Mapping[str, Any]) -> str:
    """Lay out a plan (:meth:`histcxr.site.plan.Plan.to_dict`)."""
    lines = [f"Planned from {plan['basis']}: AUC {plan['auc']:.3f}."]
    for kind in ("rule_out", "rule_in"):
        lines += ["", *_drawer_lines(plan[kind], plan)]
    site = plan["site_test"]
    rows = [
        {
            "squared distance of the site": f"{row['distance']:g}",
            "images, found in 80 % of folders": row["images_80"] or "over 400",
            "in 95 %": row["images_95"] or "over 400",
        }
        for row in site["distances"]
    ]
    about = f"The test whether a folder is of the certified hospitals takes {site['least']} images, without labels"
    if rows:
        lines += ["", f"{about} (other hospitals lay at 5 and more):", "", markdown_table(rows)]
    else:
        lines += ["", f"{about}. What more images gain depends on the model's reference."]
    return "\n".join([*lines, DISCLAIMER])


def _drawer_lines(drawer: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    kind = drawer["kind"]
    own, worth = _OWN[kind], _WORTH[kind]
    advice = drawer["advice"]
    near = (
        f"within {plan['within']:g} of the {worth} that endless patients would give ({drawer['limit']:.2f})."
    )
    how_many = (
        "Not even thousands would come" if advice is None else f"With {advice}, 19 of 20 calibrations come"
    )
    rows = [
        {
            f"{own} patients": row["n"],
            "errors allowed": row["errors_allowed"],
            f"{worth}, median": f"{row['median']:.2f}",
            "5 to 95 %": f"{row['low']:.2f}-{row['high']:.2f}",
            **({"patients to read": drawer["readings"][number]} if drawer["readings"] else {}),
            "": {drawer["least"]: "least", advice: "advice"}.get(row["n"], ""),
        }
        for number, row in enumerate(drawer["rows"])
    ]
    note = []
    if drawer["readings"]:
        note = [
            "",
            f"So many patients, read at random, hold so many {own} with 95 % confidence where "
            f"{100 * plan['prevalence']:.3g} % are sick.",
        ]
    return [
        f"{kind}: a {_PROMISED[kind]} of {100 * drawer['target']:g} % at {100 * drawer['confidence']:g} % confidence "
        f"takes at least {drawer['least']} {own} patients. {how_many} {near}",
        "",
        markdown_table(rows),
        *note,
    ]


def labelling_report(drawn: Mapping[str, Any], path: str) -> str:
    """Say what a labelling list holds, and what it is good for."""
    lines = [
        f"{path}: {drawn['drawn']} of {counted(drawn['patients'], 'patient')} drawn, {drawn['listed']} of "
        f"{counted(drawn['images'], 'image')}. Fill in the column label; the order tells nothing."
    ]
    if drawn["by_score"]:
        lines.append(
            f"Drawn at random: {counted(drawn['certify'], 'patient')} (split val). They alone certify. Drawn by score: "
            f"{drawn['by_score']} (split train), to adapt or train a model. Hide drawn and weight from the reader: "
            "they betray the score."
        )
    else:
        lines.append("All were drawn at random, so all of them may certify.")
    if drawn["nameless"]:
        lines.append(
            f"{counted(drawn['nameless'], 'image names', 'images name')} no patient, so each counts as a "
            "patient of its own: give a list with "
            "patient_id where patients have several."
        )
    needed, chance = drawn["needed"], drawn["chance"]
    takes = " and ".join(f"{n} {name}" for name, n in needed.items())
    hope = ", ".join(f"enough {name} with a chance of {100 * one:.3g} %" for name, one in chance.items())
    lines.append(
        f"The promises take at least {takes} patients among those drawn at random"
        + (
            f": there will be {hope}."
            if chance
            else "; give --prevalence to learn how likely they are there."
        )
    )
    if drawn["unjudged"]:
        lines.append(
            f"Nobody was drawn for {counted(sum(drawn['unjudged'].values()), 'image')} that the model cannot judge: "
            f"{counts_text(drawn['unjudged'])}."
        )
    return "\n".join([*lines, DISCLAIMER])


def plot_plan(plan: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw what a certificate is worth against the number of patients, with its range: one panel a drawer.

    Errors as of :func:`~histcxr.reports.drawing.check_picture`; OutputError: the picture cannot be written.
    """
    check_picture(path)
    figure = new_figure(3.8)
    for axis, kind in zip(figure.subplots(1, 2), ("rule_out", "rule_in"), strict=True):
        drawer = plan[kind]
        n, low, median, high = (
            [row[key] for row in drawer["rows"]] for key in ("n", "low", "median", "high")
        )
        axis.fill_between(n, low, high, color=BLUE, alpha=0.2, lw=0, label="5 to 95 % of calibrations")
        axis.plot(n, median, "o-", ms=4, color=BLUE, label="median")
        axis.axhline(drawer["limit"], color=GREY, ls=":", lw=1, label="endless patients")
        if (advice := drawer["advice"]) is not None:
            axis.axvline(advice, color=RED, ls="--", lw=1, label=f"advice: {advice}")
        axis.set_xscale("log")
        ticks = [one for one in n if one != advice or one == drawer["least"]]
        axis.set_xticks(ticks, [str(one) for one in ticks], rotation=45)
        axis.minorticks_off()
        axis.set_ylim(0, 1)
        title = f"{_PROMISED[kind]} {100 * drawer['target']:g} % promised"
        label_axes(axis, f"{_OWN[kind]} calibration patients", f"{_WORTH[kind]} of {kind}", title)
        axis.legend(fontsize="x-small")
    return save_figure(figure, path)
