"""The identifiers of a DICOM image: of its study, its series and itself, read without its pixels.

They lead back to the patient in the archive that the image comes from, so no output holds them unless asked for.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from histcxr.dicom.dataset import Elements, parse, text
from histcxr.exceptions import UnjudgeableError
from histcxr.files.headers import sniff
from histcxr.files.reading import read_file

BEGINNING = 2**15
"""Bytes that are read first; the identifiers stand within them in most files."""

_SERIES = 0x0020000E  # the last of the four in the order of tags
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


class ImageUids(NamedTuple):
    """Identifiers of one image, each ``""`` where it is missing or no valid UID (PS3.5, section 9).

    Attributes
    ----------
    study_uid, series_uid, sop_uid : str
        Study Instance UID, Series Instance UID and SOP Instance UID.
    sop_class : str
        SOP Class UID: what kind of image it is.
    """

    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    sop_class: str = ""


def read_uids(path: str | os.PathLike[str]) -> ImageUids:
    """Read the identifiers of the image in a DICOM file, in a fraction of the time that its pixels take.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ImageUids
        All empty when the file is no DICOM file or cannot be read: whether it can be judged is asked elsewhere.
    """
    try:
        data = read_file(path, BEGINNING)
        if sniff(data) != "DICOM":
            return ImageUids()
        found = _uids(data, path)
        if found is None and len(data) == BEGINNING:
            found = _uids(read_file(path), path)
    except UnjudgeableError:
        return ImageUids()
    return found or ImageUids()


def uids_in(data: bytes) -> ImageUids:
    """Find the identifiers in a file's bytes; as :func:`read_uids` where the whole file is in memory anyway."""
    try:
        return (_uids(data, whole=True) if sniff(data) == "DICOM" else None) or ImageUids()
    except UnjudgeableError:
        return ImageUids()


def _uids(data: bytes, path: str | os.PathLike[str] = "", *, whole: bool = False) -> ImageUids | None:
    """None where the file, or what was read of it, ends or breaks before the series' identifier."""
    try:
        elements = parse(data, os.fspath(path), last=_SERIES)
    except UnjudgeableError:
        return None
    if not whole and _SERIES not in elements.dataset and len(data) == BEGINNING:
        return None
    return ImageUids(
        *(
            _valid(elements, keyword)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        )
    )


def _valid(elements: Elements, keyword: str) -> str:
    value = text(elements, keyword)
    return value if len(value) <= 64 and _UID.fullmatch(value) else ""
