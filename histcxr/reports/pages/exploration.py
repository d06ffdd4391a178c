"""The page about a data set: what :func:`histcxr.explore` found, to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.reports.drawing import Display
from histcxr.reports.image_displays import ClassBalanceDisplay, DistributionDisplay, HistogramDisplay
from histcxr.reports.page import embedded, png, polyline, svg, write_page

_SMALL = (3.4, 2.5)


@dataclass(frozen=True, eq=False)
class Example:
    """One image to look at: ``pixels`` and ``masked`` (black outside the lungs), uint8; ``counts``, int64 (256,)."""

    label: str
    file: str
    pixels: NDArray[np.uint8] = field(repr=False)
    masked: NDArray[np.uint8] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)


def displays(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, Display, tuple[float, float]]]:
    """Yield every plot of an exploration: file name, what it shows, display and size in inches."""
    height = 1.5 + 0.35 * len(figures["classes"])
    yield "balance", "images of each class by source", ClassBalanceDisplay(figures["classes"]), (4.4, height)
    if any(set(row) != {""} for row in figures["splits"].values()):
        splits = ClassBalanceDisplay(figures["splits"], "split")
        yield "splits", "images of each class by split", splits, (4.4, height)
    share = figures["mask_share"]
    spread = {name: one["shares"] for name, one in share["classes"].items()}
    shown = DistributionDisplay(share["edges"], spread, "share of the image that the lungs cover")
    yield "mask-share", "how much of the image the lungs cover, by class", shown, (4.4, 3.2)
    for number, (zone, classes) in enumerate(figures["histograms"].items()):
        title = "both lungs" if zone == "lungs" else zone.replace("_", " ")
        words = f"histograms of the classes: {title}"
        size = (4.4, 3.4) if number == 0 else _SMALL
        yield (
            f"histogram-{zone}",
            words,
            HistogramDisplay(classes, title if number else "", legend=number == 0),
            size,
        )


def draw_pictures(figures: Mapping[str, Any], folder: Path) -> list[str]:
    """Write every plot as a PNG file; return their names."""
    names = []
    for name, _, display, size in displays(figures):
        names.append(f"{name}.png")
        png(display, folder / names[-1], size)
    return names


def write_exploration(
    figures: Mapping[str, Any],
    means: Mapping[str, NDArray[np.uint8]],
    examples: Sequence[Example],
    path: Path,
) -> None:
    """Write the page."""
    plots = {name: svg(display, words, size) for name, words, display, size in displays(figures)}
    content = {
        "figures": figures,
        "balance": [plots[name] for name in ("balance", "splits") if name in plots],
        "share_plot": plots["mask-share"],
        "whole": plots["histogram-lungs"],
        "zones": [
            plot
            for name, plot in plots.items()
            if name.startswith("histogram-") and name != "histogram-lungs"
        ],
        **tables(figures),
        "means": {name: embedded(mean, 128) for name, mean in means.items()},
        "examples": [
            {
                "label": one.label,
                "file": one.file,
                "pixels": embedded(one.pixels),
                "masked": embedded(one.masked),
                "points": _points(one.counts),
            }
            for one in examples
        ],
    }
    write_page(path, "explore.html", content)


def tables(figures: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return every table of an exploration, by name: rows of column to cell."""
    return {
        "classes": _counted(figures["classes"], "no source said"),
        "splits": _counted(figures["splits"], "no split said"),
        "intensity": [_intensity_row(row) for row in figures["intensity"]],
        "by_source": [
            {"source": row["source"], **_intensity_row(row)} for row in figures["intensity_by_source"]
        ],
        "shares": [
            {
                "class": name,
                "images": one["images"],
                "mean ± spread": f"{100 * one['mean']:.1f} ± {100 * one['spread']:.1f} %",
                "5 % to 95 %": f"{100 * one['p05']:.1f} to {100 * one['p95']:.1f} %",
            }
            for name, one in figures["mask_share"]["classes"].items()
        ],
    }


def _intensity_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "class": row["class"],
        "images": row["images"],
        "mean grey level": f"{row['mean']:.1f} ± {row['mean_spread']:.1f}",
        "its standard deviation": f"{row['deviation']:.1f} ± {row['deviation_spread']:.1f}",
    }


def _counted(counts: Mapping[str, Mapping[str, int]], nothing: str) -> list[dict[str, Any]]:
    parts = sorted({part for row in counts.values() for part in row})
    return [
        {
            "class": name,
            "images": sum(row.values()),
            **{part or nothing: row.get(part, 0) for part in parts},
        }
        for name, row in counts.items()
    ]


def _points(counts: NDArray[np.int64]) -> str:
    wide = counts.reshape(64, -1).sum(axis=1).astype(float)
    return polyline(wide, float(wide.max()))
