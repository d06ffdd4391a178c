"""Results as text: tables that read well in a terminal and are Markdown at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def markdown_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Lay out rows as an aligned Markdown table.

    Parameters
    ----------
    rows : sequence of mappings
        One mapping a row; a missing key is an empty cell. Floats are shown with three decimals.
    columns : sequence of str, optional
        The columns and their order; by default the keys of the first row.

    Returns
    -------
    str
        Lines joined by newlines, without a trailing one. Numbers are right-aligned.
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

    rule = (
        "|"
        + "|".join(
            "-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
        )
        + "|"
    )
    return "\n".join([line(columns), rule, *(line(row) for row in cells)])


def interval_text(value: float, low: float, high: float) -> str:
    """Write an estimate with its interval, ``0.912 (0.897-0.925)``."""
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
