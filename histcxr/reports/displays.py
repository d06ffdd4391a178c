"""Plots of results, with the habits of scikit-learn's displays: ``from_predictions``, ``plot(ax=)``, ``ax_``.

A display holds figures that are computed already and draws them; ``from_predictions`` computes them first. So a page,
a notebook and a file on disk show the same numbers. Colours are Okabe's and Ito's, which colour-blind readers tell
apart; curves differ by their line, too. Matplotlib is an extra: it is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histcxr.decision import plotted
from histcxr.decision.curves import reliability_table
from histcxr.decision.thresholds import ThresholdChoice
from histcxr.reports.drawing import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Display,
    class_style,
    label_axes,
    legend_above,
    short,
    unit_square,
)
from histcxr.reports.image_displays import (
    ClassBalanceDisplay,
    DistributionDisplay,
    GradCamDisplay,
    HistogramDisplay,
    LevelsDisplay,
    LungsDisplay,
)

__all__ = [
    "CalibrationDisplay",
    "ClassBalanceDisplay",
    "ConfusionDisplay",
    "DecisionCurveDisplay",
    "DistributionDisplay",
    "GradCamDisplay",
    "GroupsDisplay",
    "HistogramDisplay",
    "HistoryDisplay",
    "ImportanceDisplay",
    "LevelsDisplay",
    "LungsDisplay",
    "PredictiveValueDisplay",
    "RocDisplay",
    "ScoreDisplay",
]


@dataclass
class _FiguresDisplay(Display):
    """A display of what one function computes from truth and scores: its ``figures``."""

    figures: Any
    compute: ClassVar[Callable[..., Any]]

    @classmethod
    def from_predictions(cls, sick: ArrayLike, scores: ArrayLike, *, ax: Any = None, **how: Any) -> Self:
        """Compute and draw from truth and scores (or calls, bool), both (n,); ``how`` goes to what computes."""
        return cls(cls.compute(scores, sick, **how)).plot(ax)


@dataclass
class RocDisplay(Display):
    """The ROC curve with its band: as :func:`~histcxr.decision.plotted.roc` returns it.

    Of a curve without a band ``fpr, tpr`` and ``auc`` do. ``marks`` are points to mark: name to (sensitivity,
    specificity); ``number`` chooses colour and line where several curves share the axes.
    """

    figures: Mapping[str, Any]
    name: str = ""
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    number: int = 0

    @classmethod
    def from_predictions(
        cls,
        sick: ArrayLike,
        scores: ArrayLike,
        *,
        patient_ids: ArrayLike | None = None,
        name: str = "",
        ax: Any = None,
    ) -> RocDisplay:
        """Compute and draw from truth and scores, both (n,); see :func:`~histcxr.decision.plotted.roc`."""
        return cls(plotted.roc(scores, sick, patient_ids=patient_ids), name).plot(ax)

    def _draw(self, ax: Any) -> None:
        found, style = self.figures, class_style(self.number)
        area = f"AUC {found['auc']:.3f}"
        if "low" in found:
            area += f" ({found['auc_low']:.3f}-{found['auc_high']:.3f})"
            band = {"color": style["color"], "alpha": 0.2, "lw": 0, "label": "95 % band"}
            ax.fill_between(found["grid"], found["low"], found["high"], **band)
        ax.plot(found["fpr"], found["tpr"], label=f"{self.name} {area}".strip(), **style)
        if not self.number:
            ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label="chance")
        for (name, (sensitivity, specificity)), shape in zip(self.marks.items(), "os^v", strict=False):
            ax.plot([1 - specificity], [sensitivity], shape, color=RED, ms=5, label=name, clip_on=False)
        unit_square(ax)
        label_axes(ax, "1 - specificity", "sensitivity")
        ax.legend(frameon=False, fontsize="small", loc="lower right")


@dataclass
class ScoreDisplay(Display):
    """How scores are spread, by class, with the thresholds: fields of :func:`~histcxr.decision.plotted.score_spread`.

    ``thresholds`` maps a drawer's name to its threshold, None where nobody is sorted into it.
    """

    figures: Mapping[str, Any]
    thresholds: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def from_predictions(
        cls,
        sick: ArrayLike,
        scores: ArrayLike,
        *,
        rule_out: ThresholdChoice | None = None,
        rule_in: ThresholdChoice | None = None,
        ax: Any = None,
    ) -> ScoreDisplay:
        """Compute and draw from truth and scores, both (n,), and thresholds where there are any."""
        given = {"rule_out": rule_out, "rule_in": rule_in}
        limits = {kind: one.threshold for kind, one in given.items() if one is not None and one.certified}
        return cls(plotted.score_spread(scores, sick), limits).plot(ax)

    def _draw(self, ax: Any) -> None:
        edges = np.asarray(self.figures["edges"])
        for number, name in enumerate(name for name in self.figures if name != "edges"):
            ax.stairs(self.figures[name], edges, label=name, lw=1.6, **class_style(number))
        for kind, shape in (("rule_out", "--"), ("rule_in", "-.")):
            limit = self.thresholds.get(kind)
            if limit is not None:
                ax.axvline(limit, color=GREY, ls=shape, lw=1.4, label=f"{kind} {limit:.3f}")
        ax.set_xlim(0, 1)
        ax.yaxis.get_major_locator().set_params(integer=True)
        label_axes(ax, "score (of being sick)", "images")
        legend_above(ax)


@dataclass
class CalibrationDisplay(_FiguresDisplay):
    """Predicted against observed shares of sick: :func:`~histcxr.decision.curves.reliability_table`."""

    compute = staticmethod(reliability_table)

    def _draw(self, ax: Any) -> None:
        rows = pd.DataFrame(self.figures)
        x, y, low, high = (rows[key] for key in ("predicted", "observed", "observed_low", "observed_high"))
        ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label="perfect")
        errors = np.maximum(0, [y - low, high - y])
        ax.errorbar(
            x, y, errors, fmt="o-", ms=4, lw=1.2, capsize=2, color=BLUE, label="observed, 95 % interval"
        )
        unit_square(ax)
        label_axes(ax, "predicted share of sick", "observed share of sick")
        legend_above(ax)


@dataclass
class DecisionCurveDisplay(_FiguresDisplay):
    """Net benefit over the threshold probability: :func:`~histcxr.decision.plotted.decision_curve`."""

    compute = staticmethod(plotted.decision_curve)

    def _draw(self, ax: Any) -> None:
        found = self.figures
        at = found["at"]
        ax.plot(at, found["treat_all"], color=ORANGE, ls="--", lw=1.2, label="work up everybody")
        ax.axhline(0, color=GREY, ls=":", lw=1.2, label="nobody")
        ax.plot(at, found["model"], color=BLUE, label="as the score says")
        top = max(found["prevalence"], *found["model"])
        ax.set_xlim(0, 1)
        ax.set_ylim(-0.25 * top, 1.1 * top)
        label_axes(ax, "threshold probability", "net benefit (true positives a patient)")
        legend_above(ax)


@dataclass
class PredictiveValueDisplay(_FiguresDisplay):
    """NPV or PPV of calls over the share of sick: :func:`~histcxr.decision.plotted.predictive_values`."""

    compute = staticmethod(plotted.predictive_values)

    def _draw(self, ax: Any) -> None:
        found, name = self.figures, self.figures["kind"].upper()
        colour = BLUE if name == "NPV" else RED
        ax.fill_between(found["prevalence"], found["low"], found["high"], color=colour, alpha=0.2, lw=0)
        ax.plot(found["prevalence"], found["value"], color=colour, label=f"{name}, 95 % interval")
        ax.axvline(found["here"], color=GREY, ls=":", lw=1, label=f"these data ({found['here']:.0%} sick)")
        unit_square(ax)
        label_axes(ax, "share of sick (prevalence)", name)
        legend_above(ax)


@dataclass
class ConfusionDisplay(Display):
    """A confusion matrix: counts (k, k), rows are the truth, columns the calls; ``names`` and ``called`` name them."""

    matrix: Sequence[Sequence[int]]
    names: Sequence[str]
    called: Sequence[str] = ()

    @classmethod
    def from_predictions(
        cls, truth: ArrayLike, calls: ArrayLike, *, names: Sequence[str] | None = None, ax: Any = None
    ) -> ConfusionDisplay:
        """Count and draw true and called labels, both (n,); of two columns of booleans True is sick."""
        from sklearn.metrics import confusion_matrix

        given = np.unique(np.concatenate([np.asarray(truth), np.asarray(calls)]))
        counts = confusion_matrix(truth, calls, labels=given)
        return cls(counts.tolist(), names or [str(one) for one in given]).plot(ax)

    def _draw(self, ax: Any) -> None:
        matrix, called = np.asarray(self.matrix), self.called or self.names
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(matrix):
            colour = "#fffffe" if shares[row, column] > 0.5 else "#000001"
            text = f"{count}\n{shares[row, column]:.0%}"
            ax.text(column, row, text, ha="center", va="center", color=colour)
        turned = {"rotation": 20, "ha": "right"} if len(called) > 3 else {}
        ax.set_xticks(range(len(called)), called, **turned)
        ax.set_yticks(range(len(self.names)), self.names)
        ax.set_xlabel("called")
        ax.set_ylabel("truth")


@dataclass
class GroupsDisplay(Display):
    """One figure of several groups with intervals: rows with ``name``, ``value``, ``low``, ``high``."""

    rows: Sequence[Mapping[str, Any]]
    label: str
    target: float | None = None

    def _draw(self, ax: Any) -> None:
        for place, row in enumerate(reversed(self.rows)):
            errors = np.maximum(0, [[row["value"] - row["low"]], [row["high"] - row["value"]]])
            ax.errorbar([row["value"]], [place], xerr=errors, fmt="o", ms=4, capsize=2, color=BLUE)
        ax.set_yticks(range(len(self.rows)), [short(row["name"]) for row in reversed(self.rows)])
        if self.target is not None:
            ax.axvline(self.target, color=RED, ls="--", lw=1, label=f"promised {self.target:g}")
        ax.set_ylim(-0.6, len(self.rows) - 0.4)
        label_axes(ax, f"{self.label}, 95 % interval", "")
        legend_above(ax)


@dataclass
class HistoryDisplay(Display):
    """One figure of a training by epoch, ``"loss"`` or ``"accuracy"``: ``history`` maps names to values by epoch.

    ``best`` is the epoch, from 1, that was kept of those that had patients held out.
    """

    history: Mapping[str, Sequence[float | None]]
    name: str
    best: int | None = None

    def _draw(self, ax: Any) -> None:
        for key, colour, label in ((self.name, BLUE, "training"), (f"val_{self.name}", RED, "held out")):
            values = [np.nan if value is None else value for value in self.history.get(key, ())]
            if values:
                ax.plot(np.arange(1, len(values) + 1), values, "o-", ms=3, color=colour, label=label)
        if self.best is not None and f"val_{self.name}" in self.history:
            ax.axvline(self.best, color=GREY, ls=":", lw=1, label="kept")
        ax.xaxis.get_major_locator().set_params(integer=True)
        label_axes(ax, "epoch", self.name)
        legend_above(ax, 3)


@dataclass
class ImportanceDisplay(Display):
    """Bars of what matters: rows with ``name``, ``value`` and, where known, ``spread``; ``label`` has the unit."""

    rows: Sequence[Mapping[str, Any]]
    label: str

    def _draw(self, ax: Any) -> None:
        rows = list(reversed(self.rows))
        values = [row["value"] for row in rows]
        spread = [row.get("spread", 0.0) for row in rows]
        ax.barh(range(len(rows)), values, xerr=spread, color=BLUE, ecolor=GREY, height=0.7)
        ax.set_yticks(range(len(rows)), [short(row["name"]) for row in rows])
        ax.axvline(0, color=GREY, lw=0.8)
        label_axes(ax, self.label, "")
