"""DICOM radiographs: a file's bytes in, grey levels out, lungs dark.

The road is that of a viewer (PS3.4, N.2): stored values, modality LUT or rescale, the first VOI LUT or else the first
window, polarity. MONOCHROME1 (or a presentation LUT shape INVERSE, which says the same) is turned once, after all
else. Pixels stay where they are stored: Patient Orientation turns nothing, so that masks fit.

pydicom and the codecs come with ``pip install 'histcxr[dicom]'`` and are imported when the first DICOM file is met.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from histcxr.dicom.codestream import Codestream
from histcxr.dicom.dataset import DEFLATED, PIXEL_DATA, items, number, parse, raw, text, whole, words_of
from histcxr.dicom.pixels import (
    LINEAR,
    LINEAR_EXACT,
    SIGMOID,
    DicomImage,
    Lut,
    Rescale,
    Window,
    decode,
    frame_of,
    level_table,
)
from histcxr.dicom.tags import check_kind, facts_of, patient_key, uids_of
from histcxr.exceptions import Reason, UnjudgeableError
from histcxr.files.headers import Header, check_size, refuse, sniff
from histcxr.files.reading import read_file

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["decode", "read", "read_tags"]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def read(data: bytes, path: str = "") -> Header:
    """Check a DICOM file and find its pixels, without decoding them.

    Parameters
    ----------
    data : bytes
        The file's content.
    path : str, optional
        Its name, for messages.

    Returns
    -------
    Header
        With a :class:`~histcxr.dicom.pixels.DicomImage` in ``dicom``.

    Raises
    ------
    RadiographError
        ``unsupported`` (also: the extra is not installed), ``modality``, ``body_part``, ``view``,
        ``several_frames``, ``truncated``, ``damaged`` or ``too_large``.
    """
    dataset = parse(data, path)
    check_kind(dataset, path)
    image = _image(dataset, path)
    height, width, samples = image.shape
    return Header("DICOM", width, height, image.stored, samples, dicom=image)


def read_tags(path: str | os.PathLike[str], *, salt: str | bytes = "", uids: bool = False) -> dict[str, str]:
    """Facts about the image in a DICOM file, for a table: no name, no number, no date, no free text.

    Parameters
    ----------
    path : path-like
        The file.
    salt : str or bytes, optional
        A secret. With it, ``patient_id`` is a pseudonym, see :func:`~histcxr.dicom.tags.patient_key`; without
        it, there is none, because a hash without a secret can be guessed.
    uids : bool, default False
        Also give ``study_uid`` and ``series_uid``. They lead back to the patient.

    Returns
    -------
    dict
        ``modality, view, laterality, sex, age_group, patient_id``, ``""`` where unknown. Empty when the file is no
        DICOM file or cannot be read: whether it can be judged is asked later.
    """
    try:
        data = read_file(path)
        if sniff(data) != "DICOM":
            return {}
        dataset = parse(data, os.fspath(path))
    except UnjudgeableError:
        return {}
    found = facts_of(dataset) | {"patient_id": patient_key(dataset, salt) if salt else ""}
    if uids:
        known = uids_of(dataset)
        found |= {"study_uid": known.study_uid, "series_uid": known.series_uid}
    return found


def _image(dataset: Dataset, path: str) -> DicomImage:
    """Everything about the pixels, each number checked before it is used."""
    rows, columns = whole(dataset, "Rows", None, path), whole(dataset, "Columns", None, path)
    check_size(columns, rows, path)
    photometric, steps = _photometric(dataset, path)
    samples = whole(dataset, "SamplesPerPixel", 1 if photometric in _GREY else 3, path)
    if samples != (1 if photometric in _GREY else 3):
        refuse(Reason.DAMAGED, path, f"{samples} samples a pixel for {photometric}")
    allocated = whole(dataset, "BitsAllocated", None, path)
    stored = whole(dataset, "BitsStored", allocated, path)
    shift = whole(dataset, "HighBit", stored - 1, path) + 1 - stored
    if allocated not in (8, 16):
        refuse(Reason.UNSUPPORTED, path, f"{allocated} bits allocated for a sample; 8 and 16 can be read")
    if not 2 <= stored <= allocated or not 0 <= shift <= allocated - stored:
        refuse(Reason.DAMAGED, path, f"{stored} bits stored up to bit {stored + shift - 1} of {allocated}")
    signed = whole(dataset, "PixelRepresentation", 0, path) == 1
    frame = frame_of(dataset, (rows, columns, samples), allocated // 8, path)
    if isinstance(frame, Codestream):
        steps.append(f"{frame.kind.removesuffix(' deep')} decoded")
        if frame.bits < stored:
            refuse(Reason.DAMAGED, path, f"{frame.bits} bits in the image data, {stored} in the tags")
    elif photometric == "YBR_FULL_422":
        refuse(Reason.UNSUPPORTED, path, "a colour image of halved resolution")
    table = np.arange(256, dtype=np.uint8)
    if samples == 1:
        table, more = _grey_table(dataset, stored, signed, photometric, path)
        steps += more
    pixels = raw(dataset, PIXEL_DATA)
    facts = facts_of(dataset) | {"photometric": photometric, "transfer_syntax": _syntax(dataset, frame)}
    return DicomImage(
        frame,
        (rows, columns, samples),
        planar=whole(dataset, "PlanarConfiguration", 0, path) == 1,
        ybr=photometric == "YBR_FULL",
        allocated=allocated,
        stored=stored,
        shift=shift,
        big_endian=not pixels.is_little_endian,
        swapped=not pixels.is_little_endian and pixels.VR != "OB" and allocated == 8,
        table=table,
        steps=tuple(steps),
        facts=facts,
    )


def _photometric(dataset: Dataset, path: str) -> tuple[str, list[str]]:
    """Photometric interpretation; where it is missing, the presentation LUT shape says as much."""
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric in _GREY or photometric in _COLOUR:
        return photometric, []
    if photometric:
        refuse(Reason.UNSUPPORTED, path, "a photometric interpretation other than grey, RGB or YBR")
    implied = {"IDENTITY": "MONOCHROME2", "INVERSE": "MONOCHROME1"}.get(text(dataset, "PresentationLUTShape"))
    if implied is None:
        refuse(Reason.DAMAGED, path, "PhotometricInterpretation is missing, so black and white are not known")
    return implied, ["polarity taken from the presentation LUT shape"]


def _syntax(dataset: Dataset, frame: bytes | Codestream) -> str:
    """How the pixels are stored, by the standard's name where the file names a known syntax that fits."""
    from pydicom.uid import UID_dictionary

    syntax = text(dataset, "TransferSyntaxUID")
    if isinstance(frame, Codestream):
        return str(UID_dictionary[syntax][0]) if syntax in UID_dictionary else frame.kind
    order = "little endian" if raw(dataset, PIXEL_DATA).is_little_endian else "big endian"
    return f"uncompressed, {'deflated' if syntax == DEFLATED else order}"


