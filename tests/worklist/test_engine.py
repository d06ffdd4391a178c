"""Triage from end to end on small folders: one row for each input, whatever happens."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import histcxr
from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.exceptions import Reason
from histcxr.features import measuring
from histcxr.files.cells import unguarded
from histcxr.phantoms.studies import write_broken_files, write_unusual_files
from histcxr.store import Model, load_model
from histcxr.store.model import Origin
from histcxr.worklist import engine
from histcxr.worklist.engine import triage


def rows(path) -> list[dict]:
    """The rows of a worklist in CSV, names as the folder has them."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{**row, "file": unguarded(row["file"])} for row in csv.DictReader(file)]


def trail(path) -> list[dict]:
    with open(f"{path}.audit.jsonl") as file:
        return [json.loads(line) for line in file]


def test_every_image_gets_the_row_it_should(study, model, tmp_path):
    summary = triage(study, model, tmp_path / "w.csv", batch_size=8)
    found = rows(tmp_path / "w.csv")
    names = sorted(str(path.relative_to(study)) for path in study.glob("[ab]/*.png"))
    assert [row["file"] for row in found] == names
    scores = [float(row["score"]) for row in found]
    low, high = model.rule_out.threshold, model.rule_in.threshold
    for row, score in zip(found, scores, strict=True):
        expected = "rule_out" if score < low else "rule_in" if score > high else "review"
        assert (row["decision"], row["reason"], row["reason_code"]) == (expected, "", "")
    assert len({row["decision"] for row in found}) == 3
    assert summary.total == 23 == sum(summary.drawers.values())
    assert (summary.unjudged, summary.resumed, summary.exit_code) == (0, 0, 0)
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["exit_code"] == 0
    assert sorted(os.listdir(tmp_path)) == ["w.csv", "w.csv.audit.jsonl"]


def test_scores_are_those_of_the_library(study, model, tmp_path):
    triage(study, model, tmp_path / "w.csv", batch_size=100)
    found = rows(tmp_path / "w.csv")
    counts = [
        histcxr.masked_histogram(
            histcxr.read_radiograph(study / row["file"]).pixels,
            histcxr.read_mask(study / "masks" / row["file"], (64, 64)),
        )
        for row in found
    ]
    exact = model.score(np.stack(counts)).tolist()
    assert [record["score"] for record in trail(tmp_path / "w.csv")[1:-1]] == exact
    assert [float(row["score"]) for row in found] == pytest.approx(exact, rel=1e-5)
    assert max(len(row["score"].lstrip("0.").replace(".", "")) for row in found) <= 6


def test_all_formats_say_the_same(study, model, tmp_path):
    for name in ("w.csv", "w.jsonl", "w.parquet"):
        triage(study, model, tmp_path / name, sort="urgency")
    table = pd.read_parquet(tmp_path / "w.parquet")
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert table.to_dict("records") == lines
    assert [row["file"] for row in rows(tmp_path / "w.csv")] == table["file"].tolist()
    assert [float(row["score"]) for row in rows(tmp_path / "w.csv")] == table["score"].tolist()


def test_the_audit_trail_tells_what_was_judged_by_what(study, saved_model, tmp_path):
    model = load_model(saved_model)
    triage(study, saved_model, tmp_path / "w.csv")
    header, *images, end = trail(tmp_path / "w.csv")
    assert header["model"] == {"name": "linear", "hash": model.hash}
    assert header["thresholds"]["rule_out"] == model.rule_out.to_dict()
    assert header["recipe"] == {"zones": 1, "histogram": 1, "extraction": 3}
    assert {"numpy", "scikit-learn", "opencv-python-headless"} <= set(header["packages"])
    assert header["histcxr"] == histcxr.__version__
    assert header["input"] == str(study)
    for image, row in zip(images, rows(tmp_path / "w.csv"), strict=True):
        assert (image["file"], image["decision"]) == (row["file"], row["decision"])
        assert float(row["score"]) == pytest.approx(image["score"], rel=1e-5)
        assert len(image["sha256"]) == len(image["mask_sha256"]) == 64
        assert image["time"].endswith("+00:00")
    assert (end["record"], end["rows"], end["unjudged"]) == ("finished", 23, 0)
    assert rows(tmp_path / "w.csv")[0]["model"] == f"linear {model.hash[:12]}"


def test_urgency_puts_the_sick_first(mine, model, tmp_path):
    (mine / "a" / "image 04.png").write_bytes(b"no image")
    summary = triage(mine, model, tmp_path / "w.csv", sort="urgency")
    found = rows(tmp_path / "w.csv")
    group = {"rule_in": 0, "review": 2, "rule_out": 3}
    keys = [
        (1 if row["reason"] else group[row["decision"]], -float(row["score"] or 0), row["file"])
        for row in found
    ]
    assert keys == sorted(keys)
    assert {key[0] for key in keys} == {0, 1, 2, 3}
    assert (summary.unjudged, summary.exit_code) == (1, 3)
    assert summary.reasons == {"not_an_image": 1}


