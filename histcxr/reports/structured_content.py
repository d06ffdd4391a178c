"""The content of a structured report: the tree of TID 1500 (Measurement Report, PS3.16), and the codes in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from histcxr import __version__
from histcxr.decision.thresholds import REVIEW, RULE_IN, RULE_OUT

SCHEME = "99HISTCXR"
"""Designator of the private coding scheme: ``score``, ``drawer`` and the drawers, ``reason`` and the codes of
:class:`~histcxr.exceptions.Reason`.
"""

RESEARCH_USE = (
    "For research use only. Not a medical device, not a diagnosis: a reader must judge every image, whatever its "
    "drawer."
)
DRAWERS = {RULE_OUT: "Ruled out", REVIEW: "To be reviewed", RULE_IN: "Ruled in"}
"""Drawers, and their names in words."""

_NAMESPACE = uuid.UUID("6f1d1c5e-6d0b-5b0e-9c55-7b1c6d0f4a21")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a triage found in one image; the fields of a worklist's row.

    Attributes
    ----------
    decision : str
        ``rule_out``, ``review`` or ``rule_in``.
    score : float or None
        From 0 to 1; None where the image could not be judged.
    reason : str
        Why it could not be judged, in a sentence; "" where it was judged.
    reason_code : str
        The same as a code of :class:`~histcxr.exceptions.Reason`.
    """

    decision: str
    score: float | None
    reason: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What found it.

    Attributes
    ----------
    model : str
        Name of the model.
    model_hash : str
        SHA-256 of its manifest.
    rule_out, rule_in : float or None
        Its thresholds; None where there is none.
    version : str
        Of histcxr.
    """

    model: str
    model_hash: str
    rule_out: float | None = None
    rule_in: float | None = None
    version: str = __version__


def content_tree(images: Sequence[Any], findings: Sequence[Finding], algorithm: Algorithm) -> Any:
    """The content tree, by TID 1500."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=make_uid("device", algorithm.model_hash, algorithm.version),
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
        unit = codes.UCUM.NoUnits
        found_in = [sr.SourceImageForMeasurement(*instance)]
        name = _code("score", "Probability of being sick")
        measurements = [sr.Measurement(name, finding.score, unit, referenced_images=found_in)]
    evaluations = [
        sr.QualitativeEvaluation(
            _code("drawer", "Triage drawer"), _code(finding.decision, DRAWERS[finding.decision])
        )
    ]
    if finding.reason_code:
        meaning = finding.reason_code.replace("_", " ").capitalize()
        reason = _code("reason", "Reason why the image was not judged")
        evaluations.append(sr.QualitativeEvaluation(reason, _code(finding.reason_code, meaning)))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=make_uid("tracking", image.SOPInstanceUID, algorithm.model_hash, algorithm.version),
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


def coding_scheme(algorithm: Algorithm) -> Any:
    """What the private codes are, for who meets them in an archive."""
    from pydicom import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "histcxr: scores, drawers and reasons of a triage"
    item.CodingSchemeVersion = algorithm.version
    item.CodingSchemeResponsibleOrganization = "histcxr"
    return item


def make_uid(*parts: str) -> str:
    """A UID that equal parts give again: a name-based UUID under the root 2.25 (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"
