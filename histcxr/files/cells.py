"""Text that somebody else chose, such as a file name, made safe where it is shown: on a terminal, in a spreadsheet.

A CSV will be opened in a spreadsheet: a cell that starts like a formula gets a leading apostrophe, and so does one that
starts with an apostrophe, so that a script gets the text back by taking one away (:func:`unguarded`; histcxr does it
itself in every list that it reads). A terminal obeys control characters: they are shown as escapes.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from histcxr.files.writing import replacing

if TYPE_CHECKING:
    import pandas as pd

# What spreadsheets take for the start of a formula, full-width forms included, or cut off before looking.
_RISKY_STARTS = tuple("=+-@\t\r\n＝＋－＠")
# A formula may also start where another separator makes a new cell of the middle of this one.
_RISKY_MIDDLE = re.compile(r"([;|])(\s*)(?=[=+\-@＝＋－＠])")
_NEEDS_QUOTES = re.compile(r'[",;|\t\r\n]|^\s|\s$')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters but tab and line end, and those that turn the direction of writing (Unicode's Bidi_Control).
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Show what is not Unicode in a text, as ``\xff`` for a foreign byte of a file name."""
    return _SURROGATE.sub(_escape, text)


def shown(text: str) -> str:
    r"""Show also what a terminal would obey: ESC as ``\x1b``, a character that turns the writing as ``\u202e``."""
    return _OBEYED.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    # Python keeps the foreign byte 0xff of a name as the character U+DCFF.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def guarded(text: str) -> str:
    """Make a text safe to open in a spreadsheet: an apostrophe before anything that looks like a formula."""
    return f"'{text}" if text.startswith((*_RISKY_STARTS, "'")) else text


def unguarded(cell: str) -> str:
    """Undo :func:`guarded`; other apostrophes stay."""
    return cell[1:] if cell[:1] == "'" and guarded(cell[1:]) == cell else cell


def sentence(text: str) -> str:
    """Make a text for readers one line, without the start of a formula behind another separator."""
    return _RISKY_MIDDLE.sub(r"\1\2'", _CONTROL.sub(" ", text))


def csv_line(values: Iterable[str | float | None]) -> str:
    r"""Return a line of a CSV, with ``\n``: text guarded, numbers as they are, None empty.

    Text is quoted where the comma, or a separator that a spreadsheet may assume instead, could split it.
    """
    return ",".join(_cell(value) for value in values) + "\n"


def _cell(value: str | float | None) -> str:
    if not isinstance(value, str):
        return "" if value is None else repr(value)
    text = guarded(value)
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV (UTF-8, foreign bytes of names as they are), all text quoted and guarded."""
    safe = table.copy(deep=False).set_axis([guarded(str(name)) for name in table.columns], axis=1)
    for place, kind in enumerate(table.dtypes):
        if kind.kind not in "biuf":
            cells = [guarded(value) if isinstance(value, str) else value for value in table.iloc[:, place]]
            safe.isetitem(place, cells)
    with replacing(path) as unfinished:
        safe.to_csv(
            unfinished,
            index=False,
            lineterminator="\n",
            encoding="utf-8",
            errors="surrogateescape",
            quoting=csv.QUOTE_NONNUMERIC,
        )
