"""Structured reports of a finished triage: one a study, every file accounted for, nothing of another run."""

import csv
import json
import os
import re
import shutil
import sys

import pytest

from histcxr.exceptions import InputError, MissingDependencyError, OutputError, Reason
from histcxr.files.cells import unguarded
from histcxr.store import model_hash
from histcxr.worklist.engine import triage
from histcxr.worklist.study_reports import (
    CHANGED,
    COPY,
    NO_DICOM,
    NO_IMAGE,
    NO_UIDS,
    NOT_READ,
    OTHER_FILE,
    TWO_PATIENTS,
    write_study_reports,
)

from .conftest import write_dicom_pair, write_pair

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

FIRST, SECOND = "1.2.840.1", "1.2.840.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
FATES = {
    "=1.dcm": "",
    "b/second.dcm": "",
    "copy.dcm": COPY,
    "lateral": "",
    "missing.dcm": NOT_READ,
    "nameless.dcm": NO_UIDS,
    "other.dcm": NO_IMAGE,
    "plain.png": NO_DICOM,
    "text.dcm": NO_DICOM,
    "\\xff.dcm": "",
}


@pytest.fixture
def archive(tmp_path):
    """Two studies, of three images and of one, and what has no report."""
    folder = tmp_path / "archive"
    patient = {"PatientName": "SECRET^NAME", "PatientID": "SECRET-1"}
    write_dicom_pair(folder, "=1.dcm", 1, sick=True, study=FIRST, **patient)
    write_dicom_pair(folder, "copy.dcm", 1, sick=True, study=FIRST, **patient)
    write_dicom_pair(folder, "lateral", 2, study=FIRST, ViewPosition="LL", **patient)
    write_dicom_pair(folder, "x.dcm", 3, study=FIRST, **patient)
    os.rename(os.fsencode(folder / "x.dcm"), os.fsencode(folder) + b"/\xff.dcm")
    write_dicom_pair(folder, "b/second.dcm", 1, study=SECOND)
    write_dicom_pair(folder, "nameless.dcm", 5, StudyInstanceUID="")
    write_dicom_pair(folder, "other.dcm", 6, study=SECOND, SOPClassUID=SR, Modality="SR")
    write_pair(folder, "plain.png", 7)
    (folder / "text.dcm").write_text("no DICOM at all")
    os.symlink("nowhere", folder / "missing.dcm")
    return folder


@pytest.fixture
def worklist(archive, model, tmp_path):
    triage(archive, model, tmp_path / "w.csv", segment=False)
    return tmp_path / "w.csv"


def table(folder):
    with open(folder / "reports.csv", newline="", encoding="utf-8") as file:
        return {unguarded(row["file"]): row for row in csv.DictReader(file)}


def walk(item):
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def outcomes(report):
    """Instance to score, drawer and reason, from the tree of a report."""
    found = {}
    for group in walk(report):
        if group.ConceptNameCodeSequence[0].CodeValue != "125007":  # measurement group
            continue
        said, instance = {}, ""
        for item in group.ContentSequence:
            name = item.ConceptNameCodeSequence[0].CodeValue
            if item.ValueType == "NUM":
                said[name] = float(item.MeasuredValueSequence[0].NumericValue)
            elif item.ValueType == "CODE":
                said[name] = item.ConceptCodeSequence[0].CodeValue
            elif item.ValueType == "IMAGE":
                instance = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        found[instance] = (said.get("score"), said["drawer"], said.get("reason", ""))
    return found


def reports(folder):
    return {path.name: pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))}


