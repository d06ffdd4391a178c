"""Triage that goes on after any end, and writes over nothing: the trail, places, locks, full disks."""

import dataclasses
import os
import resource
import threading

import numpy as np
import pytest

from histcxr.exceptions import InputError, ModelError, OutputError
from histcxr.worklist.engine import triage

from .conftest import write_pair
from .test_engine import hashed, rows, trail


def test_a_second_run_judges_only_what_is_new_or_changed(mine, model, tmp_path):
    triage(mine, model, tmp_path / "w.csv")
    before = (tmp_path / "w.csv").read_bytes()
    again = triage(mine, model, tmp_path / "w.csv")
    assert (again.total, again.resumed) == (23, 23)
    assert (tmp_path / "w.csv").read_bytes() == before

    write_pair(mine, "a/image 99.png", seed=99, sick=True)  # new
    (mine / "a/image 02.png").write_bytes(b"broken")  # changed
    (mine / "b/image 03.png").unlink()  # gone
    (mine / "masks/b/image 05.png").write_bytes((mine / "masks/b/image 07.png").read_bytes())
    summary = triage(mine, model, tmp_path / "w.csv")
    assert (summary.total, summary.resumed, summary.unjudged) == (23, 20, 1)
    triage(mine, model, tmp_path / "fresh.csv")
    assert rows(tmp_path / "w.csv") == rows(tmp_path / "fresh.csv")
    assert len([line for line in trail(tmp_path / "w.csv") if line["record"] == "image"]) == 23 + 3


def test_a_repaired_file_is_judged_again(mine, model, tmp_path):
    good = (mine / "a/image 00.png").read_bytes()
    (mine / "a/image 00.png").write_bytes(good[:-100])
    assert triage(mine, model, tmp_path / "w.csv").reasons == {"truncated": 1}
    (mine / "a/image 00.png").write_bytes(good)
    summary = triage(mine, model, tmp_path / "w.csv")
    assert (summary.unjudged, summary.resumed) == (0, 22)


def test_another_order_or_format_needs_no_new_judging(study, model, tmp_path):
    triage(study, model, tmp_path / "w.csv")
    trail_file = tmp_path / "w.csv.audit.jsonl"
    summary = triage(study, model, tmp_path / "w.jsonl", sort="urgency", audit=trail_file)
    assert summary.resumed == 23
    assert len((tmp_path / "w.jsonl").read_text().splitlines()) == 23


def test_another_model_or_input_is_refused(study, mine, model, tmp_path):
    triage(study, model, tmp_path / "w.csv")
    before = (tmp_path / "w.csv").read_bytes()
    other = dataclasses.replace(model, name="other")
    with pytest.raises(InputError, match=r"belongs to a run with model .*overwrite it"):
        triage(study, other, tmp_path / "w.csv")
    with pytest.raises(InputError, match="belongs to a run with input"):
        triage(mine, model, tmp_path / "w.csv")
    assert (tmp_path / "w.csv").read_bytes() == before
    summary = triage(study, other, tmp_path / "w.csv", overwrite=True)
    assert (summary.total, summary.resumed) == (23, 0)
    assert rows(tmp_path / "w.csv")[0]["model"].startswith("other ")
    assert [line["record"] for line in trail(tmp_path / "w.csv")].count("run") == 1


