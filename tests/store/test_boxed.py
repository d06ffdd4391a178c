"""The model in the box: there, small, honest about itself, and enough for a triage right after installation."""

import csv
import dataclasses
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.decision.thresholds import joint_confidence
from histcxr.exceptions import ModelError
from histcxr.files.writing import write_image
from histcxr.lungs.segmenter import load_segmenter
from histcxr.phantoms.anatomy import make_phantom
from histcxr.store import load_model, save_model


def test_it_is_small_and_certified():
    folder = resources.files("histcxr.store").joinpath("boxed.histcxr")
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) <= 5_000_000
    model = load_model()
    assert model.rule_out.certified
    assert model.rule_in.certified
    assert model.rule_out.target == model.rule_in.target == 0.95
    together = [model.rule_out.to_dict(), model.rule_in.to_dict(), *model.groups.further_promises()]
    assert joint_confidence(together) >= 0.9 - 1e-9


def test_it_belongs_to_the_network_in_the_package():
    """Its thresholds were certified with the masks of this network and no other."""
    training = load_model().training
    assert training["lungs"] == "either"
    assert training["segmenter"] == load_segmenter().digest


def test_its_card_names_data_figures_and_limits():
    run = CliRunner().invoke(main, ["models", "boxed"])
    assert run.exit_code == 0
    for text in (
        "Research on the triage",
        "## Sources",
        "Kermany",
        "CC BY 4.0",
        "age_group child",
        "origin covid_full",
        "view AP",
        "Research use only",
        "certified",
    ):
        assert text in run.output


def test_it_scores_between_0_and_1_and_knows_what_it_does_not_know():
    model = load_model()
    counts = model.probe()
    scores = model.score(counts)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert model.familiarity is not None
    assert model.unfamiliar(np.roll(counts, 120, axis=-1)).any()


@pytest.fixture
def incoming(tmp_path):
    for i in range(6):
        write_image(tmp_path / "incoming" / f"{i}.png", make_phantom(40 + i, sick=i < 3).image)
    (tmp_path / "incoming" / "letter.png").write_bytes(b"Dear colleague")
    return tmp_path / "incoming"


def test_triage_needs_a_folder_and_nothing_else(incoming, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(main, ["triage", str(incoming)])
    assert run.exit_code == 3, run.output
    with open(f"worklist-{incoming.name}.csv", newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 7
    assert rows["letter.png"]["reason_code"] == "not_an_image"
    assert {row["reason_code"] for row in rows.values()} <= {"", "not_an_image", "unlike_training"}


def test_triage_loads_no_tensorflow(incoming, tmp_path):
    code = (
        "import sys\nfrom histcxr import load_model, triage\n"
        "triage(sys.argv[1], load_model(), sys.argv[2])\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, str(incoming), str(tmp_path / "w.csv")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_damaged_landmarks_are_refused_when_the_model_is_saved_or_read(tmp_path):
    model = load_model("boxed")
    assert model is load_model()
    few = {**model.training["familiarity"], "centre": [1.0], "whitening": [[1.0]]}
    damaged = dataclasses.replace(model, training={**model.training, "familiarity": few})
    with pytest.raises(ModelError, match="landmarks"):
        save_model(damaged, tmp_path / "damaged.histcxr")
    assert not any(tmp_path.iterdir())
