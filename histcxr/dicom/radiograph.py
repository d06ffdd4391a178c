"""DICOM radiographs: a file's bytes in, grey levels out, lungs dark.

The road is that of a viewer (PS3.4, N.2): stored values, modality LUT or rescale, the first VOI LUT or else the first
window, polarity. MONOCHROME1 (or a presentation LUT shape INVERSE, which says the same) is turned once, after all
else. Pixels stay where they are stored: Patient Orientation turns nothing, so that masks fit.

pydicom and the codecs come with the extra ``dicom`` and are imported when the first DICOM file is met.
"""

from __future__ import annotations

import os

import numpy as np

from histcxr.dicom.codestream import Codestream
from histcxr.dicom.dataset import DEFLATED, PIXEL_DATA, Dataset, parse, raw, text, whole
from histcxr.dicom.pixels import DicomImage, frame_of, grey_table
from histcxr.dicom.tags import check_kind, facts_of, patient_key, uids_of
from histcxr.exceptions import Reason, UnjudgeableError
from histcxr.files.reading import Header, check_size, read_file, refuse, sniff

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def read(data: bytes, path: str = "") -> Header:
    """Check a DICOM file and find its pixels: a :class:`~histcxr.dicom.pixels.DicomImage` in ``Header.dicom``.

    RadiographError: ``unsupported`` (also: the extra is not installed), ``modality``, ``body_part``, ``view``,
    ``several_frames``, ``truncated``, ``damaged`` or ``too_large``.
    """
    dataset = parse(data, path)
    check_kind(dataset, path)
    image = _image(dataset, path)
    height, width, samples = image.shape
    return Header("DICOM", width, height, image.stored, samples, dicom=image)


def read_tags(path: str | os.PathLike[str], *, salt: str | bytes = "", uids: bool = False) -> dict[str, str]:
    """Facts about the image in a DICOM file, for a table: no name, no number, no date, no free text.

    ``modality, view, laterality, sex, age_group, patient_id``, ``""`` where unknown. Empty when the file is no DICOM
    file or cannot be read: whether it can be judged is asked later. Only with a secret ``salt``, ``patient_id`` is a
    pseudonym (:func:`~histcxr.dicom.tags.patient_key`). With ``uids`` also ``study_uid`` and ``series_uid``, which
    lead back to the patient.
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
    check_size(columns, rows, path, samples * allocated // 8)
    frame = frame_of(dataset, (rows, columns, samples), allocated // 8, path)
    if isinstance(frame, Codestream):
        steps.append(f"{frame.kind.removesuffix(' deep')} decoded")
        if frame.bits < stored:
            refuse(Reason.DAMAGED, path, f"{frame.bits} bits in the image data, {stored} in the tags")
    elif photometric == "YBR_FULL_422":
        refuse(Reason.UNSUPPORTED, path, "a colour image of halved resolution")
    table = np.arange(256, dtype=np.uint8)
    if samples == 1:
        table, more = grey_table(dataset, stored, signed, photometric, path)
        steps += more
    order, vr = "<" if raw(dataset, PIXEL_DATA).is_little_endian else ">", raw(dataset, PIXEL_DATA).VR
    return DicomImage(
        frame,
        (rows, columns, samples),
        planar=whole(dataset, "PlanarConfiguration", 0, path) == 1,
        ybr=photometric == "YBR_FULL",
        kind=np.dtype(f"{order}u{allocated // 8}"),
        stored=stored,
        shift=shift,
        signed=signed,
        swapped=order == ">" and vr != "OB" and allocated == 8,
        table=table,
        steps=tuple(steps),
        facts=facts_of(dataset) | {"photometric": photometric, "transfer_syntax": _syntax(dataset, frame)},
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


def _syntax(dataset: Dataset, frame: bytes | memoryview | Codestream) -> str:
    """How the pixels are stored, by the standard's name where the file names a known syntax that fits."""
    from pydicom.uid import UID_dictionary

    syntax = text(dataset, "TransferSyntaxUID")
    if isinstance(frame, Codestream):
        return str(UID_dictionary[syntax][0]) if syntax in UID_dictionary else frame.kind
    order = "little endian" if raw(dataset, PIXEL_DATA).is_little_endian else "big endian"
    return f"uncompressed, {'deflated' if syntax == DEFLATED else order}"
