"""Two models as one, from certifying to the worklist."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.exceptions import InputError
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.images import InputSettings
from histcxr.reference.small_networks import ConvOptions
from histcxr.store import Cascade, ReferenceModel, load_model, save_model
from histcxr.study.certify import Promise
from histcxr.study.cohort import read_cohort, select_rows
from histcxr.study.evaluate import compare
from histcxr.study.seen import remember

pytest.importorskip("keras")


@pytest.fixture(scope="module")
def network(manifest):
    """A small network of the study's lungs that remembers whom it was trained on."""
    inputs = InputSettings(32)
    part = read_cohort(select_rows(manifest, {"split": ["train"]}), inputs)
    classifier = ReferenceClassifier(
        "cnn3", inputs=inputs, epochs=2, validation_fraction=0.0, options=ConvOptions(filters=(4, 8))
    ).fit(part.values, part.sick.astype(int))
    training = remember({"fingerprint": part.digest()}, {"train": part})
    nothing = Promise().nothing()
    return ReferenceModel(classifier, ("normal", "sick"), "Normal", *nothing, training=training)


@pytest.fixture(scope="module")
def pair(result, manifest, network):
    return histcxr.calibrate(
        result.models["svm"], manifest, then=network, sensitivity=0.8, specificity=0.8, confidence=0.8
    )


def test_a_quarter_places_the_network_and_the_others_certify(pair, manifest):
    assert isinstance(pair, Cascade)
    val = read_cohort(select_rows(manifest, {"split": ["val"]}), pair)
    assert 0 < pair.low < pair.high < 1
    assert pair.training["certified"]["patients"] == pytest.approx(0.75 * len(set(val.patients)), abs=3)
    assert pair.rule_out.certified
    assert pair.rule_out.n + pair.rule_in.n == pair.training["certified"]["patients"]
    # Those who placed it count as trained on, and are never asked again.
    again = histcxr.calibrate(pair, manifest, split="val", sensitivity=0.8, confidence=0.8, specificity=0.8)
    assert again.training["val"]["images"] == pair.training["certified"]["images"]
    assert (again.low, again.high, again.rule_out) == (pair.low, pair.high, pair.rule_out)


def test_nobody_whom_either_was_trained_on_is_asked(pair, result, manifest, network):
    with pytest.raises(InputError, match="the model has not seen, got none"):
        histcxr.calibrate(pair, manifest, split="train")
    forgetful = replace(network, training={})
    with pytest.raises(InputError, match="the model does not remember whom it was trained on"):
        histcxr.calibrate(result.models["svm"], manifest, then=forgetful)


def test_it_is_measured_like_any_model(pair, result, manifest):
    found = histcxr.evaluate(pair, manifest)
    assert found["overall"]["among_all"]["images"] == (manifest["split"] == "test").sum()
    assert found["remembers"]
    both = compare([pair, result.models["svm"]], manifest)
    assert both["models"][0]["name"] == "svm then cnn3"
    assert 0.5 < both["overall"]["auc"]["first"] <= 1


def test_the_worklist_tells_who_judged(pair, manifest, tmp_path):
    save_model(pair, tmp_path / "pair.histcxr")
    loaded = load_model(tmp_path / "pair.histcxr")
    rows = select_rows(manifest, {"split": ["test"]}).head(60)
    rows[["image", "mask"]].to_csv(tmp_path / "list.csv", index=False)
    summary = histcxr.triage(tmp_path / "list.csv", loaded, tmp_path / "worklist.csv", trust_site=True)
    with open(tmp_path / "worklist.csv", newline="", encoding="utf-8") as file:
        worklist = list(csv.DictReader(file))
    assert len(worklist) == 60
    assert summary.model == f"svm then cnn3 {loaded.hash[:12]}"
    values = read_cohort(rows.reset_index(drop=True), loaded)
    np.testing.assert_allclose(
        [float(row["score"]) for row in worklist], loaded.score(values.values), atol=1e-4
    )
    between = loaded.open(loaded.first.score(loaded.unpack(values.values)[0]))
    names = np.where(between, f"cnn3 {loaded.hash[:12]}", f"svm {loaded.hash[:12]}")
    assert [row["model"] for row in worklist] == names.tolist()
    assert len(set(names)) == 2
    drawers = loaded.drawers(loaded.score(values.values))
    assert [row["decision"] for row in worklist] == drawers.tolist()


def test_without_a_certificate_of_both_nothing_is_promised(result, network, manifest, tmp_path):
    for name, model in (("cheap", result.models["svm"]), ("net", network)):
        save_model(model, tmp_path / f"{name}.histcxr")
    rows = select_rows(manifest, {"split": ["test"]}).head(8)
    rows[["image", "mask"]].to_csv(tmp_path / "list.csv", index=False)
    command = ["triage", "list.csv", "-m", "cheap.histcxr", "--then", "net.histcxr", "-o", "worklist.csv"]
    runner = CliRunner()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        said = runner.invoke(main, command)
        wrong = runner.invoke(main, ["triage", "list.csv", "-m", "net.histcxr", "--then", "cheap.histcxr"])
    assert said.exit_code in (0, 3), said.output
    assert "never certified as one" in said.output
    assert "nothing is ruled out" in said.output
    with open(tmp_path / "worklist.csv", newline="", encoding="utf-8") as file:
        assert {row["decision"] for row in csv.DictReader(file)} == {"review"}
    assert wrong.exit_code == 2
    assert "a cascade takes a histogram model first and a network then" in wrong.output


def test_what_takes_one_model_says_so(pair, manifest):
    with pytest.raises(InputError, match="two models as one: adapt each"):
        histcxr.adapt(pair, manifest)
