"""What a CSV list of images must look like, whether it is read whole or as a stream."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence

from histcxr.exceptions import InputError


def check_columns(header: Sequence[str], path: str) -> list[str]:
    """Column names of a list of images, trimmed.

    Parameters
    ----------
    header : sequence of str
        The first row of the file.
    path : str
        Its name, for messages.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        When the column ``image`` is missing or a column is there twice.
    """
    columns = [column.strip() for column in header]
    if "image" not in columns:
        hint = ""
        if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
            hint = " (values must be separated by commas)"
        raise InputError(f"{path!r} must have a column 'image'; it has {columns}{hint}")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise InputError(f"{path!r} must not have a column twice; it repeats {repeated}")
    return columns


def locate(value: str, folder: str) -> str:
    """Absolute path of a path that is relative to ``folder``; ``""`` stays ``""``."""
    return os.path.abspath(os.path.join(folder, value)) if value else ""


def read_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV list of images as a stream.

    Parameters
    ----------
    path : str
        A file of comma-separated values in UTF-8 (bytes that are not become surrogate escapes, as in file
        names).

    Yields
    ------
    line : int
        Number of the line that ends here.
    row : list of str
        First the column names, then each row with as many values. Empty lines are passed over.

    Raises
    ------
    InputError
        When the columns are wrong, a row has another number of values, or its image is empty.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(stream)
        try:
            columns = check_columns(next(rows, []), path)
            image = columns.index("image")
            yield rows.line_num, columns
            for row in rows:
                if not row:
                    continue
                if len(row) != len(columns):
                    found = f"{len(row)} values for {len(columns)} columns"
                    raise InputError(f"{path!r}, line {rows.line_num}: {found}")
                if not row[image]:
                    raise InputError(f"{path!r}, line {rows.line_num}: the column 'image' is empty")
                yield rows.line_num, row
        except csv.Error as error:  # e.g. a value larger than any path
            raise InputError(f"{path!r}, line {rows.line_num}: {error}") from error
