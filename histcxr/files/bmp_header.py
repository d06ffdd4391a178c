"""The structure of a Windows bitmap: two headers, an optional palette, and rows padded to four bytes.

Source: BITMAPFILEHEADER and BITMAPINFOHEADER in the Windows documentation of Microsoft.
"""

from __future__ import annotations

from histcxr.exceptions import Reason
from histcxr.files.headers import Header, check_size, refuse

_RGB, _BITFIELDS = 0, 3


def read(data: bytes, path: str = "") -> Header:
    """Read the headers of a bitmap and check that all rows are there.

    Raises
    ------
    RadiographError
        ``truncated``, ``damaged``, ``too_large`` or ``unsupported`` (run-length coding, 2 or 16 bits).
    """
    size = len(data)
    if size < 26:
        refuse(Reason.TRUNCATED, path, f"only {size} bytes")
    start = int.from_bytes(data[10:14], "little")
    header = int.from_bytes(data[14:18], "little")
    if size < 14 + header:
        refuse(Reason.TRUNCATED, path, f"only {size} bytes")
    if header == 12:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        bits, compression = int.from_bytes(data[24:26], "little"), _RGB
    else:
        width = int.from_bytes(data[18:22], "little", signed=True)
        height = abs(
            int.from_bytes(data[22:26], "little", signed=True)
        )  # negative: stored from top to bottom
        bits = int.from_bytes(data[28:30], "little")
        compression = int.from_bytes(data[30:34], "little")
    check_size(width, height, path)
    if bits not in (1, 4, 8, 24, 32) or compression not in (_RGB, _BITFIELDS):
        refuse(
            Reason.UNSUPPORTED, path, f"a bitmap of {bits} bits, compression {compression}; export it as PNG"
        )
    if start < 14 + header:
        refuse(Reason.DAMAGED, path, f"the image data cannot begin at byte {start}")
    end = start + (width * bits + 31) // 32 * 4 * height
    if end > size:
        refuse(Reason.TRUNCATED, path, f"{size:,} bytes, {end:,} expected")
    return Header("BMP", width, height, min(bits, 8), max(bits // 8, 1), palette=bits <= 8, alpha=bits == 32)
