"""What one file may cost. Everything that a file declares is held against these limits before it is believed."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields

from histcxr.exceptions import InputError

VARIABLE = "HISTCXR_MAX_"
"""Beginning of the environment variables that change a limit, such as ``HISTCXR_MAX_SECONDS=20``."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a single file. A file beyond them becomes ``too_large`` or ``too_costly``, never "normal"."""

    file_bytes: int = 2**28
    """Larger files are refused unread: twice the largest image accepted at 16 bits."""
    side: int = 2**16 - 1
    """Longest side, in pixels."""
    pixels: int = 2**26
    """Most pixels: 8192 x 8192, several times a full-field detector at 100 micrometres."""
    unpacked: int = 2**28
    """Most bytes of the decoded image: the largest one, with four bytes a pixel."""
    inflated: int = 2**27 + 2**24
    """Most bytes that a deflated DICOM file unpacks to: the largest image at 16 bits, and its tags."""
    parts: int = 2**16
    """Most parts of a file: chunks, segments, fragments, tile parts, reads of data elements and items."""
    entries: int = 2**12
    """Most entries of all directories of a TIFF."""
    scanned: int = 2**30
    """Most pixels of all scans of a JPEG: 16 of the largest image. Common encoders write 1 to 14 scans."""
    packets: int = 2**20
    """Most packets of a JPEG 2000 image: precincts of all tiles, resolutions and samples, times layers."""
    seconds: int = 5
    """Most seconds of processor for a codec in a process of its own (:mod:`histcxr.files.apart`), and one more for
    each MiB of the file; ten times as long by the clock."""
    mebibytes: int = 768
    """Most memory that such a codec may ask for."""

    def changed(self) -> dict[str, int]:
        """Return the limits that are not the usual ones."""
        usual = asdict(Budget())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


def from_environment() -> Budget:
    """Return the budget with what the environment says; InputError where that is no whole number above 0."""
    found = {}
    for one in fields(Budget):
        name = VARIABLE + one.name.upper()
        text = os.environ.get(name, "")
        if text and not (text.isascii() and text.isdigit() and int(text)):
            raise InputError(f"{name} must be a whole number above 0; got {text!r}")
        if text:
            found[one.name] = int(text)
    return Budget(**found)


BUDGET = from_environment()
"""The budget of this process."""
