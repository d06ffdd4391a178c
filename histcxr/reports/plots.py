"""Results as pictures. Matplotlib is an extra: it is imported when a picture is drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histcxr.exceptions import counted
from histcxr.files.writing import write_error
from histcxr.reports.displays import ConfusionDisplay, HistoryDisplay, RocDisplay
from histcxr.reports.drawing import BLUE, GREY, RED, label_axes, legend_above, new_figure, save_figure, short
from histcxr.reports.image_displays import GradCamDisplay, colour_key

_COLUMNS = 6


def plot_trials(trials: pd.DataFrame, path: Path) -> Path:
    """Draw the trials of a search (of :class:`~histcxr.networks.search.TuningResult`): score and cost of each."""
    names = list(dict.fromkeys(trials["classifier"]))
    figure = new_figure(0.6 + 2.9 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), name in zip(axes, names, strict=True):
        _draw_classifier(left, right, name, trials[trials["classifier"] == name])
    return save_figure(figure, path)


def plot_history(report: Mapping[str, Any], path: Path) -> Path:
    """Draw loss and accuracy by epoch: ``history`` of :func:`~histcxr.study.network_train.train_reference`'s report."""
    figure = new_figure(3.4)
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        HistoryDisplay(report["history"], name, report.get("best_epoch")).plot(axis)
    learnt = sum(report.get("learnt_from", {}).values())
    figure.suptitle(
        f"{report.get('architecture', 'network')}, learnt from {counted(learnt, 'image')}", fontsize="medium"
    )
    return save_figure(figure, path)


def plot_calls(figures: Mapping[str, Any], path: Path, about: str = "") -> Path:
    """Draw confusion matrix and ROC curves of a network's ``classes``; ``about`` names model and data in the title."""
    figure = new_figure(4)
    left, right = figure.subplots(1, 2)
    ConfusionDisplay(figures["matrix"], figures["names"]).plot(left)
    title = ", ".join(filter(None, (about, counted(int(np.sum(figures["matrix"])), "image"))))
    figure.suptitle(title.replace("$", r"\$"), fontsize="medium")
    areas = {row["class"]: row["auc"] for row in figures["classes"]}
    for number, (name, curve) in enumerate(figures["roc"].items()):
        RocDisplay({**curve, "auc": areas[name]}, f"{name},", number=number).plot(right)
    if not figures["roc"]:
        right.set_title("one class only: no ROC curve", loc="left", fontsize="medium")
    return save_figure(figure, path)


def plot_evaluation(result: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Draw what :func:`histcxr.evaluate` found of a network, as a whole and of each group; name the pictures.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    parts = {"all": result["overall"]}
    for column, groups in result["groups"].items():
        parts |= {f"{column}-{value or 'unknown'}": figures for value, figures in groups.items()}
    files = {name: Path(folder) / (re.sub(r"[^\w.-]+", "_", name) + ".png") for name in parts}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    for name, figures in parts.items():
        about = f"{result['model']['name']}, split {result['split']}, {name}"
        plot_calls(figures["classes"], files[name], about)
    return ", ".join(map(str, files.values()))


def plot_map_grid(
    displays: Sequence[GradCamDisplay], labels: Sequence[str], path: Path, about: str = ""
) -> Path:
    """Draw Grad-CAM maps by label, six of each at most: a row of radiographs, below it the same with their maps."""
    shown = {name: [i for i, label in enumerate(labels) if label == name][:_COLUMNS] for name in labels}
    width = max(map(len, shown.values()))
    figure = new_figure(0.5 + 3.9 * len(shown), 1.6 + 1.8 * width)
    axes = figure.subplots(2 * len(shown), width, squeeze=False)
    for row, (name, chosen) in enumerate(shown.items()):
        for column, (bare, mapped) in enumerate(zip(*axes[2 * row : 2 * row + 2], strict=True)):
            bare.set_axis_off()
            mapped.set_axis_off()
            if column < len(chosen):
                display = displays[chosen[column]]
                bare.imshow(display.pixels, cmap="gray", vmin=0, vmax=255)
                last = replace(display, key=False, name="").plot(mapped)
        axes[2 * row, 0].set_title(short(name), loc="left", fontsize="medium", fontweight="bold")
    colour_key(last.shown_, axes)
    figure.suptitle(about.replace("$", r"\$"), fontsize="medium")
    return save_figure(figure, path)


def _draw_classifier(left: Any, right: Any, name: str, table: pd.DataFrame) -> None:
    fine = table[table["status"] == "ok"]
    failed = table[table["status"] != "ok"]
    whole = fine["images"] == fine["images"].max()
    for axis, x in ((left, "trial"), (right, "seconds")):
        axis.plot(fine[x][whole], fine["score"][whole], "o", color=BLUE, label="on all its images")
        if not whole.all():
            axis.plot(
                fine[x][~whole], fine["score"][~whole], "o", mfc="none", color=GREY, label="stopped early"
            )
        label_axes(axis, x, "AUC, patients not learnt from")
    left.xaxis.get_major_locator().set_params(integer=True)
    defaults = fine[fine["trial"] == 0]
    if len(defaults):
        left.axhline(float(defaults["score"].iloc[0]), color=GREY, ls=":", lw=1, label="defaults")
    if whole.any():
        left.step(
            fine["trial"][whole],
            np.maximum.accumulate(fine["score"][whole]),
            where="post",
            color=BLUE,
            lw=1,
            alpha=0.6,
            label="best so far",
        )
    if len(failed):
        low = fine["score"].min() if len(fine) else 0.5
        left.plot(failed["trial"], [low] * len(failed), "x", color=RED, label=f"failed ({len(failed)})")
    left.set_xlabel("trial (0: the defaults)")
    right.set_title(f"{name}: {counted(len(table), 'trial')}", loc="left", fontsize="medium")
    legend_above(left, 3)
