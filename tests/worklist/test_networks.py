"""Triage by a network that sees the whole image: the rows, reasons and ways back of every other model."""

import csv
import json
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import Reason
from histcxr.files.writing import encode_image, write_image, write_mask
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.phantoms.not_chests import draw_not_chest
from histcxr.phantoms.studies import make_phantom, write_broken_files
from histcxr.store import model_hash, save_model
from histcxr.worklist.engine import triage


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def scores(path):
    return {name: float(row["score"]) for name, row in rows(path).items() if row["score"]}


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    return save_model(network, tmp_path_factory.mktemp("net") / "net.histcxr")


@pytest.fixture(scope="module")
def incoming(tmp_path_factory):
    """Eight phantoms without masks, four with, and what must not be judged."""
    folder = tmp_path_factory.mktemp("incoming")
    for i in range(12):
        phantom = make_phantom(300 + i, sick=i % 2 == 0)
        write_image(folder / f"{i:02}.png", phantom.image)
        if i >= 8:
            write_mask(folder / "masks" / f"{i:02}.png", phantom.mask)
    write_image(folder / "inverted.png", 255 - phantom.image)
    write_mask(folder / "masks" / "inverted.png", phantom.mask)
    write_image(folder / "page.png", draw_not_chest("text", np.random.default_rng(5)))
    (folder / "broken.png").write_bytes(encode_image(phantom.image)[:-100])
    return folder


UNJUDGED = {
    "broken.png": Reason.TRUNCATED,
    "inverted.png": Reason.POLARITY,
    "page.png": Reason.NOT_A_CHEST,
}


def test_every_input_has_one_row_and_the_scores_are_the_networks_own(incoming, saved, network, tmp_path):
    summary = triage(incoming, saved, tmp_path / "w.csv", batch_size=5)
    found = rows(tmp_path / "w.csv")
    assert len(found) == summary.total == 15
    assert {name: row["reason_code"] for name, row in found.items() if row["reason_code"]} == UNJUDGED
    assert {found[name]["decision"] for name in UNJUDGED} == {"review"}
    judged = sorted(set(found) - set(UNJUDGED))
    pixels = np.stack(
        [network.inputs.prepare(read_radiograph(incoming / name).pixels, None) for name in judged]
    )
    expected = network.score(pixels)
    np.testing.assert_allclose([float(found[name]["score"]) for name in judged], expected, atol=1e-6)
    low, high = network.rule_out.threshold, network.rule_in.threshold
    for name in judged:
        score = float(found[name]["score"])
        drawer = "rule_out" if score < low else "rule_in" if score > high else "review"
        assert found[name]["decision"] == drawer
    assert len({found[name]["decision"] for name in judged}) > 1
    assert sum("no check of what it was trained on" in note for note in summary.notes) == 1
    assert not any("found by a network" in note for note in summary.notes)  # they do not change the square


def test_the_audit_trail_says_what_was_judged_by_what(incoming, saved, network, tmp_path):
    triage(incoming, saved, tmp_path / "w.csv")
    header = json.loads((tmp_path / "w.csv.audit.jsonl").read_text().splitlines()[0])
    assert header["model"] == {"name": "cnn3", "hash": model_hash(network)}
    assert header["inputs"] == network.inputs.to_dict()
    assert "recipe" not in header
    assert "keras" in header["packages"]
    assert header["thresholds"]["rule_out"] == network.rule_out.to_dict()


def test_lungs_are_asked_for_though_the_network_sees_everything(incoming, network, tmp_path):
    summary = triage(incoming, network, tmp_path / "w.csv", segment=False)
    assert summary.reasons == {"mask_missing": 9, "polarity": 1, "truncated": 1}
    assert set(scores(tmp_path / "w.csv")) == {"08.png", "09.png", "10.png", "11.png"}


def test_both_kinds_of_model_refuse_the_same_images(network, model, tmp_path):
    write_broken_files(tmp_path / "in")
    rng = np.random.default_rng(4)
    for i, kind in enumerate(("text", "noise", "lateral", "hand", "abdomen", "blank", "grey_photograph")):
        write_image(tmp_path / "in" / f"picture {i}.png", draw_not_chest(kind, rng))
    for judge in (network, model):
        summary = triage(tmp_path / "in", judge, tmp_path / f"{judge.name}.csv")
        assert summary.drawers["rule_out"] == 0
    reasons = [
        {name: (row["reason_code"], row["reason"]) for name, row in rows(tmp_path / f"{name}.csv").items()}
        for name in ("cnn3", "linear")
    ]
    assert reasons[0] == reasons[1]
    assert len(Counter(code for code, _ in reasons[0].values())) > 10


