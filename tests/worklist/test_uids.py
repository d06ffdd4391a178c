"""Identifiers of DICOM images in the worklist: only where asked for, in every format, and read only once."""

import csv
import json
import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from histcxr.exceptions import InputError
from histcxr.files.reading import read_file
from histcxr.worklist import judging
from histcxr.worklist.engine import triage
from histcxr.worklist.rows import UID_COLUMNS

from .conftest import write_dicom_pair, write_pair

pytest.importorskip("pydicom")

NONE = ("", "", "")
UIDS = {
    "a.dcm": ("1.2.840.1", "1.2.840.1.1", "1.2.840.1.1.1"),
    "b": ("1.2.840.1", "1.2.840.1.2", "1.2.840.1.2.1"),
    "cut.dcm": ("1.2.840.7", "1.2.840.7.3", "1.2.840.7.3.1"),
    "lateral.dcm": ("1.2.840.7", "1.2.840.7.4", "1.2.840.7.4.1"),
    "missing.dcm": NONE,
    "nameless.dcm": ("", "", "1.2.840.1.5.1"),
    "plain.png": NONE,
    "text.dcm": NONE,
}


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    write_dicom_pair(folder, "a.dcm", 1)
    write_dicom_pair(folder, "b", 2)
    cut = write_dicom_pair(folder, "cut.dcm", 3, study="1.2.840.7")
    cut.write_bytes(cut.read_bytes()[:-2000])
    write_dicom_pair(folder, "lateral.dcm", 4, study="1.2.840.7", ViewPosition="LL")
    write_dicom_pair(folder, "nameless.dcm", 5, StudyInstanceUID="", SeriesInstanceUID="=1+1")
    write_pair(folder, "plain.png", 6)
    (folder / "text.dcm").write_text("=1+1, no DICOM at all")
    os.symlink("nowhere", folder / "missing.dcm")
    return folder


def uids_of(rows):
    return {row["file"]: tuple(row[name] for name in UID_COLUMNS) for row in rows}


def test_every_format_names_them(archive, model, tmp_path):
    for name in ("w.csv", "w.jsonl", "w.parquet"):
        triage(archive, model, tmp_path / name, segment=False, uids=True, sort="urgency")
    with open(tmp_path / "w.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["model", *UID_COLUMNS]
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    table = pd.read_parquet(tmp_path / "w.parquet")
    assert uids_of(rows) == uids_of(lines) == uids_of(table.to_dict("records")) == UIDS
    assert {row["reason_code"] for row in rows} == {"", "truncated", "view", "not_found", "not_an_image"}


@pytest.mark.parametrize("name", ["w.csv", "w.jsonl", "w.parquet"])
def test_nothing_holds_them_by_default(archive, model, tmp_path, name):
    triage(archive, model, tmp_path / name, segment=False)
    for path in (tmp_path / name, tmp_path / f"{name}.audit.jsonl"):
        assert b"1.2.840" not in path.read_bytes()
        assert b"study_uid" not in path.read_bytes()


@pytest.mark.parametrize("uids", [False, True])
def test_a_run_with_the_other_setting_is_refused(archive, model, tmp_path, uids):
    triage(archive, model, tmp_path / "w.csv", segment=False, uids=uids)
    before = (tmp_path / "w.csv").read_bytes()
    with pytest.raises(InputError, match=r"belongs to a run with uids .*overwrite it"):
        triage(archive, model, tmp_path / "w.csv", segment=False, uids=not uids)
    assert (tmp_path / "w.csv").read_bytes() == before
    assert triage(archive, model, tmp_path / "w.csv", segment=False, uids=uids).resumed == len(UIDS)
    assert (tmp_path / "w.csv").read_bytes() == before
    triage(archive, model, tmp_path / "w.csv", segment=False, uids=not uids, overwrite=True)
    assert (b"1.2.840" in (tmp_path / "w.csv").read_bytes()) != uids


def test_a_run_cut_anywhere_goes_on_to_the_same_worklist(archive, model, tmp_path):
    triage(archive, model, tmp_path / "whole.csv", segment=False, uids=True, batch_size=3)
    whole = (tmp_path / "whole.csv").read_bytes()
    content = (tmp_path / "whole.csv.audit.jsonl").read_bytes()
    for cut in np.random.default_rng(4).integers(0, len(content), 12):
        (tmp_path / "cut.csv.audit.jsonl").write_bytes(content[:cut])
        triage(archive, model, tmp_path / "cut.csv", segment=False, uids=True, batch_size=3)
        assert (tmp_path / "cut.csv").read_bytes() == whole
        (tmp_path / "cut.csv").unlink()


def test_no_file_is_read_twice_for_them(archive, model, tmp_path, monkeypatch):
    reads = Counter()

    def counted(path, *arguments):
        reads[os.path.basename(path)] += 1
        return read_file(path, *arguments)

    monkeypatch.setattr(judging, "read_file", counted)
    monkeypatch.setattr("histcxr.dicom.tags.read_file", counted)
    triage(archive, model, tmp_path / "w.csv", segment=False, uids=True)
    assert {name: reads[name] for name in ("a.dcm", "b", "cut.dcm", "text.dcm")} == dict.fromkeys(
        ("a.dcm", "b", "cut.dcm", "text.dcm"), 1
    )
