"""The manifest: one row an image, from a CSV file or inferred from how a folder is laid out.

Four layouts are understood, alone or nested: ``CLASS/*.png``, ``CLASS/{images,masks}/*``,
``{train,val,test}/CLASS/*`` and images without classes. A ``manifest.csv`` in the folder wins over all of
them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from histcxr.data.discovery import (
    IN_MASKS,
    MANIFEST_NAME,
    InputFile,
    check_inside,
    find_inputs,
    locate,
    read_rows,
)
from histcxr.data.pairing import is_image_name, is_mask_folder, stem_of
from histcxr.dicom.radiograph import read_tags
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.files import remote
from histcxr.files.remote import Url, what_is

COLUMNS = ("image", "mask", "label", "patient_id", "source", "split")
"""Columns that every manifest has, all of text; other columns follow."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NORMAL = frozenset({"normal", "no finding", "no_finding", "0", "0.0", "false"})
_leading_zero = re.compile(r"[+-]?0\d").match

TAG_COLUMNS = ("modality", "view", "laterality", "sex", "age_group")
"""Further columns that DICOM files can fill."""


def read_manifest(
    path: str | os.PathLike[str],
    *,
    require_labels: bool = False,
    dicom_tags: bool = False,
    salt: str | bytes = "",
    uids: bool = False,
) -> pd.DataFrame:
    """Read which images there are, with their masks, labels and patients; no file is checked for being readable.

    ``path`` (or URL) is a folder in one of the four layouts, one with ``manifest.csv``, or a CSV file with at least the
    column ``image``, whose paths are relative to its own folder. ``dicom_tags`` opens every DICOM file and fills
    ``modality, view, laterality, sex, age_group`` (a decade, ``"90+"`` from there on) where the manifest says nothing;
    no name, number, date or free text is taken. With the secret ``salt`` it also fills an empty ``patient_id`` with a
    keyed hash of the patient's number (whoever knows the salt can find the number by trying); with ``uids`` it adds
    ``study_uid`` and ``series_uid``, which lead back to the patient.

    The table's columns are ``image, mask, label, patient_id, source, split`` as text (absolute paths; ``""`` where
    unknown; ``split`` is ``train``, ``val``, ``test`` or ``""``), then all others, where numbers stay numbers unless a
    leading zero shows that they are names. Patients are never guessed from file names.

    InputError: a salt or UIDs without ``dicom_tags``; no such path, no image, no column ``image``, a column or an
    image twice, an unknown split, a ``manifest.csv`` of a folder that names files elsewhere, or, with
    ``require_labels``, a row without label. HistcxrWarning: a folder inside could not be read, or folders of masks hold
    what is called like no image.
    """
    if not dicom_tags and (salt or uids):
        raise InputError("salt and uids are of use with dicom_tags=True only; set it, or leave them out")
    name = remote.place_of(path)
    kind = what_is(name)
    if kind == "folder":
        listed = remote.join(name, MANIFEST_NAME)
        table = _from_csv(listed, inside=True) if what_is(listed) == "file" else _from_folder(name)
    elif kind == "file" and (isinstance(name, Url) or os.path.isfile(name)):
        table = _from_csv(name)
    else:
        raise InputError(f"the data must be a folder or a CSV file; there is nothing at {name!r}")
    repeated = table["image"][table["image"].duplicated()]
    if len(repeated):  # it would be counted twice, and could fall into two splits
        raise InputError(
            f"every image must be listed once; {name!r} repeats {len(repeated)}: {repeated.iloc[0]!r}"
        )
    if require_labels:
        missing = np.flatnonzero(table["label"].to_numpy() == "")
        if missing.size:
            raise InputError(
                f"every image must have a label; {missing.size} of {len(table)} in {name!r} have none, "
                f"the first is {table['image'].iloc[missing[0]]!r}. Give each class a folder or add 'label'"
            )
    return _with_tags(table, salt, uids) if dicom_tags else table


def is_sick(labels: ArrayLike | Iterable[Any], normal: str = "Normal") -> NDArray[np.bool_]:
    """Which labels (str, int or bool) are anything but normal: bool (n,), True where sick (the positive class).

    ``normal`` is the normal class's name in upper or lower case; the default also knows "no finding" and 0. A blank
    label is an InputError: unknown is neither sick nor normal.
    """
    values = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels), dtype=object)  # type: ignore[arg-type]
    names = ["" if pd.isna(value) else str(value).strip().casefold() for value in values.ravel()]
    blank = names.count("")
    if blank:
        raise InputError(f"labels must not be blank; {blank} of {len(names)} are")
    wanted = normal.strip().casefold()
    normals = _NORMAL if wanted == "normal" else frozenset({wanted})
    return np.array([name not in normals for name in names], dtype=bool)