@pytest.mark.parametrize("n_jobs", [1, 3, -1])
@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_threads_and_batches_change_nothing(study, model, tmp_path, n_jobs, batch_size):
    seen = []
    triage(study, model, tmp_path / "w.csv", n_jobs=n_jobs, batch_size=batch_size, progress=seen.append)
    found = rows(tmp_path / "w.csv")
    assert len(found) == 23
    triage(study, model, tmp_path / "v.csv")
    expected = rows(tmp_path / "v.csv")
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    scores = [[float(row["score"]) for row in table] for table in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-12)
    assert seen == [*range(batch_size, 23, batch_size), 23]


# --- inputs that cannot be judged ----------------------------------------------------------------------

BROKEN = {
    "text.png": (b"this is no image", Reason.NOT_AN_IMAGE),
    "empty.png": (b"", Reason.FILE_EMPTY),
    "=formula, \"quoted\" 'and'\nnewline ünï 漢.png": (b"text", Reason.NOT_AN_IMAGE),
    "@sum.png": (b"text", Reason.NOT_AN_IMAGE),
}


@pytest.fixture
def troubled(mine):
    """The study with 23 good images and everything that can go wrong, and what each is to be called."""
    expected = {}
    for name, (content, reason) in BROKEN.items():
        (mine / name).write_bytes(content)
        expected[name] = reason
    good, mask = (mine / "a/image 00.png").read_bytes(), (mine / "masks/a/image 00.png").read_bytes()

    def plant(name, reason, image=good, mask_bytes=mask):
        (mine / name).write_bytes(image)
        if mask_bytes is not None:
            (mine / "masks" / name).write_bytes(mask_bytes)
        expected[name] = reason

    plant("truncated.png", Reason.TRUNCATED, good[:-200])
    plant("no mask.png", Reason.NOT_A_CHEST, mask_bytes=None)
    plant("mask broken.png", Reason.MASK_UNREADABLE, mask_bytes=b"nothing")
    os.symlink(mine, mine / "loop")
    expected["loop"] = Reason.LINK_LOOP
    os.symlink("nowhere.png", mine / "dangling.png")
    expected["dangling.png"] = Reason.NOT_FOUND
    os.mkfifo(mine / "pipe.png")
    expected["pipe.png"] = Reason.NOT_A_FILE
    foreign = os.fsencode(mine) + b"/foreign \xff.png"
    try:
        Path(os.fsdecode(foreign)).write_bytes(b"text")
        expected[r"foreign \xff.png"] = Reason.NOT_AN_IMAGE
    except OSError:  # a file system that takes only Unicode
        pass
    return mine, expected


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_broken_file_has_one_row_with_its_reason(troubled, model, tmp_path, suffix):
    folder, expected = troubled
    summary = triage(folder, model, tmp_path / f"w{suffix}", batch_size=6)
    if suffix == ".csv":
        found = {row["file"]: row for row in rows(tmp_path / "w.csv")}
    elif suffix == ".jsonl":
        lines = (tmp_path / "w.jsonl").read_text().splitlines()
        found = {row["file"]: row for row in map(json.loads, lines)}
    else:
        found = {row["file"]: row for row in pd.read_parquet(tmp_path / "w.parquet").to_dict("records")}
    assert len(found) == summary.total == 23 + len(expected)
    for name, reason in expected.items():
        row = found[name]
        assert (row["decision"], row["reason_code"]) == ("review", reason)
        assert row["reason"].startswith(reason.sentence)
        assert row["score"] in ("", None) or np.isnan(row["score"])
    assert summary.unjudged == len(expected)
    assert sum(summary.reasons.values()) == len(expected)
    assert summary.exit_code == 3


def test_the_audit_trail_keeps_foreign_names_exactly(troubled, model, tmp_path):
    folder, expected = troubled
    if r"foreign \xff.png" not in expected:
        pytest.skip("this file system takes only Unicode names")
    triage(folder, model, tmp_path / "w.csv")
    names = [line["file"] for line in trail(tmp_path / "w.csv") if line["record"] == "image"]
    assert b"foreign \xff.png" in [os.fsencode(name) for name in names]


def test_every_known_kind_of_broken_file(model, tmp_path):
    expected = write_broken_files(tmp_path / "in")
    good = write_unusual_files(tmp_path / "in")
    summary = triage(tmp_path / "in", model, tmp_path / "w.csv")
    found = {row["file"]: row for row in rows(tmp_path / "w.csv")}
    assert set(found) == {*expected, *good}
    assert {name: found[name]["reason_code"] for name in expected} == expected
    assert {found[name]["decision"] for name in expected} == {"review"}
    assert {found[name]["reason_code"] for name in good} == {""}
    assert summary.total == len(expected) + len(good)
    assert summary.unjudged == len(expected) > 20


def test_nothing_reaches_stderr(troubled, saved_model, tmp_path):
    folder, expected = troubled
    expected = {**expected, **write_broken_files(folder)}
    unusual = write_unusual_files(folder)
    code = (
        "import sys; from histcxr import triage; "
        "s = triage(sys.argv[1], sys.argv[2], sys.argv[3], n_jobs=2); sys.exit(s.exit_code)"
    )
    command = [sys.executable, "-c", code, str(folder), str(saved_model), str(tmp_path / "w.csv")]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert len(rows(tmp_path / "w.csv")) == 23 + len(expected) + len(unusual)