@pytest.mark.parametrize("options", [{"n_jobs": 1, "batch_size": 1}, {"n_jobs": 3, "batch_size": 4}])
def test_neighbours_and_threads_change_rounding_at_most(incoming, network, tmp_path, options):
    triage(incoming, network, tmp_path / "v.csv")
    triage(incoming, network, tmp_path / "w.csv", **options)
    expected, found = scores(tmp_path / "v.csv"), scores(tmp_path / "w.csv")
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=0, atol=1e-6)


def test_a_run_cut_anywhere_goes_on_to_the_same_worklist(incoming, network, tmp_path):
    whole = tmp_path / "whole.csv"
    triage(incoming, network, whole, batch_size=5, sort="urgency")
    content = (tmp_path / "whole.csv.audit.jsonl").read_bytes()
    start = content.index(b"\n") + 1
    for i, cut in enumerate(np.random.default_rng(3).integers(start, len(content), 6)):
        output = tmp_path / f"cut{i}.csv"
        (tmp_path / f"cut{i}.csv.audit.jsonl").write_bytes(content[:cut])
        summary = triage(incoming, network, output, batch_size=9, sort="urgency")
        assert output.read_bytes() == whole.read_bytes()
        assert summary.resumed == min(content[start:cut].count(b"\n"), 15)


@pytest.mark.parametrize("answer", [np.nan, 7.0])
def test_a_network_that_gives_no_probabilities_rules_nobody_out(
    incoming, network, tmp_path, monkeypatch, answer
):
    monkeypatch.setattr(
        type(network.classifier), "predict_proba", lambda self, images: np.full((len(images), 2), answer)
    )
    summary = triage(incoming, network, tmp_path / "w.csv")
    assert (summary.drawers["review"], summary.reasons["score_invalid"]) == (15, 12)


def test_an_image_that_a_network_fails_on_is_lost_alone(incoming, network, tmp_path, monkeypatch):
    kind = type(network.classifier)
    real, bad = kind.predict_proba, network.inputs.prepare(read_radiograph(incoming / "03.png").pixels, None)

    def sometimes(self, images):
        if (images == bad).all(axis=(1, 2)).any():
            raise MemoryError("no room")
        return real(self, images)

    monkeypatch.setattr(kind, "predict_proba", sometimes)
    triage(incoming, network, tmp_path / "w.csv")
    found = rows(tmp_path / "w.csv")
    assert {name: row["reason_code"] for name, row in found.items() if row["reason_code"]} == {
        **UNJUDGED,
        "03.png": Reason.UNEXPECTED,
    }
    assert "MemoryError: no room" in found["03.png"]["reason"]


# --- the command line ----------------------------------------------------------------------------------


def histcxr(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_takes_either_kind_of_model(incoming, saved, tmp_path):
    arguments = ("triage", incoming, "-m", saved, "-o", tmp_path / "w.csv", "--json", tmp_path / "w.json")
    result = histcxr(*arguments)
    assert result.exit_code == 3, result.output
    assert "15 inputs, each with one row" in result.output
    assert "lungs unlike all of its training images get a score like any others" in result.output
    assert json.loads((tmp_path / "w.json").read_text())["model"].startswith("cnn3 ")
    again = histcxr(*arguments)
    assert "15 rows already there" in again.output


def test_without_keras_the_command_says_what_to_install(incoming, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    result = histcxr("triage", incoming, "-m", saved, "-o", tmp_path / "w.csv")
    assert result.exit_code == 1
    assert "pip install '.[neural]'" in result.output
    assert not list(tmp_path.iterdir())


def test_a_histogram_model_needs_no_keras(study, saved_model, tmp_path):
    code = (
        "import sys; from histcxr import triage; triage(*sys.argv[1:])\n"
        "assert not {'keras', 'tensorflow', 'histcxr.reference.classifier'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(study), str(saved_model), str(tmp_path / "w.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_reports_follow_a_triage_by_a_network(saved, tmp_path):
    pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    (tmp_path / "in").mkdir()
    for i in range(2):
        tags = {
            "StudyInstanceUID": "1.2.840.7",
            "SeriesInstanceUID": f"1.2.840.7.{i}",
            "SOPInstanceUID": f"1.2.840.7.{i}.1",
        }
        image = encode_dicom(cv2.resize(make_phantom(40 + i).image, (128, 128)), tags=tags)
        (tmp_path / "in" / f"{i}.dcm").write_bytes(image)
    arguments = ("triage", tmp_path / "in", "-m", saved, "-o", tmp_path / "w.csv", "--uids")
    assert histcxr(*arguments).exit_code == 0
    assert {row["study_uid"] for row in rows(tmp_path / "w.csv").values()} == {"1.2.840.7"}
    result = histcxr("report", tmp_path / "w.csv", "-o", tmp_path / "reports")
    assert result.exit_code == 0, result.output
    assert "1 report about 2 of 2 files" in result.output
    assert b"cnn3" in (tmp_path / "reports" / "SR000001.dcm").read_bytes()