def test_one_report_a_study_and_every_file_accounted_for(worklist, model, tmp_path):
    result = write_study_reports(worklist, tmp_path / "out")
    fates = table(tmp_path / "out")
    assert {name: row["reason"] for name, row in fates.items()} == FATES
    assert all(bool(row["report"]) != bool(row["reason"]) for row in fates.values())
    assert (result.total, result.reports, result.images, result.exit_code) == (10, 2, 4, 3)
    assert result.left_out == {
        reason: tuple(sorted(name for name, fate in FATES.items() if fate == reason))
        for reason in sorted({*FATES.values()} - {""})
    }
    assert json.loads(json.dumps(result.to_dict()))["left_out"][COPY] == ["copy.dcm"]
    written = reports(tmp_path / "out")
    assert {report.StudyInstanceUID for report in written.values()} == {FIRST, SECOND}
    assert sorted(os.listdir(tmp_path / "out")) == ["SR000001.dcm", "SR000002.dcm", "reports.csv"]

    with open(worklist, newline="", encoding="utf-8") as file:
        rows = {unguarded(row["file"]): row for row in csv.DictReader(file)}
    instances = {
        "=1.dcm": f"{FIRST}.1.1",
        "lateral": f"{FIRST}.2.1",
        "\\xff.dcm": f"{FIRST}.3.1",
        "b/second.dcm": f"{SECOND}.1.1",
    }
    for name, instance in instances.items():
        score, drawer, reason = outcomes(written[fates[name]["report"]])[instance]
        assert (drawer, reason) == (rows[name]["decision"], rows[name]["reason_code"])
        assert score == (pytest.approx(float(rows[name]["score"]), rel=1e-5) if rows[name]["score"] else None)
    assert rows["lateral"]["reason_code"] == Reason.VIEW
    assert [len(outcomes(report)) for report in written.values()] == [3, 1]

    report = written[fates["=1.dcm"]["report"]]
    assert str(report.PatientName) == "SECRET^NAME"
    said = [item.TextValue for item in walk(report) if item.ValueType == "TEXT"]
    assert f"model SHA-256 {model_hash(model)}" in said
    assert f"rule-out threshold {model.rule_out.threshold!r}" in said


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("uids", [False, True])
def test_format_order_and_uids_change_no_report(archive, worklist, model, tmp_path, kind, uids):
    other = tmp_path / f"w.{kind}"
    triage(archive, model, other, segment=False, sort="urgency", uids=uids)
    write_study_reports(worklist, tmp_path / "a")
    write_study_reports(other, tmp_path / "b")
    first, second = (
        {report.SOPInstanceUID: outcomes(report) for report in reports(tmp_path / name).values()}
        for name in "ab"
    )
    assert first == second
    assert len(first) == 2


def test_the_same_triage_gives_the_same_files(worklist, tmp_path):
    for name in "ab":
        write_study_reports(worklist, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_report_speaks_of_another_image_than_was_judged(archive, worklist, tmp_path):
    second, lateral = archive / "b" / "second.dcm", archive / "lateral"
    shutil.copy(second, tmp_path / "kept")
    second.write_bytes((archive / "copy.dcm").read_bytes())
    content = lateral.read_bytes()
    lateral.unlink()
    result = write_study_reports(worklist, tmp_path / "out")
    assert result.left_out[CHANGED] == ("b/second.dcm", "lateral")
    assert result.reports == 1
    shutil.copy(tmp_path / "kept", second)  # other times, the same bytes
    lateral.write_bytes(content)
    result = write_study_reports(worklist, tmp_path / "again")
    assert CHANGED not in result.left_out
    assert result.reports == 2


def test_of_the_files_of_an_instance_the_sound_one_counts(model, tmp_path):
    folder = tmp_path / "archive"
    write_dicom_pair(folder, "a.dcm", 1, ViewPosition="LL")  # the same instance, unjudged
    write_dicom_pair(folder, "b.dcm", 1)
    write_dicom_pair(folder, "c.dcm", 1)
    triage(folder, model, tmp_path / "w.csv", segment=False)
    result = write_study_reports(tmp_path / "w.csv", tmp_path / "out")
    assert result.left_out == {COPY: ("c.dcm",), OTHER_FILE: ("a.dcm",)}
    (report,) = reports(tmp_path / "out").values()
    assert [reason for _, _, reason in outcomes(report).values()] == [""]


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({"PatientID": "2"}, False),
        ({"PatientID": "1", "PatientName": "ANNA^B", "PatientBirthDate": "19610101"}, False),
        ({"PatientID": "1", "PatientName": "other^name"}, False),
        ({"PatientID": "1", "PatientName": "anna^b^"}, True),
        ({"PatientID": "", "PatientName": ""}, True),
    ],
)
def test_two_patients_never_become_one_report(model, tmp_path, other, together):
    folder = tmp_path / "archive"
    first = {"PatientID": "1", "PatientName": "ANNA^B", "PatientBirthDate": "19600101"}
    write_dicom_pair(folder, "a.dcm", 1, study=FIRST, **first)
    write_dicom_pair(folder, "b.dcm", 2, study=FIRST, **other)
    write_dicom_pair(folder, "c.dcm", 3, study=SECOND, **first)
    triage(folder, model, tmp_path / "w.csv", segment=False)
    result = write_study_reports(tmp_path / "w.csv", tmp_path / "out")
    assert result.left_out == ({} if together else {TWO_PATIENTS: ("a.dcm", "b.dcm")})
    assert len(reports(tmp_path / "out")) == 1 + together