def _from_csv(path: str, *, inside: bool = False) -> pd.DataFrame:
    rows = read_rows(path)
    _, columns = next(rows)
    values: list[list[str]] = [[] for _ in columns]
    places = [columns.index(name) for name in ("image", "mask") if name in columns]
    for line, row in rows:
        if inside:
            check_inside(path, line, *(locate(row[place], remote.split(path)[0]) for place in places))
        for collected, value in zip(values, row, strict=True):
            collected.append(value)
    texts = dict(zip(columns, values, strict=True))
    count = len(texts["image"])
    if not count:
        raise InputError(f"{path!r} lists no image")
    folder = remote.split(path)[0]
    known: dict[str, list[str]] = {
        column: texts.pop(column) if column in texts else [""] * count for column in COLUMNS
    }
    for column in ("image", "mask"):
        known[column] = [locate(value, folder) for value in known[column]]
    for column in COLUMNS[2:]:
        known[column] = [value.strip() for value in known[column]]
    known["split"] = [_split(value, path) for value in known["split"]]
    # object and not pandas' own text type: that one cannot hold file names that are not UTF-8
    table = pd.DataFrame({column: pd.Series(known[column], dtype=object) for column in COLUMNS})
    return table.assign(**{column: _typed(texts[column]) for column in columns if column in texts})


def _from_folder(path: str) -> pd.DataFrame:
    rows, entries = [], find_inputs(path)
    for entry in entries:
        in_store = isinstance(entry.path, Url)
        if entry.detail.startswith("a folder") if in_store else os.path.isdir(entry.path):
            warnings.warn(f"{entry.path!r} was not read: {entry.explanation}", HistcxrWarning, stacklevel=3)
            continue
        label, split = _place(entry)
        rows.append((entry.path, entry.mask, label, "", "", split))
    if entries.skipped[IN_MASKS] > sum(bool(row[1]) for row in rows):
        strange = _strangers(path, {stem_of(os.path.basename(row[0])) for row in rows})
        if strange:
            told = f"{strange} files in folders of masks have no image's name, and were not read, in {path!r}"
            warnings.warn(told, HistcxrWarning, stacklevel=3)
    if not rows:
        raise InputError(
            f"{path!r} holds no image; expected are CLASS/*.png, CLASS/images/*.png with CLASS/masks/*.png, "
            "{train,val,test}/CLASS/*.png, images without classes, or a manifest.csv"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def _strangers(top: str, stems: set[str]) -> int:
    """Count files in folders of masks that are called like no image: radiographs, perhaps."""
    return sum(is_image_name(name) and stem_of(name) not in stems for name in _in_masks(top))


def _in_masks(top: str, inside: bool = False) -> Iterator[str]:
    if isinstance(top, Url):
        for one in remote.listing(top):
            if one.is_folder:
                yield from _in_masks(top.child(one.name), inside or is_mask_folder(one.name))
            elif inside:
                yield one.name
        return
    for folder, _, files in os.walk(top):
        if any(map(is_mask_folder, os.path.relpath(folder, top).split(os.sep))):
            yield from files


def _with_tags(table: pd.DataFrame, salt: str | bytes, uids: bool) -> pd.DataFrame:
    """Fill what the manifest leaves open from the tags of DICOM files; what it says stays."""
    found = [read_tags(image, salt=salt, uids=uids) for image in table["image"]]
    filled = {}
    for column in (*TAG_COLUMNS, "patient_id", *(("study_uid", "series_uid") if uids else ())):
        values = pd.Series([tags.get(column, "") for tags in found], index=table.index, dtype=object)
        if column in table:
            said = table[column]
            values = said.where(said.notna() & (said.astype(str) != ""), values)
        filled[column] = values
    return table.assign(**filled)


def _place(entry: InputFile) -> tuple[str, str]:
    """Label and split from the folders an image lies in."""
    folders = entry.relative.split(os.sep)[:-1]
    if folders and folders[-1].casefold() == "images":
        folders = folders[:-1]
    split = _SPLITS.get(folders[0].casefold(), "") if folders else ""
    if split:
        folders = folders[1:]
    return (folders[0] if folders else ""), split


def _split(value: str, path: str) -> str:
    if not value:
        return ""
    split = _SPLITS.get(value.casefold())
    if split is None:
        raise InputError(f"{path!r}: the column 'split' must hold train, val or test; it holds {value!r}")
    return split


def _typed(values: list[str]) -> pd.Series[Any]:
    """A further column: numbers or booleans where every value is one, text otherwise."""
    texts = pd.Series(values, dtype=object)
    filled = texts[texts != ""]
    if filled.empty or any(_leading_zero(value) for value in filled):
        return texts
    if filled.isin(("True", "False")).all() and len(filled) == len(texts):
        return texts == "True"
    numbers = pd.to_numeric(filled, errors="coerce")
    if numbers.isna().any():
        return texts
    return pd.Series(numbers.reindex(texts.index))
