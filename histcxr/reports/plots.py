"""Results as pictures. Matplotlib is an extra: it is imported when a picture is drawn."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histcxr.exceptions import MissingDependencyError

__all__ = ["plot_trials", "require_matplotlib"]

_BLUE, _RED, _GREY = "#1f5fa8", "#b3261e", "#767676"


def require_matplotlib() -> None:
    """Refuse to begin what ends in a picture where none can be drawn.

    Raises
    ------
    MissingDependencyError
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib is needed to draw plots and cannot be imported ({error}); "
            "install it with: pip install histcxr[report]",
            name=error.name,
        ) from error


def plot_trials(trials: pd.DataFrame, path: Path) -> Path:
    """Draw the trials of a search: the score of each, the best so far, and what each cost.

    Parameters
    ----------
    trials : DataFrame
        As :attr:`histcxr.networks.search.TuningResult.trials`: ``classifier, trial, status, score, images, seconds``.
    path : Path
        The picture to write; its suffix names the format.

    Returns
    -------
    Path
        The same.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(trials["classifier"]))
    figure = Figure(figsize=(9, 0.6 + 2.9 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), name in zip(axes, names, strict=True):
        _draw_classifier(left, right, name, trials[trials["classifier"] == name])
    figure.savefig(path, dpi=130)
    return path


def _draw_classifier(left: Any, right: Any, name: str, table: pd.DataFrame) -> None:
    fine = table[table["status"] == "ok"]
    failed = table[table["status"] != "ok"]
    whole = fine["images"] == fine["images"].max()
    for axis, x in ((left, "trial"), (right, "seconds")):
        axis.plot(fine[x][whole], fine["score"][whole], "o", color=_BLUE, label="on all its images")
        if not whole.all():
            axis.plot(
                fine[x][~whole], fine["score"][~whole], "o", mfc="none", color=_GREY, label="stopped early"
            )
        axis.grid(alpha=0.25)
        axis.set_ylabel("AUC, patients not learnt from")
    defaults = fine[fine["trial"] == 0]
    if len(defaults):
        left.axhline(float(defaults["score"].iloc[0]), color=_GREY, ls=":", lw=1, label="defaults")
    if whole.any():
        left.step(
            fine["trial"][whole],
            np.maximum.accumulate(fine["score"][whole]),
            where="post",
            color=_BLUE,
            lw=1,
            alpha=0.6,
            label="best so far",
        )
    if len(failed):
        low = fine["score"].min() if len(fine) else 0.5
        left.plot(failed["trial"], [low] * len(failed), "x", color=_RED, label=f"failed ({len(failed)})")
    left.set_xlabel("trial (0: the defaults)")
    right.set_xlabel("seconds")
    left.set_title(f"{name}: {len(table)} trials", loc="left")
    left.legend(fontsize="small")
