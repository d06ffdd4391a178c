"""Structured reports, read back with pydicom: the tree, the identities, and the same UIDs for the same triage."""

import io
import random
import re
import sys
from dataclasses import replace
from datetime import datetime

import pydicom
import pytest
from highdicom.sr import srread
from pydicom.uid import UID_dictionary

from benchmarks.mutations import MUTATIONS
from histcxr.exceptions import InputError, MissingDependencyError, OutputError, Reason
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.reports.dicom_sr import (
    RESEARCH_USE,
    SCHEME,
    Algorithm,
    Finding,
    structured_report,
    write_structured_report,
)

IMAGE = make_phantom(3, size=(96, 80)).image
ALGORITHM = Algorithm("xgboost", "ab" * 32, rule_out=0.125, rule_in=0.875, version="1.2.3")
SICK = Finding("rule_in", 0.9375)
UNREAD = Finding("review", None, Reason.VIEW.sentence, "view")
PATIENT = {
    "PatientName": "Müller^Jörg",
    "PatientID": "A-17",
    "PatientBirthDate": "19700131",
    "PatientSex": "M",
    "StudyDate": "20260102",
    "StudyTime": "030405",
    "AccessionNumber": "ACC1",
    "StudyID": "S1",
    "PatientAddress": "SECRET STREET 1",
    "OperatorsName": "SECRET^OPERATOR",
    "ImageComments": "SECRET COMMENT",
}
WHEN = datetime(2026, 3, 4, 5, 6, 7)


def write_source(path, number=1, *, study="1.2.840.1", drop=(), **tags):
    identity = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": "1.2.840.2",
        "SOPInstanceUID": f"1.2.840.3.{number}",
        "SpecificCharacterSet": "ISO_IR 100",
    }
    data = encode_dicom(IMAGE, tags={**identity, **PATIENT, **tags}, drop=drop)
    path.write_bytes(data)
    return path


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "image.dcm")


def report_of(sources, findings, tmp_path, **options):
    options = {"algorithm": ALGORITHM, "created": WHEN, **options}
    return pydicom.dcmread(write_structured_report(sources, findings, tmp_path / "report.dcm", **options))


