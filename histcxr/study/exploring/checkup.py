"""Where data contradict themselves: files against their list, near-duplicates and patients in several splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.discovery import MANIFEST_NAME
from histcxr.data.fingerprints import near_duplicates
from histcxr.data.pairing import is_image_name, is_mask_folder
from histcxr.exceptions import Reason, counted
from histcxr.files.reading import Header

_SIZE = re.compile(r"^\s*(\d+)\s*[x×*,]\s*(\d+)\s*$", re.IGNORECASE)
_EXAMPLES: Final = 5
_SHOWN_PAIRS: Final = 20

# Columns of a list that say what the file says, too: their names in small letters, and how the file says it.
_SAID: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Header], Any]]]] = {
    "width": (("width", "columns", "image_width"), lambda header: header.width),
    "height": (("height", "rows", "image_height"), lambda header: header.height),
    "size": (("size", "image_size", "dimensions"), lambda header: (header.width, header.height)),
    "format": (("format", "file_format"), lambda header: header.format),
    "bits": (("bits", "bit_depth", "bits_stored"), lambda header: header.bits),
    "channels": (("channels",), lambda header: header.channels),
}


def disagreements(
    data: Any,
    table: pd.DataFrame,
    headers: Sequence[Header | None],
    masks: Sequence[tuple[int, int] | None],
    reasons: Sequence[str],
) -> list[dict[str, Any]]:
    """Compare files with the manifest that lists them, ready for JSON.

    Each has ``what``, ``images`` (how many), ``examples`` (some names) and a ``sentence``: listed files that are not
    there, images in the folder that the list leaves out, columns that say another size, format or depth than the file,
    a label that is another one than the file's folder, and masks of another size than their images.
    """
    found = []

    def add(what: str, rows: Sequence[int] | NDArray[np.intp], sentence: str) -> None:
        if len(rows):
            names = [_name(table["image"].iloc[row]) for row in rows[:_EXAMPLES]]
            found.append({"what": what, "images": len(rows), "examples": names, "sentence": sentence})

    lost = [row for row, reason in enumerate(reasons) if reason == Reason.NOT_FOUND]
    add("missing file", lost, f"{counted(len(lost), 'listed image is', 'listed images are')} not there")
    bare = [
        row for row, reason in enumerate(reasons) if reason == Reason.MASK_MISSING and table["mask"].iloc[row]
    ]
    add("missing mask", bare, f"{counted(len(bare), 'listed mask is', 'listed masks are')} not there")
    for column, kind in _columns(table).items():
        said = table[column].tolist()
        wrong = [
            row
            for row, header in enumerate(headers)
            if header is not None and _differs(said[row], kind, header)
        ]
        if wrong:
            first, rows = headers[wrong[0]], counted(len(wrong), "image", "images")
            real = _words(_SAID[kind][1](first)) if first is not None else ""
            name = _name(table["image"].iloc[wrong[0]])
            says = f"it says {said[wrong[0]]}, the file {real}"
            sentence = f"the column {column} is wrong for {rows}, as for {name}: {says}"
            add(f"column {column}", wrong, sentence)
    labels = table["label"].tolist()
    names = {label.casefold() for label in labels if label}
    elsewhere = [
        row
        for row, label in enumerate(labels)
        if label and (own := _folder_label(table["image"].iloc[row], names)) and own != label.casefold()
    ]
    add(
        "label",
        elsewhere,
        f"{counted(len(elsewhere), 'image lies', 'images lie')} in the folder of another label than the list says",
    )
    sizes = [
        row
        for row, (header, mask) in enumerate(zip(headers, masks, strict=True))
        if header is not None and mask is not None and mask != (header.width, header.height)
    ]
    add(
        "mask size",
        sizes,
        f"{counted(len(sizes), 'mask has', 'masks have')} another size than the image, to which it is brought",
    )
    if unlisted := _unlisted(data, table):
        found.append(
            {
                "what": "not listed",
                "images": len(unlisted),
                "examples": [_name(one) for one in unlisted[:_EXAMPLES]],
                "sentence": f"{counted(len(unlisted), 'image', 'images')} in the folder, but not in its list",
            }
        )
    return found


def repeated(
    fingerprints: NDArray[np.uint8],
    copies: NDArray[np.float32],
    usable: NDArray[np.bool_],
    table: pd.DataFrame,
    labels: NDArray[np.object_],
) -> dict[str, Any]:
    """Find near-duplicates, and patients in several splits: ``twins`` and ``patients_across``, ready for JSON."""
    rows = np.flatnonzero(usable)
    pairs = rows[near_duplicates(fingerprints[rows], copies[rows])]
    split, patient = (table[name].to_numpy(object) for name in ("split", "patient_id"))

    def apart(values: NDArray[np.object_]) -> NDArray[np.bool_]:
        first, second = values[pairs[:, 0]], values[pairs[:, 1]]
        return np.asarray((first != second) & (first != "") & (second != ""), bool)

    across, mixed, strangers = apart(split), apart(labels), apart(patient)
    order = np.lexsort((~strangers, ~mixed, ~across))
    known = table[(split != "") & (patient != "")]
    several = known.groupby("patient_id")["split"].nunique() if len(known) else pd.Series(dtype=int)
    several = several[several > 1]
    return {
        "twins": {
            "pairs": len(pairs),
            "across_splits": int(across.sum()),
            "across_classes": int(mixed.sum()),
            "across_patients": int(strangers.sum()),
            "examples": [
                {
                    "first": _name(table["image"].iloc[a]),
                    "second": _name(table["image"].iloc[b]),
                    "splits": f"{split[a]} / {split[b]}",
                    "classes": f"{labels[a]} / {labels[b]}",
                    "patients": f"{patient[a]} / {patient[b]}",
                }
                for a, b in pairs[order[:_SHOWN_PAIRS]]
            ],
        },
        "patients_across": {
            "patients": len(several),
            "images": int(known["patient_id"].isin(several.index).sum()) if len(known) else 0,
            "examples": [str(one) for one in several.index[:_EXAMPLES]],
        },
    }


def _columns(table: pd.DataFrame) -> dict[str, str]:
    """Return which columns say what a file says, too."""
    return {
        str(column): kind
        for column in table.columns
        for kind, (names, _) in _SAID.items()
        if re.sub(r"[\s-]+", "_", str(column).strip().casefold()) in names
    }


def _differs(said: Any, kind: str, header: Header) -> bool:
    """Tell whether a cell that says something says another thing than the file."""
    real = _SAID[kind][1](header)
    if said is None or said != said or str(said).strip() == "":
        return False
    if kind == "size":
        match = _SIZE.match(str(said))
        return match is not None and (int(match[1]), int(match[2])) != real
    if kind == "format":
        return str(said).strip().upper().lstrip(".").replace("JPG", "JPEG") != real
    try:
        return float(said) != real
    except (TypeError, ValueError):
        return False


def _words(real: Any) -> str:
    return f"{real[0]} x {real[1]}" if isinstance(real, tuple) else str(real)


def _folder_label(path: str, names: set[str]) -> str:
    """Return the label that the innermost folder with a label's name gives, "" where none has one."""
    return next((part.casefold() for part in reversed(Path(path).parts[:-1]) if part.casefold() in names), "")


def _unlisted(data: Any, table: pd.DataFrame) -> list[str]:
    """Return images in a folder that its manifest leaves out."""
    if not isinstance(data, str | os.PathLike) or not os.path.isfile(os.path.join(data, MANIFEST_NAME)):
        return []
    listed = {*table["image"], *table["mask"]}
    found = []
    for place, folders, files in os.walk(os.path.abspath(data)):
        folders[:] = sorted(name for name in folders if not is_mask_folder(name) and not name.startswith("."))
        found += [os.path.join(place, name) for name in sorted(files) if is_image_name(name)]
    return [one for one in found if one not in listed]


def _name(path: str) -> str:
    """Return a file's name with its two folders."""
    return os.path.join(*Path(path).parts[-3:])
