"""DICOM Structured Reports of a triage: what was found in the images of one study, for the archive they came from.

A report follows TID 1500 (Measurement Report, PS3.16): one measurement group for each image, with the score as a
number, the drawer and the reason of a ``review`` as codes of histcxr's own scheme, the identification of the algorithm,
and a reference to the image. It is preliminary, unverified, and says that it is for research use only.

**This is the one output that tells who the patient is.** A report belongs to its study, so name, number, birth date,
sex and what identifies the study are copied from the images, and nothing else is. It is made only for who asks for it;
keep it where the images may be kept.

highdicom comes with the extra ``report-dicom`` and is imported when the first report is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from histcxr import __version__
from histcxr.decision.thresholds import REVIEW, RULE_IN, RULE_OUT
from histcxr.exceptions import InputError, MissingDependencyError, Reason, how_to_install
from histcxr.files.writing import replacing

SCHEME = "99HISTCXR"
"""Designator of the private coding scheme: ``score``, ``drawer`` and the drawers, ``reason`` and the codes of
:class:`~histcxr.exceptions.Reason`.
"""

RESEARCH_USE = (
    "For research use only. Not a medical device, not a diagnosis: a reader must judge every image, whatever its "
    "drawer."
)
_DRAWERS = {RULE_OUT: "Ruled out", REVIEW: "To be reviewed", RULE_IN: "Ruled in"}
_NAMESPACE = uuid.UUID("6f1d1c5e-6d0b-5b0e-9c55-7b1c6d0f4a21")
_SERIES_NUMBER = 990
_CHARACTERS = "ISO_IR 192"  # UTF-8: holds every name, however the image wrote it

_NO_PATIENTS = ("DICOS", "Eddy Current")  # kinds of images of luggage and of materials
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# Patient and study: what links the report to both, and what the standard asks for (type 2 stays empty if missing).
_TEXTS = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")
_PATTERNS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "PatientSex": "[MFO]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a triage found in one image; the fields of a worklist's row.

    ``decision``: ``rule_out``, ``review`` or ``rule_in``; ``score``: from 0 to 1, None where it could not be judged;
    ``reason``: why not, in a sentence, "" where it was judged; ``reason_code``: the same as a code of
    :class:`~histcxr.exceptions.Reason`.
    """

    decision: str
    score: float | None
    reason: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What found it: name and manifest's SHA-256 of the model, its thresholds (None: none), histcxr's version."""

    model: str
    model_hash: str
    rule_out: float | None = None
    rule_in: float | None = None
    version: str = __version__


def write_structured_report(
    sources: Sequence[Any],
    findings: Sequence[Finding],
    output: str | os.PathLike[str],
    *,
    algorithm: Algorithm,
    created: datetime | None = None,
) -> Path:
    """Write :func:`structured_report` to a file, usually ``.dcm``; one of this name is replaced.

    :class:`~histcxr.exceptions.OutputError` says that it cannot be written.
    """
    report = structured_report(sources, findings, algorithm=algorithm, created=created)
    with replacing(output) as unfinished:
        report.save_as(unfinished, enforce_file_format=True)
    return Path(output)


def structured_report(
    sources: Sequence[Any],
    findings: Sequence[Finding],
    *,
    algorithm: Algorithm,
    created: datetime | None = None,
) -> Any:
    """Make a structured report, a ``highdicom.sr.ComprehensiveSR``, about the images of one study.

    Series and instance UIDs are made from the study, the model, and for the instance also from the images and what was
    found: the same triage gives the same UIDs, another result another instance in the same series.

    Parameters
    ----------
    sources : sequence of path-like or pydicom.Dataset
        The images, all of one study.
    findings : sequence of Finding
        One for each image.
    algorithm : Algorithm
    created : datetime, optional
        When the triage was done, in local time; by default now.

    Raises
    ------
    InputError
        When there is no image, their number is not that of the findings, an image is not DICOM or names no study,
        series, instance or class, two are of different studies or the same, or a finding contradicts itself.
    MissingDependencyError
        When highdicom is not installed.
    """
    hd = import_highdicom()
    if not sources or len(sources) != len(findings):
        raise InputError(
            f"sources and findings must be of one length, at least 1; got {len(sources)} and {len(findings)}"
        )
    for finding in findings:
        _check(finding)
    images = [identity_of(source) for source in sources]
    if len(studies := {image.StudyInstanceUID for image in images}) > 1:
        raise InputError(f"sources must be images of one study; they are of {len(studies)}")
    if len({image.SOPInstanceUID for image in images}) < len(images):
        raise InputError("sources must be different images; two have the same SOP Instance UID")
    seed = (images[0].StudyInstanceUID, algorithm.model_hash, algorithm.version)
    said = json.dumps(
        [[image.SOPInstanceUID, *astuple(finding)] for image, finding in zip(images, findings, strict=True)]
    )
    when = created or datetime.now()
    report = hd.sr.ComprehensiveSR(
        evidence=images,
        content=_content_tree(images, findings, algorithm),
        series_instance_uid=_uid("series", *seed),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_uid("instance", *seed, repr(astuple(algorithm)), said),
        instance_number=1,
        manufacturer="histcxr",
        manufacturer_model_name=f"histcxr {algorithm.model}"[:64],
        software_versions=algorithm.version,
        device_serial_number=algorithm.model_hash[:64] or None,
        series_description="histcxr triage, research use only",
        is_complete=True,
        content_date=when.date(),
        content_time=when.time(),
        specific_character_set=_CHARACTERS,
    )
    report.InstanceCreationDate, report.InstanceCreationTime = report.ContentDate, report.ContentTime
    for item in report.ContributingEquipmentSequence:  # highdicom signs what it made
        item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")
    report.CodingSchemeIdentificationSequence = [_coding_scheme(algorithm)]
    return report


def import_highdicom() -> Any:
    """Import highdicom; :class:`MissingDependencyError` says what to install."""
    try:
        import highdicom
        import highdicom.sr
    except ImportError as error:
        raise MissingDependencyError(
            f"highdicom is needed to write structured reports and cannot be imported ({error}); "
            f"install it with: {how_to_install('report-dicom')}",
            name=error.name,
        ) from error
    return highdicom


def _check(finding: Finding) -> None:
    if finding.decision not in _DRAWERS:
        raise InputError(f"decision must be one of {', '.join(_DRAWERS)}, got {finding.decision!r}")
    if finding.reason_code and finding.reason_code not in set(Reason):
        raise InputError(f"reason_code must be one of histcxr's reasons, got {finding.reason_code!r}")
    if finding.score is None and (not finding.reason_code or finding.decision != REVIEW):
        raise InputError("an image without a score must be in the drawer 'review' and have a reason_code")
    if finding.score is not None and not 0 <= finding.score <= 1:
        raise InputError(f"score must be a number from 0 to 1, got {finding.score!r}")


def identity_of(source: Any) -> Any:
    """Read only what a report takes over from an image: identifiers of image, study and patient.

    ``source`` is a path or a pydicom.Dataset; so is the result a data set, which can stand for the image in
    :func:`structured_report`. An InputError says that no report could refer to the image: it cannot be read, names no
    study, series, instance or class, or is no image.
    """
    from pydicom import Dataset
    from pydicom.uid import UID_dictionary

    name, found = ("the image", source) if isinstance(source, Dataset) else (os.fspath(source), _read(source))
    kept = Dataset()
    for keyword in _UIDS:
        value = _words(found, keyword)
        if not re.fullmatch(r"[0-9.]{1,64}", value):
            raise InputError(f"{name}: {keyword} must be there for a report to refer to the image")
        setattr(kept, keyword, value)
    kind = UID_dictionary.get(kept.SOPClassUID, ("",) * 5)
    if "Image Storage" not in kind[0] or kind[3] or kind[0].startswith(_NO_PATIENTS):  # [3]: retired
        raise InputError(f"{name}: SOPClassUID must be that of an image for a report to refer to it")
    for keyword in (*_TEXTS, *_OPTIONAL):
        value = _words(found, keyword)
        if value or keyword in _TEXTS:
            setattr(kept, keyword, value)
    for keyword, pattern in _PATTERNS.items():  # a value against the standard would make the report invalid
        value = _words(found, keyword)
        setattr(kept, keyword, value if re.fullmatch(pattern, value) else None)
    kept.SpecificCharacterSet = _CHARACTERS
    return kept


def _read(path: Any) -> Any:
    from pydicom import dcmread

    wanted = [*_UIDS, *_TEXTS, *_OPTIONAL, *_PATTERNS, "SpecificCharacterSet"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they may quote the patient
            return dcmread(path, stop_before_pixels=True, force=True, specific_tags=wanted)
    except Exception as error:  # noqa: BLE001 - damage may raise anything, and what it says may quote the patient
        raise InputError(
            f"sources must be DICOM files that can be read; {os.fspath(path)} is not ({type(error).__name__})"
        ) from None


def _words(dataset: Any, keyword: str) -> str:
    """The value of an element as text; nothing where it is missing or damaged."""
    value: Any = None
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = dataset.get(keyword)
    return str(value or "").strip()


def _content_tree(images: Sequence[Any], findings: Sequence[Finding], algorithm: Algorithm) -> Any:
    """The content tree, by TID 1500."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_uid("device", algorithm.model_hash, algorithm.version),
        name="histcxr",
        manufacturer_name="histcxr",
        model_name=algorithm.model,
        serial_number=algorithm.model_hash or None,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("399208008", "SCT", "Plain X-ray of chest"),
        imaging_measurements=[
            _group(number, image, finding, algorithm)
            for number, (image, finding) in enumerate(zip(images, findings, strict=True), start=1)
        ],
    )
    report[0].ContentSequence.append(_comment(RESEARCH_USE))
    return report


