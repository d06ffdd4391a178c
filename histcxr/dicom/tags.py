"""What a DICOM file says about itself: whether it is a frontal chest radiograph, the few facts kept, its identifiers.

Every fact comes from a closed list of words, so nothing that someone typed can pass through. Free text (a series'
description) is read to find lateral views and never handed on.

Source: DICOM PS3.3, C.7.1, C.7.3, C.8.1, C.8.11; PS3.4, B.5 (SOP classes); PS3.16, CID 4010 (views), CID 4 (regions).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from typing import NamedTuple

from histcxr.dicom.dataset import PIXEL_DATA, Dataset, items, parse, raw, text
from histcxr.exceptions import InputError, Reason, UnjudgeableError
from histcxr.files.reading import read_file, refuse, sniff

BEGINNING = 2**15
"""Bytes that are read first for a file's identifiers, which stand within them in most files."""

_UIDS = ("StudyInstance", "SeriesInstance", "SOPInstance", "SOPClass")
_SERIES = 0x0020000E  # the last of the four in the order of tags
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_RADIOGRAPHS = frozenset({_STORAGE + "1", _STORAGE + "1.1"})
_RAW = _STORAGE + "1.1.1"
_CAPTURES = frozenset({_STORAGE + end for end in ("7", "7.2", "7.3", "7.4")})
_INDEX = "1.2.840.10008.1.3.10"

_PLAIN = frozenset({"CR", "DX", "RG"})
_VAGUE = frozenset({"", "OT", "SC"})
# modalities that may be named in messages: PS3.3, C.7.3.1.1.1
_MODALITIES = (
    "CR DX RG AR AU BDUS BI BMD CT DG DOC ECG EPS ES FID GM HC HD IO IVOCT IVUS KER KO LEN LS MG MR M3D NM OAM OCT "
    "OP OPM OPT OPV OSS OT PLAN PR PT PX REG RESP RF RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SC SEG SM SMR SR "
    "SRF TG US VA XA XC"
)

_CHEST = re.compile(r"CHEST|THORA|TORAX|LUNG|PULM|\bCXR\b|\bRIBS?\b")
_ELSEWHERE = re.compile(
    r"ABDOM|SKULL|HEAD|BRAIN|FACE|FACIAL|ORBIT|SINUS|NECK|SPINE|VERTEB|PELVI|\bHIP|FEMUR|THIGH|KNEE|PATELL|\bLEGS?\b|"
    r"TIBIA|FIBULA|ANKLE|\bFOOT\b|\bFEET\b|\bTOES?\b|CALCAN|HEEL|\bHANDS?\b|FINGER|THUMB|WRIST|FOREARM|ELBOW|HUMER|"
    r"\bARMS?\b|SHOULDER|CLAVIC|SCAPUL|EXTREMIT|BREAST|MAMMA|\bJAW|MANDIB|MAXILLA|TOOTH|TEETH|DENTAL|COCCYX|SACR|"
    r"KIDNEY|BLADDER|LIVER|COLON|STOMACH"
)
_CHEST_CODES = frozenset({"51185008", "T-D3000", "39607008", "T-28000"})

_OBLIQUES = frozenset({"LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBLIQUE", "OBL"})
_DECUBITUS = frozenset({"LLD", "RLD", "DECUBITUS", "DECUB"})
_LATERALS = frozenset(
    {"LATERAL", "LAT", "LLAT", "RLAT", "LATERALE", "LATERALIS", "PROFIL", "PROFILE", "SEITLICH"}
)
_VIEW_CODES = {
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), "PA"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399067008", "R-102CD"), "LATERAL"),
    **dict.fromkeys(("399033003", "R-10202"), ""),  # frontal, and no more
}
_VIEWS_IN_WORDS = {
    **{"LL": "a left lateral view", "RL": "a right lateral view", "LATERAL": "a lateral view"},
    **{"OBLIQUE": "an oblique view", "DECUBITUS": "a patient lying on the side"},
}

# what stands in Patient ID when nothing does: these would make one patient of many
_NOBODY = frozenset(
    {"", "0", "ANON", "ANONYM", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "NONE", "UNKNOWN", "N/A", "NA"}
)