def _grey_table(
    dataset: Dataset, stored: int, signed: bool, photometric: str, path: str
) -> tuple[Any, list[str]]:
    """The table of grey levels and the steps that it stands for."""
    steps = []
    modality, below_zero = _modality(dataset, stored, signed, path)
    if isinstance(modality, Lut):
        steps.append(f"modality LUT of {len(modality.values)} entries, {modality.bits} bits")
    elif modality != Rescale():
        steps.append(f"rescaled by {modality.slope:g}, {modality.intercept:+g}")
    voi, said = _voi(dataset, below_zero, path)
    steps.append(said)
    inverse = text(dataset, "PresentationLUTShape") == "INVERSE"
    inverted = photometric == "MONOCHROME1" or inverse
    if inverted:
        steps.append("inverted" if photometric == "MONOCHROME1" else "inverted by the presentation LUT shape")
    table = None
    with contextlib.suppress(ValueError):
        table = level_table(stored, signed=signed, modality=modality, voi=voi, inverted=inverted)
    if table is None:
        refuse(Reason.DAMAGED, path, "the rescale, window or LUT leaves no range of grey")
    if stored != 8:
        steps.append(f"{stored} to 8 bits")
    return table, [] if steps == ["declared range"] else steps


def _modality(dataset: Dataset, stored: int, signed: bool, path: str) -> tuple[Rescale | Lut, bool]:
    """The modality step, and whether what comes out of it can be negative."""
    luts = items(dataset, "ModalityLUTSequence")
    if luts:
        return _lut(luts[0], signed, "ModalityLUTSequence", path), False
    slope, intercept = number(dataset, "RescaleSlope", path), number(dataset, "RescaleIntercept", path)
    if slope == 0:
        refuse(Reason.DAMAGED, path, "RescaleSlope is 0")
    rescale = Rescale(1.0 if slope is None else slope, intercept or 0.0)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    return rescale, min(rescale.slope * low, rescale.slope * high) + rescale.intercept < 0


def _voi(dataset: Dataset, below_zero: bool, path: str) -> tuple[Window | Lut | None, str]:
    """The first VOI LUT, else the first window, else nothing; and its name for the record."""
    luts = items(dataset, "VOILUTSequence")
    if luts:
        lut = _lut(luts[0], below_zero, "VOILUTSequence", path)
        return lut, f"VOI LUT of {len(lut.values)} entries, {lut.bits} bits"
    center, width = number(dataset, "WindowCenter", path), number(dataset, "WindowWidth", path)
    if center is None and width is None:
        return None, "declared range"
    function = text(dataset, "VOILUTFunction") or LINEAR
    if function not in (LINEAR, LINEAR_EXACT, SIGMOID):
        refuse(Reason.UNSUPPORTED, path, "a VOI LUT function other than LINEAR, LINEAR_EXACT and SIGMOID")
    if center is None or width is None or width <= 0 or (function == LINEAR and width < 1):
        return None, "declared range, for the window is incomplete or has no width"
    return Window(center, width, function), f"window {center:g}, {width:g} {function}"


def _lut(item: Any, below_zero: bool, keyword: str, path: str) -> Lut:
    """A LUT out of its sequence item (C.11.1.1.1): descriptor of three words, then 8- or 16-bit data."""
    descriptor = words_of(item, "LUTDescriptor")
    if len(descriptor) != 3:
        refuse(Reason.DAMAGED, path, f"{keyword} has no sound descriptor")
    count, first, bits = (int(value) for value in descriptor)
    count = count or 2**16
    if below_zero and first >= 2**15:
        first -= 2**16
    values = words_of(item, "LUTData", count)
    if len(values) < count or not 8 <= bits <= 16:
        refuse(
            Reason.DAMAGED, path, f"{keyword} declares {count} entries of {bits} bits and has {len(values)}"
        )
    values = values[:count]
    if int(values.max()) >= 2**bits:
        refuse(Reason.DAMAGED, path, f"{keyword} declares {bits} bits and holds larger values")
    return Lut(first, values, bits)
