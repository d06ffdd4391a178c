"""Plots of radiographs and what is counted in them; see :mod:`histcxr.reports.displays`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.features.histograms import BINS, zone_labels
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
)


@dataclass
class ClassBalanceDisplay(Display):
    """Images of each class, in parts: ``counts[class][part]``."""

    counts: Mapping[str, Mapping[str, int]]
    part: str = "source"

    def _draw(self, ax: Any) -> None:
        names = list(self.counts)[::-1]
        parts = sorted({part for row in self.counts.values() for part in row})
        left = np.zeros(len(names))
        for number, part in enumerate(parts):
            values = np.array([self.counts[name].get(part, 0) for name in names], float)
            colour = class_style(number)["color"]
            hatch = ("", "//", "..", "xx")[number % 4]
            label = short(part or f"no {self.part} said")
            ax.barh(
                range(len(names)),
                values,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="#ffffff88",
                label=label,
            )
            left += values
        ax.set_yticks(range(len(names)), [short(name) for name in names])
        label_axes(ax, "images", "")
        legend_above(ax)


@dataclass
class DistributionDisplay(Display):
    """How a number is spread in each class: ``edges`` (k + 1,), and shares (k,) by class, normal first."""

    edges: Sequence[float]
    shares: Mapping[str, Sequence[float]]
    label: str

    def _draw(self, ax: Any) -> None:
        for number, (name, values) in enumerate(self.shares.items()):
            ax.stairs(np.asarray(values) * 100, self.edges, label=short(name), lw=1.5, **class_style(number))
        label_axes(ax, self.label, "% of the class's images")
        legend_above(ax)


@dataclass
class HistogramDisplay(Display):
    """Lung histograms of classes, overlaid: ``histograms[class]`` has ``mean``, ``low`` and ``high``, each (bins,).

    In % of the lung's pixels for each grey level; the bands hold the middle half of the images. ``legend`` can be
    left out where several panels share one.
    """

    histograms: Mapping[str, Mapping[str, Sequence[float]]]
    title: str = ""
    legend: bool = True

    @classmethod
    def from_counts(
        cls, counts: NDArray[np.integer], labels: ArrayLike, *, title: str = "", ax: Any = None
    ) -> HistogramDisplay:
        """Compute and draw from one zone's counts, int (n, 256), and the class of each image (n,)."""
        names = np.asarray(labels, dtype=object).astype(str)
        found = {name: histogram_band(counts[names == name]) for name in dict.fromkeys(names.tolist())}
        return cls(found, title).plot(ax)

    def _draw(self, ax: Any) -> None:
        for number, (name, band) in enumerate(self.histograms.items()):
            style = class_style(number)
            centres = (np.arange(len(band["mean"])) + 0.5) * 256 / len(band["mean"])
            ax.fill_between(centres, band["low"], band["high"], color=style["color"], alpha=0.13, lw=0)
            ax.plot(centres, band["mean"], lw=1.4, label=short(name), **style)
        ax.set_xlim(0, 255)
        ax.set_ylim(bottom=0)
        label_axes(ax, "grey level (0 to 255)", "% of lung pixels a level", self.title)
        if self.legend:
            legend_above(ax)


def histogram_band(counts: NDArray[np.integer], bins: int = 64) -> dict[str, list[float]]:
    """Return mean and quartiles of histograms, int (n, 256), in wide bins: % of the pixels for each grey level.

    Images without a pixel there are left out; zeros where all are.
    """
    wide = counts.reshape(len(counts), bins, -1).sum(axis=2).astype(np.float64)
    wide = wide[wide.sum(axis=1) > 0]
    if not len(wide):
        return {name: [0.0] * bins for name in ("mean", "low", "high")}
    density = 100 * wide / wide.sum(axis=1, keepdims=True) * bins / counts.shape[1]
    low, high = np.quantile(density, [0.25, 0.75], axis=0)
    rows = {"mean": density.mean(axis=0), "low": low, "high": high}
    return {name: [round(float(value), 5) for value in row] for name, row in rows.items()}