def check_kind(dataset: Dataset, path: str = "") -> None:
    """Refuse whatever is no frontal chest radiograph made for reading.

    Accepted are Computed Radiography, Digital X-Ray for presentation, and secondary captures that call themselves CR,
    DX or RG or, without a telling modality, name the chest or a frontal view. A body part or a view that is missing or
    unknown is no reason; one that says otherwise is. Raises :class:`~histcxr.exceptions.RadiographError`:
    ``unsupported`` (no image at all), ``modality``, ``body_part`` or ``view``.
    """
    kind = text(dataset, "SOPClassUID") or text(dataset, "MediaStorageSOPClassUID")
    modality = text(dataset, "Modality")
    if not kind and not modality and raw(dataset, PIXEL_DATA) is None:
        refuse(Reason.UNSUPPORTED, path, "a DICOM file without an image")
    if kind == _INDEX:
        refuse(Reason.MODALITY, path, "an index of files (DICOMDIR)")
    if kind == _RAW or text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        refuse(Reason.MODALITY, path, "raw data of the detector, for processing")
    if kind and kind not in _RADIOGRAPHS | _CAPTURES:
        refuse(Reason.MODALITY, path, _named(kind, modality))
    if modality not in _PLAIN | _VAGUE:
        refuse(Reason.MODALITY, path, _named("", modality))
    part, view = body_part(dataset), view_of(dataset)
    capture = kind not in _RADIOGRAPHS and modality in _VAGUE
    if capture and part is not True and view not in ("PA", "AP"):
        refuse(Reason.MODALITY, path, "a secondary capture that does not say that it is a chest radiograph")
    if part is False:
        refuse(Reason.BODY_PART, path)
    if view in _VIEWS_IN_WORDS:
        refuse(Reason.VIEW, path, _VIEWS_IN_WORDS[view])


def _named(kind: str, modality: str) -> str:
    """The kind of object in words of the standard, never of the file."""
    from pydicom.uid import UID_dictionary

    if kind in UID_dictionary:
        return str(UID_dictionary[kind][0])
    return f"modality {modality}" if modality in _MODALITIES.split() else "a kind that is not known"


def body_part(dataset: Dataset) -> bool | None:
    """Whether the file shows a chest; None where it does not say or says nothing known."""
    said = [text(dataset, "BodyPartExamined")]
    for item in items(dataset, "AnatomicRegionSequence")[:1]:
        if text(item, "CodeValue") in _CHEST_CODES:
            said.insert(0, "CHEST")
        said.append(text(item, "CodeMeaning"))
    for words in said:
        words = words.replace("_", " ")
        spine = re.search(r"SPINE|VERTEB", words) is not None
        if _CHEST.search(words) and not spine:
            return True
        if _ELSEWHERE.search(words):
            return False
    return None


def view_of(dataset: Dataset) -> str:
    """The view: PA, AP, LL, RL, LATERAL, OBLIQUE, DECUBITUS, or ``""`` where it is not known.

    Asked in turn: View Code Sequence, View Position, Patient Orientation (rows that run from front to back), and at
    last the words of Series Description and Protocol Name, where only a lateral view without a frontal one beside it
    ("chest lateral", not "chest PA and lateral") counts.
    """
    found = ""
    for item in items(dataset, "ViewCodeSequence")[:1]:
        code, meaning = (text(item, keyword) for keyword in ("CodeValue", "CodeMeaning"))
        found = _VIEW_CODES.get(code) or _view_in(meaning)
    found = found or _view_in(text(dataset, "ViewPosition"))
    if found:
        return found
    if text(dataset, "PatientOrientation")[:1] in ("A", "P"):
        return "LATERAL"
    words = f"{text(dataset, 'SeriesDescription')} {text(dataset, 'ProtocolName')}"
    tokens = set(re.findall(r"[A-Z]+", words))
    return "LATERAL" if tokens & _LATERALS and not tokens & {"PA", "AP", "DP", "FRONTAL"} else ""


def _view_in(words: str) -> str:
    tokens = set(re.findall(r"[A-Z]+", words))
    if tokens & _OBLIQUES:
        return "OBLIQUE"
    if tokens & _DECUBITUS:
        return "DECUBITUS"
    if tokens & {"LL", "RL"} or tokens & _LATERALS:
        left, right = tokens & {"LL", "LEFT", "LLAT", "L"}, tokens & {"RL", "RIGHT", "RLAT", "R"}
        return "LATERAL" if bool(left) == bool(right) else "LL" if left else "RL"
    if "PA" in tokens or re.search(r"POSTERO[^A-Z]*ANTERIOR", words):
        return "PA"
    return "AP" if "AP" in tokens or re.search(r"ANTERO[^A-Z]*POSTERIOR", words) else ""


