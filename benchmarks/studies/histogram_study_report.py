"""The histogram study's results as Markdown tables; from its records alone, with nothing measured."""

from __future__ import annotations

from itertools import combinations
from statistics import mean, median
from typing import Any

import pandas as pd

from histcxr.reports.text import interval_text, markdown_table

CELL = ("region", "representation", "classifier")


def markdown(records: dict[str, dict[str, Any]]) -> str:
    """Lay out everything that is known, key to figures, part by part."""
    parts = []
    for title, name, keys, lay_out in (
        ("Regions, representations, classifiers", "grid", CELL, _grid),
        ("What each choice is worth", "grid", CELL, _means),
        ("Chosen on the validation part", "grid", CELL, _chosen),
        ("How many radiographs", "learning", ("region", "classifier", "size", "repeat"), _learning),
        ("What breaks it", "robustness", ("region", "classifier", "alteration"), _robustness),
        ("Classifiers of series", "rivals", CELL, _rivals),
    ):
        rows = [
            {**dict(zip(keys, key.split("/")[1:], strict=True)), **record}
            for key, record in records.items()
            if key.startswith(f"{name}/")
        ]
        if rows:
            parts += [f"## {title}", *lay_out(pd.DataFrame(rows))]
    return "\n\n".join(parts)


def _grid(found: pd.DataFrame) -> list[str]:
    widths = (found["auc_high"] - found["auc_low"]) / 2
    parts = [
        f"Test AUC. Half-width of the intervals: {median(widths):.3f} (median), {max(widths):.3f} (largest)."
    ]
    for region, own in found.groupby("region", sort=False):
        rows = [
            {"representation": name, **dict(zip(cells["classifier"], cells["auc"], strict=True))}
            for name, cells in own.groupby("representation", sort=False)
        ]
        parts += [f"### {region}", markdown_table(rows)]
    return parts


def _means(found: pd.DataFrame) -> list[str]:
    """Mean AUC by region, representation and classifier, over the cells that all values of the axis share."""
    parts = []
    for others in reversed(list(combinations(CELL, 2))):
        [axis] = set(CELL) - set(others)
        shared = found.pivot(index=others, columns=axis, values="auc").dropna()
        if len(shared):
            rows = [{axis: value, "mean AUC": float(shared[value].mean())} for value in found[axis].unique()]
            parts += [markdown_table(rows), f"Over {len(shared)} cells each."]
    return parts


def _judged(row: Any, auc: str) -> dict[str, object]:
    area = interval_text(row.auc, row.auc_low, row.auc_high)
    return {
        auc: area,
        "accuracy": row.accuracy,
        "sensitivity": row.sensitivity,
        "specificity": row.specificity,
    }


def _chosen(found: pd.DataFrame) -> list[str]:
    best = found.loc[found.groupby("classifier", sort=False)["val_auc"].idxmax()]
    rows = [
        {
            **{name: getattr(row, name) for name in ("classifier", "region", "representation")},
            "AUC on val": row.val_auc,
            **_judged(row, "AUC on test"),
        }
        for row in best.itertuples()
    ]
    return ["For each classifier the cell with the highest AUC on val.", markdown_table(rows)]


def _learning(found: pd.DataFrame) -> list[str]:
    rows = []
    for (region, classifier), curve in found.groupby(["region", "classifier"], sort=False):
        row = {"region": region, "classifier": classifier}
        for size, repeats in curve.groupby("size", sort=False):
            low, high = min(repeats["auc"]), max(repeats["auc"])
            spread = f" ({low:.3f}-{high:.3f})" if len(repeats) > 1 else ""
            row[str(size)] = f"{mean(repeats['auc']):.3f}{spread}"
        rows.append(row)
    return ["Test AUC by the number of training images: mean (lowest-highest).", markdown_table(rows)]


def _robustness(found: pd.DataFrame) -> list[str]:
    parts = []
    for (region, classifier), own in found.groupby(["region", "classifier"], sort=False):
        rows = [
            {
                "alteration": row.alteration,
                "AUC": row.auc,
                "AUC lost": _lost(row),
                **{name: getattr(row, name) for name in ("sensitivity", "specificity", "refused")},
            }
            for row in own.itertuples()
        ]
        parts += [f"### {region}, {classifier}", markdown_table(rows)]
    return parts


def _lost(row: Any) -> str:
    if row.lost_method == "distribution-free":  # compare_auc had no variance: its interval is far too wide
        return f"{row.auc_lost:.3f} (no interval)"
    return interval_text(row.auc_lost, row.lost_low, row.lost_high)


def _rivals(found: pd.DataFrame) -> list[str]:
    rows = [
        {**{name: getattr(row, name) for name in CELL}, **_judged(row, "AUC")} for row in found.itertuples()
    ]
    return [markdown_table(rows)]