def grey_levels(
    counts: NDArray[np.integer], bins: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return of one histogram, int (256,), the shares of its pixels in wide bins, (bins,), and below each edge."""
    wide = counts.reshape(bins, -1).sum(axis=1) / max(1, counts.sum())
    return wide, np.concatenate([[0.0], np.cumsum(wide)])


@dataclass
class LevelsDisplay(Display):
    """The grey levels of one image's lungs, int (256,), against those of normal patients.

    ``band`` is as :func:`histcxr.worklist.pages.normal_band` returns it, None where nothing is known of them.
    """

    counts: NDArray[np.integer]
    band: Mapping[str, Sequence[float]] | None = None

    def _draw(self, ax: Any) -> None:
        wide, below = grey_levels(self.counts)
        edges = np.linspace(0, 256, len(below))
        if self.band is not None:
            levels = 100 * np.asarray(self.band["levels"])
            ax.fill_betweenx(
                levels,
                self.band["low"],
                self.band["high"],
                color=BLUE,
                alpha=0.25,
                lw=0,
                label="90 % of normal",
            )
            ax.plot(self.band["mean"], levels, color=BLUE, ls=":", lw=1.2, label="mean of normal")
        ax.plot(edges, 100 * below, color=RED, lw=1.5, label="this image, darker pixels")
        right = ax.twinx()
        right.stairs(100 * wide * len(wide) / BINS, edges, fill=True, color=GREY, alpha=0.35)
        ax.stairs([], [0], fill=True, color=GREY, alpha=0.35, label="this image, histogram")
        right.set_ylabel("% of lung pixels a level")
        ax.set_xlim(0, 255)
        ax.set_ylim(0, 100)
        label_axes(ax, "grey level (0 to 255)", "% of lung pixels that are darker")
        legend_above(ax)


@dataclass
class LungsDisplay(Display):
    """A radiograph, uint8 (height, width), with the outline of its lungs and zones: ``zones``, uint8, 0 outside."""

    pixels: NDArray[np.uint8]
    zones: NDArray[np.uint8]
    name: str = ""

    @classmethod
    def from_mask(
        cls,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        *,
        zones: int = 6,
        name: str = "",
        ax: Any = None,
    ) -> LungsDisplay:
        """Divide the lungs of a mask, bool (height, width), and draw."""
        return cls(pixels, zone_labels(mask, zones), name).plot(ax)

    def _draw(self, ax: Any) -> None:
        ax.imshow(self.pixels, cmap="gray", vmin=0, vmax=255)
        for zone in np.unique(self.zones[self.zones > 0]):
            ax.contour(self.zones == zone, [0.5], colors=[ORANGE], linewidths=0.8)
        ax.set_axis_off()
        if self.name:
            ax.set_title(short(self.name), loc="left", fontsize="small")


@dataclass
class GradCamDisplay(Display):
    """A Grad-CAM map, float (height, width) from 0 to 1, over its radiograph, with colour key, class and score.

    The stronger the response, the more colour and the less of the radiograph shows. The ``key`` can be left out where
    several pictures share one, made of ``shown_``, the map as drawn.
    """

    pixels: NDArray[np.uint8]
    cam: NDArray[np.floating]
    explained: str = ""
    score: float | None = None
    name: str = ""
    key: bool = True

    def _draw(self, ax: Any) -> None:
        ax.imshow(self.pixels, cmap="gray", vmin=0, vmax=255)
        self.shown_ = ax.imshow(self.cam, cmap="viridis", vmin=0, vmax=1, alpha=0.6 * np.asarray(self.cam))
        if self.key:
            colour_key(self.shown_, ax)
        score = "" if self.score is None else f"score {self.score:.3f}"
        about = ", ".join(filter(None, (self.explained and f"for {short(self.explained, 20)}", score)))
        ax.set_title("\n".join(filter(None, (short(self.name, 30), about))), loc="left", fontsize="small")
        ax.set_axis_off()


def colour_key(shown: Any, axes: Any) -> None:
    """Draw the key of a map beside its axes, one or several."""
    axes = np.atleast_1d(axes)
    place = axes.flat[0].figure
    place.colorbar(shown, ax=list(axes.flat), shrink=0.8, label="share of the strongest response")