class DependsOnTheBatch:
    """A classifier whose score depends on its neighbours, as rounding does, only much more."""

    def predict_proba(self, counts):
        scores = (counts.sum(axis=(1, 2)) % 97) / 200 + (counts.sum() % 89) / 200
        return np.column_stack([1 - scores, scores])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_run_cut_anywhere_goes_on_to_the_same_worklist(mine, model, tmp_path, kind):
    """Every state that a killed run can leave is a beginning of the whole audit trail."""
    (mine / "a/image 06.png").write_bytes(b"broken")
    (mine / "b/image 11.png").write_bytes(b"broken")
    fake = hashed(model, DependsOnTheBatch())
    whole = tmp_path / f"whole.{kind}"
    triage(mine, fake, whole, batch_size=5, sort="urgency")
    content = (tmp_path / f"whole.{kind}.audit.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    header_size = len(lines[0])
    rng = np.random.default_rng(11)
    for i, cut in enumerate([0, 10, header_size, len(content), *rng.integers(header_size, len(content), 20)]):
        output = tmp_path / f"cut{i}.{kind}"
        kept_lines = sum(np.cumsum([len(line) for line in lines]) <= cut)
        (tmp_path / f"cut{i}.{kind}.audit.jsonl").write_bytes(content[:cut])
        summary = triage(mine, fake, output, batch_size=9, sort="urgency")  # the first run's 5 is kept
        if cut >= header_size:
            assert output.read_bytes() == whole.read_bytes()
            assert summary.resumed == min(max(0, kept_lines - 1), 23)
        assert len([x for x in trail(output) if x["record"] == "image"]) == 23


# --- places and locks ----------------------------------------------------------------------------------


def test_a_worklist_without_a_trail_is_not_overwritten(study, model, tmp_path):
    (tmp_path / "w.csv").write_text("precious")
    with pytest.raises(InputError, match="exists without an audit trail"):
        triage(study, model, tmp_path / "w.csv")
    assert (tmp_path / "w.csv").read_text() == "precious"
    assert not (tmp_path / "w.csv.audit.jsonl").exists()
    triage(study, model, tmp_path / "w.csv", overwrite=True)
    assert len(rows(tmp_path / "w.csv")) == 23


def test_places_that_would_destroy_something_are_refused(study, model, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text(f"image\n{study / 'a/image 00.png'}\n")
    cases = [
        ((listed, tmp_path / "list.csv"), {"overwrite": True}, "must not be the input itself"),
        ((study, tmp_path / "manifest.csv"), {"overwrite": True}, "must have another name than manifest.csv"),
        ((study, tmp_path / "no" / "w.csv"), {}, "folder that exists"),
        ((study, tmp_path), {}, "must end in one of"),
        ((study, tmp_path / "w.csv"), {"audit": tmp_path / "w.csv"}, "another file than output"),
        ((study, tmp_path / "w.csv"), {"audit": tmp_path}, "audit must be a file"),
        ((study, tmp_path / "w.csv"), {"sort": "name"}, "sort must be one of input, urgency, got 'name'"),
        ((study, tmp_path / "w.csv"), {"n_jobs": 0}, "n_jobs must be a whole number"),
        ((study, tmp_path / "w.csv"), {"batch_size": 0}, "batch_size must be a whole number"),
        ((tmp_path / "nothing", tmp_path / "w.csv"), {}, "nothing"),
    ]
    before = listed.read_text()
    for arguments, options, message in cases:
        folder, output = arguments
        with pytest.raises(InputError, match=message):
            triage(folder, model, output, **options)
    assert listed.read_text() == before
    assert os.listdir(tmp_path) == ["list.csv"]


def test_a_refused_model_leaves_nothing_behind(study, tmp_path):
    with pytest.raises(ModelError):
        triage(study, tmp_path, tmp_path / "w.csv")
    assert os.listdir(tmp_path) == []


def test_two_runs_on_one_output_do_not_mix(study, model, tmp_path):
    """While one run is at work a second is turned away, also with another audit trail."""
    started, go_on = threading.Event(), threading.Event()
    errors = []

    def wait(done):
        started.set()
        go_on.wait(30)

    def second(**options):
        try:
            triage(study, model, tmp_path / "w.csv", **options)
        except OutputError as error:
            errors.append(str(error))

    first = threading.Thread(
        target=triage,
        args=(study, model, tmp_path / "w.csv"),
        kwargs={"progress": wait, "batch_size": 10},
    )
    first.start()
    assert started.wait(30)
    second()
    second(overwrite=True)
    second(audit=tmp_path / "other.jsonl")
    go_on.set()
    first.join()
    assert len(errors) == 3
    assert all("another run is writing it" in error for error in errors)
    assert len(rows(tmp_path / "w.csv")) == 23


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(study, model, tmp_path, share):
    triage(study, model, tmp_path / "whole.csv", batch_size=4)
    size = (tmp_path / "whole.csv.audit.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share) + 10, hard))
    try:
        with pytest.raises(OutputError, match=r"the disk is full .*goes on where it stopped"):
            triage(study, model, tmp_path / "w.csv", batch_size=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["w.csv.audit.jsonl", "whole.csv", "whole.csv.audit.jsonl"]
    summary = triage(study, model, tmp_path / "w.csv", batch_size=4)
    assert (tmp_path / "w.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (summary.resumed > 0) == (share > 0)


def test_a_failure_while_the_worklist_is_written_keeps_the_old_one(mine, model, tmp_path, monkeypatch):
    triage(mine, model, tmp_path / "w.csv")
    before = (tmp_path / "w.csv").read_bytes()
    write_pair(mine, "a/new.png", seed=50)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("histcxr.worklist.rows.os.fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        triage(mine, model, tmp_path / "w.csv")
    monkeypatch.undo()
    assert (tmp_path / "w.csv").read_bytes() == before
    assert not (tmp_path / "w.csv.partial").exists()
    assert triage(mine, model, tmp_path / "w.csv").resumed == 24


def test_an_interrupt_stops_soon_and_keeps_what_was_judged(study, model, tmp_path):
    def stop(done):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triage(study, model, tmp_path / "w.csv", batch_size=4, progress=stop)
    assert not (tmp_path / "w.csv").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("histcxr")]
    assert triage(study, model, tmp_path / "w.csv").resumed == 8
