"""Pictures of a network's training and test. Matplotlib is an extra: it is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histcxr.reports.plots import require_matplotlib

__all__ = ["plot_calls", "plot_history"]

_BLUE, _RED, _GREY = "#1f5fa8", "#b3261e", "#767676"


def plot_history(report: Mapping[str, Any], path: Path) -> Path:
    """Draw loss and accuracy by epoch, in training and on the images held out to stop.

    Parameters
    ----------
    report : mapping
        ``history`` (lists by name) and ``best_epoch``, from 1, as
        :func:`~histcxr.study.network_train.train_reference` gives them.
    path : Path
        The picture to write; its suffix names the format.

    Returns
    -------
    Path
        The same.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    history = report["history"]
    epochs = np.arange(1, len(history["loss"]) + 1)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[name], "o-", ms=3, color=_BLUE, label="training")
        if f"val_{name}" in history:
            axis.plot(epochs, history[f"val_{name}"], "o-", ms=3, color=_RED, label="held out")
            axis.axvline(report["best_epoch"], color=_GREY, ls=":", lw=1, label="kept")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=130)
    return path


def plot_calls(figures: Mapping[str, Any], path: Path) -> Path:
    """Draw the confusion matrix and the ROC curves.

    Parameters
    ----------
    figures : mapping
        From :func:`~histcxr.study.class_figures.class_figures`.
    path : Path

    Returns
    -------
    Path
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    matrix, names = np.asarray(figures["matrix"]), figures["names"]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if shares[row, column] > 0.5 else "black"
        left.text(column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)
    left.set_xticks(range(len(names)), names, rotation=20, ha="right")
    left.set_yticks(range(len(names)), names)
    left.set_xlabel("called")
    left.set_ylabel("truth")
    areas = {row["class"]: row["auc"] for row in figures["classes"]}
    for name, curve in figures["roc"].items():
        right.plot(curve["fpr"], curve["tpr"], label=f"{name}, AUC {areas[name]:.3f}")
    right.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1)
    right.set_xlabel("1 - specificity")
    right.set_ylabel("sensitivity")
    right.grid(alpha=0.25)
    if figures["roc"]:
        right.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=130)
    return path