def _group(number: int, image: Any, finding: Finding, algorithm: Algorithm) -> Any:
    """Score, drawer and reason of one image, by TID 1501."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    instance = (image.SOPClassUID, image.SOPInstanceUID)
    parameters = [f"model {algorithm.model}", f"model SHA-256 {algorithm.model_hash}"]
    for name, threshold in (("rule-out", algorithm.rule_out), ("rule-in", algorithm.rule_in)):
        parameters.append(f"{name} threshold {'none' if threshold is None else repr(threshold)}")
    measurements = []
    if finding.score is not None:
        name, found_in = (
            _code("score", "Probability of being sick"),
            [sr.SourceImageForMeasurement(*instance)],
        )
        measurements = [sr.Measurement(name, finding.score, codes.UCUM.NoUnits, referenced_images=found_in)]
    drawer = _code(finding.decision, _DRAWERS[finding.decision])
    evaluations = [sr.QualitativeEvaluation(_code("drawer", "Triage drawer"), drawer)]
    if finding.reason_code:
        meaning = finding.reason_code.replace("_", " ").capitalize()
        reason = _code("reason", "Reason why the image was not judged")
        evaluations.append(sr.QualitativeEvaluation(reason, _code(finding.reason_code, meaning)))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=_uid("tracking", image.SOPInstanceUID, algorithm.model_hash, algorithm.version),
            identifier=f"image {number}",
        ),
        algorithm_id=sr.AlgorithmIdentification(
            name="histcxr",
            version=algorithm.version,
            parameters=parameters,
            family=codes.cid7162.HistogramAnalysis,
        ),
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[sr.SourceImageForMeasurementGroup(*instance)],
    )
    if finding.reason:
        group[0].ContentSequence.append(_comment(finding.reason))
    return group


def _comment(words: str) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.TextContentItem(codes.DCM.Comment, words, sr.RelationshipTypeValues.CONTAINS)


def _code(value: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, SCHEME, meaning)


def _coding_scheme(algorithm: Algorithm) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "histcxr: scores, drawers and reasons of a triage"
    item.CodingSchemeVersion = algorithm.version
    item.CodingSchemeResponsibleOrganization = "histcxr"
    return item


def _uid(*parts: str) -> str:
    """A UID that equal parts give again: a name-based UUID under the root 2.25 (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"