def facts_of(dataset: Dataset) -> dict[str, str]:
    """Facts that tell no one's name: ``modality, view, laterality, sex, age_group``, each ``""`` where unknown.

    ``age_group`` is a decade, ``"40-49"``, and ``"90+"`` from there on (ages above 89 identify people).
    """

    def one_of(keyword: str, known: Collection[str]) -> str:
        value = text(dataset, keyword)
        return value if value in known else ""

    sides = ("R", "L", "B", "U")
    return {
        "modality": one_of("Modality", _MODALITIES.split()),
        "view": view_of(dataset),
        "laterality": one_of("ImageLaterality", sides) or one_of("Laterality", sides),
        "sex": one_of("PatientSex", ("F", "M", "O")),
        "age_group": _age_group(dataset),
    }


def _age_group(dataset: Dataset) -> str:
    age = re.fullmatch(r"(\d{1,3})([DWMY])", text(dataset, "PatientAge"))
    born, seen = (
        re.fullmatch(r"(\d{4})(\d{4})", text(dataset, keyword))
        for keyword in ("PatientBirthDate", "StudyDate")
    )
    if age:
        years = int(int(age[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[age[2]])
    elif born and seen:
        years = int(seen[1]) - int(born[1]) - (seen[2] < born[2])
    else:
        return ""
    if not 0 <= years < 130:
        return ""
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def patient_key(dataset: Dataset, salt: str | bytes) -> str:
    """A pseudonym, 32 hexadecimal digits, that groups the images of one patient.

    Keyed BLAKE2b of Patient ID and its issuer; ``""`` where the file names no patient (or only "ANONYMOUS" and so on).
    Patient IDs are short numbers: who knows how a hash without a secret was made finds them by trying all. So keep the
    ``salt`` as one keeps a password, and use the same for all files that are to be grouped together; an empty one is an
    :class:`~histcxr.exceptions.InputError`.
    """
    number = text(dataset, "PatientID")
    message = f"{text(dataset, 'IssuerOfPatientID')}\0{number}".encode("utf-8", "surrogatepass")
    name = keyed_name(message, salt)
    return "" if number in _NOBODY else name


def keyed_name(message: bytes, salt: str | bytes) -> str:
    """A pseudonym, 32 hexadecimal digits, by keyed BLAKE2b; InputError: without a secret it could be guessed."""
    secret = salt.encode() if isinstance(salt, str) else bytes(salt)
    if not secret:
        raise InputError(
            "salt must not be empty: a hash of a number or a name without a secret can be guessed"
        )
    key = hashlib.blake2b(secret, digest_size=32).digest()
    return hashlib.blake2b(message, key=key, digest_size=16).hexdigest()


class ImageUids(NamedTuple):
    """UIDs of an image's study, series, instance and class, each ``""`` where it is missing or invalid (PS3.5, 9).

    They lead back to the patient in the archive that the image comes from, so no output holds them unless asked for.
    """

    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    sop_class: str = ""


def read_uids(path: str | os.PathLike[str]) -> ImageUids:
    """Read the identifiers of the image in a file, from its first bytes if they are there.

    All are empty when it is no DICOM file or cannot be read: whether it can be judged is asked elsewhere.
    """
    try:
        data = read_file(path, BEGINNING)
        _, found = tags_in(data)
        if not all(found) and len(data) == BEGINNING and sniff(data) == "DICOM":
            _, found = tags_in(read_file(path))
    except UnjudgeableError:
        return ImageUids()
    return found


def tags_in(data: bytes) -> tuple[dict[str, str], ImageUids]:
    """Find facts (:func:`facts_of`) and identifiers in a file's bytes; nothing where it is no readable DICOM file."""
    try:
        if sniff(data) == "DICOM":
            dataset = parse(data, last=_SERIES)
            return facts_of(dataset), uids_of(dataset)
    except UnjudgeableError:
        pass
    return {}, ImageUids()


def uids_of(dataset: Dataset) -> ImageUids:
    """The identifiers among elements that were read."""
    values = (text(dataset, f"{name}UID") for name in _UIDS)
    return ImageUids(*(value if len(value) <= 64 and _UID.fullmatch(value) else "" for value in values))
