"""DICOM at the command line: identifiers and patients only where asked for, and the secret out of sight."""

import csv
import json
import sys

import cv2
import pandas as pd
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.files.writing import write_mask
from histcxr.phantoms.anatomy import make_phantom

pydicom = pytest.importorskip("pydicom")
from histcxr.phantoms.dicom_files import encode_dicom  # noqa: E402 - it needs pydicom

SECRET = "do not tell"
SPLITS = ("train", "train", "train", "val", "test")


def histcxr(*arguments, env=None):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two images each of 40 patients, as DICOM, with a list that names no patient."""
    folder = tmp_path_factory.mktemp("study")
    rows = []
    for number in range(80):
        patient, sick = number // 2, number // 2 % 2 == 1
        phantom = make_phantom(number, sick=sick, size=(64, 64), severity=0.9 if sick else None)
        name, view = f"{number}.dcm", ("PA", "AP")[number % 2]
        tags = {
            "PatientID": f"NUMBER-{patient}",
            "PatientName": "SECRET^NAME",
            "PatientSex": "FM"[patient % 2],
            "PatientAge": "063Y",
            "ViewPosition": view,
            "StudyInstanceUID": f"1.2.840.{patient}",
            "SeriesInstanceUID": f"1.2.840.{patient}.1",
            "SOPInstanceUID": f"1.2.840.{patient}.1.{number}",
        }
        (folder / name).write_bytes(encode_dicom(phantom.image, tags=tags))
        write_mask(folder / "masks" / f"{number}.png", phantom.mask)
        label = "Pneumonia" if sick else "Normal"
        rows.append([name, f"masks/{number}.png", label, SPLITS[patient // 2 % len(SPLITS)]])
    with open(folder / "study.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "label", "split"], *rows])
    return folder


@pytest.fixture(scope="module")
def model(study):
    quick = ("--classifier", "knn", "--zones", "1", "--trials", "0")
    outputs = ("-o", study / "m.histcxr", "--json", study / "train.json")
    result = histcxr(
        "train", study / "study.csv", *quick, *outputs, "--dicom-tags", env={"HISTCXR_SALT": SECRET}
    )
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    return study / "m.histcxr"


# --- facts and patients --------------------------------------------------------------------------------


def extracted(study, path, *arguments, env=None):
    result = histcxr("extract", study / "study.csv", "-o", path, *arguments, env=env)
    assert result.exit_code == 0, result.output
    return pd.read_parquet(path)


def test_extract_takes_facts_but_no_patients_without_a_secret(study, tmp_path):
    table = extracted(study, tmp_path / "h.parquet", "--dicom-tags")
    assert set(table["view"]) == {"PA", "AP"}
    assert set(table["sex"]) == {"F", "M"}
    assert set(table["age_group"]) == {"60-69"}
    assert set(table["modality"]) == {"CR"}
    assert set(table["patient_id"]) == {""}
    assert not {"study_uid", "series_uid"} & set(table.columns)
    plain = extracted(study, tmp_path / "plain.parquet", env={"HISTCXR_SALT": SECRET})
    assert "view" not in plain
    assert set(plain["patient_id"]) == {""}


def test_patients_are_the_same_pseudonyms_by_option_and_variable(study, tmp_path):
    by_option = extracted(study, tmp_path / "a.parquet", "--dicom-tags", "--salt", SECRET)
    by_variable = extracted(study, tmp_path / "b.parquet", "--dicom-tags", env={"HISTCXR_SALT": SECRET})
    other = extracted(study, tmp_path / "c.parquet", "--dicom-tags", "--salt", "another")
    assert by_option["patient_id"].tolist() == by_variable["patient_id"].tolist()
    assert by_option.groupby("patient_id").size().tolist() == [2] * 40
    assert not set(by_option["patient_id"]) & set(other["patient_id"])
    for path in tmp_path.iterdir():
        for word in (b"NUMBER-", b"SECRET", SECRET.encode()):
            assert word not in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--salt", SECRET], "is of use with --dicom-tags only"),
        (["--dicom-tags", "--salt", ""], "must not be empty"),
    ],
)
@pytest.mark.parametrize("command", ["extract", "train", "evaluate"])
def test_a_secret_that_would_do_nothing_is_refused(study, model, tmp_path, command, arguments, message):
    needed = {"extract": ["-o", tmp_path / "h.csv"], "train": [], "evaluate": ["-m", model]}[command]
    result = histcxr(command, study / "study.csv", *needed, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert SECRET not in result.output


def test_the_secret_is_nowhere_in_the_help(study):
    result = histcxr("train", "--help", env={"HISTCXR_SALT": SECRET})
    assert "HISTCXR_SALT" in result.output
    assert SECRET not in result.output


def test_train_groups_by_patient_and_evaluate_by_view(study, model, tmp_path):
    report = json.loads((study / "train.json").read_text())
    assert report["data"]["train"]["patients"] * 2 == report["data"]["train"]["images"]
    assert report["data"]["train"]["age_group"] == {"60-69": report["data"]["train"]["images"]}
    for path in (*model.iterdir(), study / "train.json"):
        assert SECRET.encode() not in path.read_bytes()
        assert b"NUMBER-" not in path.read_bytes()
    result = histcxr("evaluate", study / "study.csv", "-m", model, "--dicom-tags", "--salt", SECRET, "--by", "view",
                     "--json", tmp_path / "e.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "e.json").read_text())
    assert {view: group["images"] for view, group in figures["groups"]["view"].items()} == {"AP": 8, "PA": 8}
    plain = histcxr("evaluate", study / "study.csv", "-m", model, "--by", "view")
    assert plain.exit_code == 2
    assert "by must name columns of the data, got ['view']" in plain.output


# --- identifiers and reports ---------------------------------------------------------------------------


def test_from_triage_to_reports(study, model, tmp_path):
    pytest.importorskip("highdicom")
    for extra in ("one", "two"):
        cv2.imwrite(str(study / f"{extra}.png"), make_phantom(3).image)
    worklist, folder = tmp_path / "w.csv", tmp_path / "reports"
    result = histcxr("triage", study / "study.csv", "-m", model, "-o", worklist, "--no-segment", "--uids")
    assert result.exit_code == 0, result.output
    with open(worklist, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_uid"] for row in rows] == [f"1.2.840.{number // 2}" for number in range(80)]
    assert rows[5]["sop_uid"] == "1.2.840.2.1.5"
    result = histcxr("report", worklist, "-o", folder, "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert f"40 reports about 80 of 80 files in {folder}" in result.output
    assert "name the patients" in result.output
    said = json.loads((tmp_path / "r.json").read_text())
    assert (said["reports"], said["left_out"]) == (40, {})
    assert len(list(folder.glob("*.dcm"))) == 40
    assert str(pydicom.dcmread(folder / "SR000007.dcm").PatientName) == "SECRET^NAME"
    again = histcxr("report", worklist, "-o", folder)
    assert again.exit_code == 2
    assert "new or empty folder" in again.output


def test_default_outputs_name_nobody(study, model, tmp_path):
    result = histcxr(
        "triage", study, "-m", model, "-o", tmp_path / "w.csv", "--no-segment", "--json", tmp_path / "j"
    )
    assert result.exit_code in (0, 3), result.output
    for path in tmp_path.iterdir():
        for word in (b"SECRET", b"NUMBER-", b"1.2.840."):
            assert word not in path.read_bytes()


def test_what_has_no_report_is_named(study, model, tmp_path):
    pytest.importorskip("highdicom")
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "0.dcm").write_bytes((study / "0.dcm").read_bytes())
    for number in range(7):
        cv2.imwrite(str(folder / f"p{number}.png"), make_phantom(number).image)
    histcxr("triage", folder, "-m", model, "-o", tmp_path / "w.jsonl", "--no-segment")
    result = histcxr("report", tmp_path / "w.jsonl", "-o", tmp_path / "reports")
    assert result.exit_code == 3
    assert "1 report about 1 of 8 files" in result.output
    assert (
        "7 left out: not a DICOM file: p0.png, p1.png, p2.png, p3.png, p4.png and 2 more in reports.csv"
        in result.output
    )


def test_report_without_highdicom_says_what_to_install(study, model, tmp_path, monkeypatch):
    histcxr("triage", study / "0.dcm", "-m", model, "-o", tmp_path / "w.csv", "--no-segment")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    result = histcxr("report", tmp_path / "w.csv", "-o", tmp_path / "reports")
    assert result.exit_code == 1
    assert "pip install '.[report-dicom]'" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "reports").exists()


def test_help_says_who_is_named(study):
    text = " ".join(histcxr("report", "--help").output.split())
    assert "THE REPORTS NAME THE PATIENTS" in text
    assert "lead back to the patient" in " ".join(histcxr("triage", "--help").output.split())