def walk(item):
    """Yield every content item below one, with what contains it."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def named(tree, value, scheme="DCM"):
    """Return content items by the code of their name."""
    found = []
    for item in walk(tree):
        name = item.ConceptNameCodeSequence[0]
        if (name.CodeValue, name.CodingSchemeDesignator) == (value, scheme):
            found.append(item)
    return found


def test_tree_of_a_judged_image(source, tmp_path):
    report = report_of([source], [SICK], tmp_path)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert report.Modality == "SR"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    (score,) = named(report, "score", SCHEME)
    assert score.ValueType == "NUM"
    measured = score.MeasuredValueSequence[0]
    assert measured.NumericValue == 0.9375
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    (drawer,) = named(report, "drawer", SCHEME)
    assert drawer.ConceptCodeSequence[0].CodeValue == "rule_in"
    assert not named(report, "reason", SCHEME)
    (name,), (version,) = named(report, "111001"), named(report, "111003")
    assert (name.TextValue, version.TextValue) == ("histcxr", "1.2.3")
    parameters = [item.TextValue for item in named(report, "111002")]
    assert f"model SHA-256 {ALGORITHM.model_hash}" in parameters
    assert "rule-out threshold 0.125" in parameters
    assert "rule-in threshold 0.875" in parameters
    (family,) = named(report, "111000")
    assert family.ConceptCodeSequence[0].CodeMeaning == "Histogram Analysis"
    (device,) = named(report, "121013")
    assert device.TextValue == "histcxr"
    assert [item.TextValue for item in named(report, "121106")] == [RESEARCH_USE]
    assert "esearch use only" in report.SeriesDescription
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == SCHEME
    states = (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag)
    assert states == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


def test_images_are_referred_to_by_uid(tmp_path):
    sources = [write_source(tmp_path / f"{i}.dcm", i) for i in (1, 2)]
    report = report_of(sources, [SICK, UNREAD], tmp_path)
    images = [item.ReferencedSOPSequence[0] for item in walk(report) if item.ValueType == "IMAGE"]
    assert {image.ReferencedSOPInstanceUID for image in images} == {"1.2.840.3.1", "1.2.840.3.2"}
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == "1.2.840.1"
    series = evidence.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.840.2"
    assert len(series.ReferencedSOPSequence) == 2


def test_image_that_could_not_be_judged(source, tmp_path):
    report = report_of([source], [UNREAD], tmp_path)
    assert not named(report, "score", SCHEME)
    assert named(report, "drawer", SCHEME)[0].ConceptCodeSequence[0].CodeValue == "review"
    assert named(report, "reason", SCHEME)[0].ConceptCodeSequence[0].CodeValue == "view"
    comments = [item.TextValue for item in named(report, "121106")]
    assert sorted(comments) == sorted([RESEARCH_USE, Reason.VIEW.sentence])


@pytest.mark.parametrize("code", list(Reason))
def test_every_reason_fits(source, code):
    report = structured_report(
        [source], [Finding("review", None, code.sentence, str(code))], algorithm=ALGORITHM
    )
    meaning = named(report, "reason", SCHEME)[0].ConceptCodeSequence[0].CodeMeaning
    assert len(meaning) <= 64


def test_highdicom_reads_its_template_again(source, tmp_path):
    write_structured_report([source], [SICK], tmp_path / "report.dcm", algorithm=ALGORITHM)
    (group,) = srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
    (measurement,) = group.get_measurements()
    assert measurement.value == 0.9375
    assert group.source_images[0].referenced_sop_instance_uid == "1.2.840.3.1"


def test_patient_and_study_are_those_of_the_images_and_no_more(source, tmp_path):
    report = report_of([source], [SICK], tmp_path)
    assert report.StudyInstanceUID == "1.2.840.1"
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "AccessionNumber",
    ):
        assert str(report[keyword].value) == PATIENT[keyword]
    assert report.SeriesInstanceUID != "1.2.840.2"
    assert b"SECRET" not in (tmp_path / "report.dcm").read_bytes()


def test_missing_and_invalid_values_stay_empty(tmp_path):
    drop = ("PatientID", "AccessionNumber", "StudyTime", "SpecificCharacterSet", "PatientName")
    source = write_source(tmp_path / "i.dcm", drop=drop, PatientSex="X", PatientBirthDate="1970")
    report = report_of([source], [SICK], tmp_path)
    for keyword in (
        "PatientID",
        "AccessionNumber",
        "StudyTime",
        "PatientName",
        "PatientSex",
        "PatientBirthDate",
    ):
        assert keyword in report
        assert not report[keyword].value


def test_the_same_triage_gives_the_same_file(source, tmp_path):
    files = []
    for name in ("a.dcm", "b.dcm"):
        path = write_structured_report([source], [SICK], tmp_path / name, algorithm=ALGORITHM, created=WHEN)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    first, later = (
        structured_report([source], [SICK], algorithm=ALGORITHM, created=at) for at in (WHEN, None)
    )
    assert first.SOPInstanceUID == later.SOPInstanceUID
    assert str(first.ContentDate) == "20260304"


def test_another_result_or_model_is_another_instance(source):
    first = structured_report([source], [SICK], algorithm=ALGORITHM)
    other = structured_report([source], [replace(SICK, score=0.5)], algorithm=ALGORITHM)
    newer = structured_report([source], [SICK], algorithm=replace(ALGORITHM, model_hash="cd" * 32))
    assert len({report.SOPInstanceUID for report in (first, other, newer)}) == 3
    assert first.SeriesInstanceUID == other.SeriesInstanceUID != newer.SeriesInstanceUID
    for report in (first, newer):
        assert report.SeriesInstanceUID.startswith("2.25.")
        assert pydicom.uid.UID(report.SOPInstanceUID).is_valid


def test_data_sets_do_as_well_as_files(source, tmp_path):
    dataset = pydicom.dcmread(source)
    before = dataset.to_json()
    stream = io.BytesIO()
    report = structured_report([dataset], [SICK], algorithm=ALGORITHM, created=WHEN)
    report.save_as(stream, enforce_file_format=True)
    path = write_structured_report([source], [SICK], tmp_path / "r.dcm", algorithm=ALGORITHM, created=WHEN)
    assert stream.getvalue() == path.read_bytes()
    assert dataset.to_json() == before


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        (Finding("maybe", 0.5), "decision must be one of rule_out, review, rule_in, got 'maybe'"),
        (Finding("rule_out", None, "?", "view"), "without a score must be in the drawer 'review'"),
        (Finding("review", None), "have a reason_code"),
        (Finding("review", float("nan")), "score must be a number from 0 to 1, got nan"),
        (
            Finding("review", None, "?", "bad_luck"),
            "reason_code must be one of histcxr's reasons, got 'bad_luck'",
        ),
    ],
)
def test_findings_that_contradict_themselves(source, finding, message):
    with pytest.raises(InputError, match=message):
        structured_report([source], [finding], algorithm=ALGORITHM)


def test_sources_that_do_not_go_together(source, tmp_path):
    with pytest.raises(InputError, match="one length, at least 1; got 0 and 0"):
        structured_report([], [], algorithm=ALGORITHM)
    with pytest.raises(InputError, match="got 1 and 2"):
        structured_report([source], [SICK, SICK], algorithm=ALGORITHM)
    with pytest.raises(InputError, match="same SOP Instance UID"):
        structured_report([source, source], [SICK, SICK], algorithm=ALGORITHM)
    other = write_source(tmp_path / "other.dcm", 2, study="1.2.840.9")
    with pytest.raises(InputError, match="of one study; they are of 2"):
        structured_report([source, other], [SICK, SICK], algorithm=ALGORITHM)


def test_files_that_are_no_sources(tmp_path):
    for name, content in (("text.dcm", b"no DICOM at all" * 20), ("empty.dcm", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            structured_report([tmp_path / name], [SICK], algorithm=ALGORITHM)
    with pytest.raises(InputError, match=r"missing\.dcm is not"):
        structured_report([tmp_path / "missing.dcm"], [SICK], algorithm=ALGORITHM)
    source = write_source(tmp_path / "i.dcm", drop=("StudyInstanceUID",))
    with pytest.raises(InputError, match=r"i\.dcm: StudyInstanceUID must be there"):
        structured_report([source], [SICK], algorithm=ALGORITHM)


def test_no_place_to_write(source, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_structured_report([source], [SICK], tmp_path / "no" / "r.dcm", algorithm=ALGORITHM)


def test_without_highdicom(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[report-dicom\]'"):
        structured_report([source], [SICK], algorithm=ALGORITHM)


@pytest.mark.parametrize("name", MUTATIONS)
def test_damaged_sources_give_a_report_or_an_error_that_names_the_file(tmp_path, name):
    rng = random.Random(name)
    sound = write_source(tmp_path / "sound.dcm").read_bytes()
    for _ in range(25):
        (tmp_path / "damaged.dcm").write_bytes(MUTATIONS[name](sound, rng, [sound]))
        report, said = outcome(tmp_path / "damaged.dcm")
        assert report is not None or "damaged.dcm" in said
        assert "Jörg" not in said
        if report is not None:
            report.save_as(io.BytesIO(), enforce_file_format=True)


def outcome(path):
    try:
        return structured_report([path], [SICK], algorithm=ALGORITHM), ""
    except InputError as error:
        return None, str(error)


def test_every_kind_of_image_can_be_referred_to(source):
    current = {uid: entry[0] for uid, entry in UID_dictionary.items() if not entry[3]}
    images = [uid for uid, name in current.items() if re.match("(?!DICOS|Eddy).*Image Storage", name)]
    assert len(images) > 50
    dataset = pydicom.dcmread(source)
    for uid in images:
        dataset.SOPClassUID = uid
        report = structured_report([dataset], [UNREAD], algorithm=ALGORITHM)
        series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == uid
    for uid in ("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.501.1", "1.2.3"):
        dataset.SOPClassUID = uid
        with pytest.raises(InputError, match="must be that of an image"):
            structured_report([dataset], [UNREAD], algorithm=ALGORITHM)