def test_a_bug_in_one_image_stays_with_that_image(study, model, tmp_path, monkeypatch):
    real = measuring.decode_radiograph

    def sometimes(data, path, **options):
        if path.endswith("image 05.png"):
            raise ZeroDivisionError("a bug")
        return real(data, path, **options)

    monkeypatch.setattr(measuring, "decode_radiograph", sometimes)
    summary = triage(study, model, tmp_path / "w.csv")
    row = next(row for row in rows(tmp_path / "w.csv") if row["file"].endswith("image 05.png"))
    assert (row["decision"], row["score"], row["reason_code"]) == ("review", "", "unexpected")
    assert "ZeroDivisionError: a bug" in row["reason"]
    assert (summary.total, summary.unjudged) == (23, 1)
    monkeypatch.undo()
    again = triage(study, model, tmp_path / "w.csv")  # the bug is gone: judged after all
    assert (again.resumed, again.unjudged) == (22, 0)


def hashed(model, estimator) -> Model:
    """A model around a classifier that cannot be saved."""
    origin = Origin("f" * 64, {}, {})
    return Model("fake", estimator, model.recipe, model.rule_out, model.rule_in, origin=origin)


@pytest.mark.parametrize("score", [np.nan, np.inf, -1.0, 1.5])
def test_impossible_scores_never_rule_out(study, model, tmp_path, score):
    class Broken:
        def predict_proba(self, counts):
            return np.full((len(counts), 2), score)

    summary = triage(study, hashed(model, Broken()), tmp_path / "w.csv")
    assert summary.drawers == {"rule_in": 0, "review": 23, "rule_out": 0}
    assert summary.reasons == {"score_invalid": 23}


def test_a_model_that_always_fails_rules_nobody_out(study, model, tmp_path):
    class Broken:
        def predict_proba(self, counts):
            raise RuntimeError("out of order")

    summary = triage(study, hashed(model, Broken()), tmp_path / "w.csv")
    assert summary.drawers == {"rule_in": 0, "review": 23, "rule_out": 0}
    assert "RuntimeError: out of order" in rows(tmp_path / "w.csv")[0]["reason"]


def test_without_certificates_everything_is_review_and_the_summary_says_why(study, model, tmp_path):
    few = np.linspace(0, 1, 20)
    bare = dataclasses.replace(model, rule_out=rule_out_threshold(few), rule_in=rule_in_threshold(few))
    summary = triage(study, bare, tmp_path / "w.csv")
    assert summary.drawers == {"rule_in": 0, "review": 23, "rule_out": 0}
    assert summary.exit_code == 0
    assert sum(note.startswith("nothing is ruled") for note in summary.notes) == 2
    assert "nothing is ruled out: the rule_out threshold is not certified" in summary.notes[0]
    assert "takes at least 59 sick calibration patients, got 20" in summary.notes[0]


def test_warnings_of_libraries_are_collected_not_printed(study, model, tmp_path, capfd):
    import warnings

    class Warner:
        def predict_proba(self, counts):
            warnings.warn("features look odd", FutureWarning, stacklevel=1)
            return model.estimator.predict_proba(counts)

    summary = triage(study, hashed(model, Warner()), tmp_path / "w.csv", batch_size=4)
    assert summary.warnings == ("FutureWarning: features look odd",)
    assert capfd.readouterr() == ("", "")


# --- kinds of input ------------------------------------------------------------------------------------


def test_a_single_image(study, model, tmp_path):
    mask = study / "masks/a/image 00.png"
    summary = triage(study / "a/image 00.png", model, tmp_path / "w.csv", masks=mask)
    assert (summary.total, summary.unjudged) == (1, 0)
    assert rows(tmp_path / "w.csv")[0]["file"] == "image 00.png"


def test_a_list(study, model, tmp_path):
    listed = tmp_path / "list.csv"
    names = ["b/image 03.png", "a/image 00.png", "gone.png"]
    lines = [f"{study / name},{study / 'masks' / name}" for name in names]
    listed.write_text("\n".join(["image,mask", *lines]))
    summary = triage(listed, model, tmp_path / "w.csv")
    found = rows(tmp_path / "w.csv")
    assert [row["file"] for row in found] == [str(study / name) for name in names]
    assert [row["reason_code"] for row in found] == ["", "", "not_found"]
    assert summary.total == 3


def test_an_empty_folder_needs_attention(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    for name in ("w.csv", "w.jsonl", "w.parquet"):
        summary = triage(tmp_path / "in", model, tmp_path / name)
        assert (summary.total, summary.exit_code, summary.skipped) == (0, 3, {".txt": 1})
        assert summary.notes == ("no image was found in the input",)
    assert rows(tmp_path / "w.csv") == []


def test_the_engine_is_the_public_function():
    assert histcxr.triage is engine.triage
