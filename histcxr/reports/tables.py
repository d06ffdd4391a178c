"""Tables that are Markdown too, and figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Lay out rows as an aligned Markdown table, numbers to the right, floats with three decimals.

    Columns are those of the first row unless they are given; a missing key is an empty cell.
    """
    columns = list(columns) if columns is not None else list(rows[0]) if rows else []
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    numeric = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    widths = [max(3, len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rules = [
        "-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(columns), f"|{'|'.join(rules)}|", *(line(row) for row in cells)])


def interval_text(value: float, low: float, high: float) -> str:
    """Write an estimate with its interval, ``0.912 (0.897-0.925)``."""
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def auc_text(figures: Mapping[str, Any]) -> str:
    """Write the AUC with its interval, or why there is none."""
    if figures["auc"] is None:
        return "too few patients"
    return interval_text(figures["auc"], figures["auc_low"], figures["auc_high"])


def estimate_text(estimate: Mapping[str, Any] | None) -> str:
    """Write an estimate, or that there is nobody to count."""
    if not estimate:
        return "nobody to count"
    return interval_text(estimate["value"], estimate["low"], estimate["high"])


def counts_text(counts: Mapping[str, int]) -> str:
    """Write how many there are of each, ``3 AP, 5 PA``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