def test_lines_of_earlier_runs_do_not_count(archive, worklist, model, tmp_path):
    write_dicom_pair(archive, "b/second.dcm", 1, sick=True, study=SECOND)
    (archive / "lateral").unlink()
    triage(archive, model, worklist, segment=False)
    result = write_study_reports(worklist, tmp_path / "out")
    assert result.total == 9
    fates = table(tmp_path / "out")
    assert "lateral" not in fates
    (outcome,) = outcomes(reports(tmp_path / "out")[fates["b/second.dcm"]["report"]]).values()
    with open(worklist, newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["file"] == "b/second.dcm")
    assert outcome[0] == pytest.approx(float(row["score"]))


def test_lists_and_single_files(archive, model, tmp_path):
    (tmp_path / "list.csv").write_text(
        "image,mask\narchive/=1.dcm,archive/masks/=1.png\narchive/b/second.dcm,archive/masks/b/second.png\n"
    )
    for number, data in enumerate((tmp_path / "list.csv", archive / "=1.dcm"), start=1):
        triage(data, model, tmp_path / f"{number}.jsonl", segment=False)
        result = write_study_reports(tmp_path / f"{number}.jsonl", tmp_path / f"out{number}")
        assert (result.exit_code, result.left_out) == (0, {})


def test_nothing_to_report_is_said(study, model, tmp_path):
    triage(study, model, tmp_path / "w.csv", segment=False)
    result = write_study_reports(tmp_path / "w.csv", tmp_path / "out")
    assert (result.reports, result.exit_code) == (0, 3)
    assert len(result.left_out[NO_DICOM]) == 23 == len(table(tmp_path / "out"))


# --- what is refused -----------------------------------------------------------------------------------


def refused(worklist, tmp_path, message, error=InputError, **options):
    with pytest.raises(error, match=message):
        write_study_reports(worklist, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_ended(worklist, tmp_path):
    audit = tmp_path / "w.csv.audit.jsonl"
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[:-1]))
    refused(worklist, tmp_path, "has not ended; give the same triage command again")
    audit.write_bytes(b"".join(lines)[:-5])
    refused(worklist, tmp_path, "has not ended; give the same triage command again")


def test_a_worklist_that_is_not_the_trails(archive, worklist, tmp_path):
    text = worklist.read_text()
    worklist.write_text(re.sub(r"(lateral,[^,]*),review", r"\1,rule_out", text))
    refused(worklist, tmp_path, r"row 4, 'lateral', is not what .* says of it")
    worklist.write_text("\n".join(text.split("\n")[:-2]) + "\n")
    refused(worklist, tmp_path, "has 9 rows, and the last run of .* wrote 10")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_files_that_are_no_worklist(worklist, tmp_path, name):
    for content in (b"some,other\ntable,1\n", b"\xff\xfe", b"[1]\n"):
        (tmp_path / name).write_bytes(content)
        refused(
            tmp_path / name, tmp_path, "must be a file of histcxr triage", audit=f"{worklist}.audit.jsonl"
        )
    refused(tmp_path / "no.csv", tmp_path, "cannot be read", audit=f"{worklist}.audit.jsonl")


def test_files_that_are_no_trail(worklist, tmp_path):
    refused(worklist, tmp_path, "other.jsonl cannot be read", audit=tmp_path / "other.jsonl")
    for content in (b"", b"text", b"{}\n", b'{"record":"run"}\n'):
        (tmp_path / "other.jsonl").write_bytes(content)
        refused(worklist, tmp_path, "other.jsonl is another file", audit=tmp_path / "other.jsonl")


def test_a_folder_with_something_in_it(worklist, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "SR000001.dcm").write_text("older")
    with pytest.raises(InputError, match="must be a new or empty folder"):
        write_study_reports(worklist, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["SR000001.dcm"]
    with pytest.raises(InputError, match="must be a new or empty folder"):
        write_study_reports(worklist, worklist)
    (tmp_path / "empty").mkdir()
    assert write_study_reports(worklist, tmp_path / "empty").reports == 2


def test_no_place_to_write(worklist, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_study_reports(worklist, worklist / "below")


def test_without_highdicom(worklist, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    refused(worklist, tmp_path, r"pip install '\.\[report-dicom\]'", MissingDependencyError)
