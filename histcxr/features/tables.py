"""Extracted histograms as files that other tools read: Parquet, CSV or NumPy's npz."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from histcxr.exceptions import InputError, OutputError
from histcxr.features.extraction import Features
from histcxr.features.histograms import BINS

FORMATS = (".parquet", ".csv", ".npz")


def feature_frame(features: Features) -> pd.DataFrame:
    """Lay out histograms as a table: the manifest's columns, then one column a bin.

    Returns
    -------
    DataFrame, n rows
        Bins are named ``ZONE_000`` to ``ZONE_255`` (int64), e.g. ``right_upper_017``. File names that are not
        UTF-8 are shown with backslash escapes, so that every format can hold them.
    """
    bins = [f"{zone}_{k:03d}" for zone in features.recipe.names for k in range(BINS)]
    counts = pd.DataFrame(features.counts.reshape(len(features), -1), columns=bins)
    table = features.table.reset_index(drop=True)
    for column in table.columns[[dtype.kind == "O" for dtype in table.dtypes]]:
        table[column] = table[column].map(_writable)
    return pd.concat([table, counts], axis="columns")


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a table's path.

    Raises
    ------
    InputError
        When it is none of the formats.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"output must end in {', '.join(FORMATS)}, got {os.fspath(path)!r}")
    return suffix


def write_features(features: Features, path: str | os.PathLike[str]) -> None:
    """Write histograms as Parquet, CSV or npz, by the path's suffix.

    An npz file holds ``counts`` (int64, ``(n, zones, 256)``), ``zones`` (names) and one array of text for each
    manifest column; it loads without pickle.

    Raises
    ------
    InputError
        When the suffix is unknown.
    OutputError
        When the file cannot be written.
    """
    suffix = check_format(path)
    try:
        if suffix == ".npz":
            arrays = {str(c): features.table[c].map(_writable).to_numpy(str) for c in features.table}
            arrays |= {"counts": features.counts, "zones": np.array(features.recipe.names)}
            np.savez_compressed(path, allow_pickle=False, **arrays)
        elif suffix == ".csv":
            feature_frame(features).to_csv(path, index=False)
        else:
            feature_frame(features).to_parquet(path, index=False)
    except OSError as error:
        raise OutputError(f"cannot write {os.fspath(path)!r}: {error.strerror or error}") from error


def _writable(value: object) -> str:
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")
