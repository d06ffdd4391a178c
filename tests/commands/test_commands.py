"""The commands as a person would chain them, on one small phantom study."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.phantoms.studies import write_broken_files, write_study


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_study(folder / "study", n_patients=800, size=(64, 64), mask_size=(64, 64), repeats=0, seed=1)
    write_study(folder / "incoming", n_patients=20, size=(64, 64), layout="flat", repeats=0, seed=2)
    write_broken_files(folder / "incoming")
    result = histcxr("train", folder / "study", "--classifier", "svm", "--classifier", "knn", "--zones", "6",
                     "--trials", "0", "-o", folder / "m.histcxr", "--json", folder / "train.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder / "train.txt").write_text(result.output)
    return folder


def histcxr(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_train_prints_one_row_a_classifier_and_writes_json(home):
    text = (home / "train.txt").read_text()
    assert "| svm " in text
    assert "| knn " in text
    assert "certified: sensitivity of at least 95 % at 95 % confidence, from 64 sick" in text
    report = json.loads((home / "train.json").read_text())
    for name in ("svm", "knn"):
        assert f"{report['classifiers'][name]['test']['accuracy']:.3f}" in text
    assert f"Saved {report['best']} to" in text


def test_an_existing_model_is_not_replaced_by_accident(home):
    before = (home / "m.histcxr" / "manifest.json").read_bytes()
    result = histcxr(
        "train", home / "study", "--classifier", "knn", "--trials", "0", "-o", home / "m.histcxr"
    )
    assert result.exit_code in (1, 2)
    assert "overwrite" in result.output
    assert (home / "m.histcxr" / "manifest.json").read_bytes() == before


def test_what_tune_finds_train_uses(home, tmp_path):
    arguments = ["--classifier", "knn", "--zones", "6", "--trials", "3", "-o", tmp_path / "found"]
    result = histcxr("tune", home / "study", *arguments, "--json", tmp_path / "tune.json")
    assert result.exit_code == 0, result.output
    assert "knn: cross-validated AUC" in result.output
    said = json.loads((tmp_path / "tune.json").read_text())
    assert len(said["trials"]) == 4
    assert (tmp_path / "found" / "trials.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "found" / "best.json").read_text())
    trained = histcxr("train", home / "study", "--classifier", "knn", "--zones", "6", "--tuned", tmp_path / "found",
                      "--json", tmp_path / "train.json")  # fmt: skip
    assert trained.exit_code == 0, trained.output
    figures = json.loads((tmp_path / "train.json").read_text())["classifiers"]["knn"]
    assert figures["parameters"] == {key: str(value) for key, value in found["parameters"].items()}
    assert figures["trials"] == 1
    other = histcxr("train", home / "study", "--classifier", "knn", "--tuned", tmp_path / "found")
    assert other.exit_code == 2
    assert "give the same zones and bands" in other.output


def test_extract_writes_every_row(home):
    result = histcxr(
        "extract", home / "incoming", "--zones", "2", "-o", home / "h.parquet", "--json", home / "h.json"
    )
    assert result.exit_code == 3, result.output
    table, said = pd.read_parquet(home / "h.parquet"), json.loads((home / "h.json").read_text())
    assert len(table) == said["images"]
    assert (table["reason"] == "").sum() == said["usable"] == 20
    assert said["reasons"]["truncated"] >= 1
    assert "Warning: " in result.output  # the folder that leads back to itself
    assert {"right_000", "left_255"} <= set(table.columns)


def test_extract_wants_a_known_format_before_it_works(home):
    result = histcxr("extract", home / "incoming", "-o", home / "h.xlsx")
    assert result.exit_code == 2
    assert "must end in .parquet, .csv, .npz" in result.output


def test_evaluate_shows_groups(home):
    result = histcxr(
        "evaluate", home / "study", "-m", home / "m.histcxr", "--by", "findings", "--json", home / "e.json"
    )
    assert result.exit_code == 0, result.output
    assert "findings=consolidation" in result.output
    figures = json.loads((home / "e.json").read_text())
    report = json.loads((home / "train.json").read_text())
    assert figures["overall"]["auc"] == report["classifiers"][report["best"]]["test"]["auc"]


def test_calibrate_saves_a_new_promise(home):
    result = histcxr("calibrate", home / "study", "-m", home / "m.histcxr", "-o", home / "c.histcxr",
                     "--sensitivity", "0.8", "--confidence", "0.9")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "certified: sensitivity of at least 80 % at 90 % confidence" in result.output
    card = histcxr("models", home / "c.histcxr").output
    assert "sensitivity of at least 80 %" in card
    assert "None for these thresholds" in card


def test_calibrate_refuses_a_promise_it_cannot_keep(home):
    result = histcxr("calibrate", home / "study", "-m", home / "m.histcxr", "-o", home / "x.histcxr",
                     "--sensitivity", "0.99", "--specificity", "0.99")  # fmt: skip
    assert result.exit_code == 2
    assert "takes at least 299 sick calibration patients, got 64" in result.output
    assert not (home / "x.histcxr").exists()


def test_triage_through_the_console(home):
    """One row an input, nothing but the summary on stdout, exit code 3 because of the broken files."""
    command = os.path.join(os.path.dirname(sys.executable), "histcxr")
    options = ["-m", home / "m.histcxr", "-o", home / "w.csv", "--json", home / "t.json"]
    run = subprocess.run([command, "triage", home / "incoming", *options], capture_output=True, text=True)
    assert run.returncode == 3, run.stderr
    assert run.stderr == ""
    summary = json.loads((home / "t.json").read_text())
    assert run.stdout.startswith(f"{summary['total']} inputs, each with one row in")
    listed = [*summary["reasons"], *summary["skipped"], *summary["notes"]]
    assert len(run.stdout.splitlines()) == 8 + len(listed)
    with open(home / "w.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["total"]
    assert {row["decision"] for row in rows if row["reason_code"]} == {"review"}


def test_triage_says_where_the_time_went(home, tmp_path):
    worklist, figures = tmp_path / "w.csv", tmp_path / "w.json"
    result = histcxr("triage", home / "incoming", "-m", home / "m.histcxr", "-o", worklist, "--profile",
                     "--json", figures)  # fmt: skip
    found = json.loads(figures.read_text())["profile"]
    assert set(found["processor_seconds"]) == {"read", "decode", "outline", "mask", "count", "score", "write"}
    assert all(seconds > 0 for seconds in found["processor_seconds"].values())
    rows = len(worklist.read_text().splitlines()) - 1
    assert found["bytes_a_row"]["w.csv"] == pytest.approx(worklist.stat().st_size / rows)
    assert "| decode " in result.output


def test_triage_says_what_is_wrong_with_a_model(home, tmp_path):
    broken = tmp_path / "broken.histcxr"
    broken.mkdir()
    result = histcxr("triage", home / "incoming", "-m", broken, "-o", tmp_path / "w.csv")
    assert result.exit_code == 2
    assert "manifest.json: is missing, so this is no saved model; check the path" in result.output
    shutil.copytree(home / "m.histcxr", broken, dirs_exist_ok=True)
    (broken / "estimator.skops").write_bytes(b"")
    result = histcxr("triage", home / "incoming", "-m", broken, "-o", tmp_path / "w.csv")
    assert result.exit_code == 1
    assert "estimator.skops" in result.output
    assert not (tmp_path / "w.csv").exists()
    assert histcxr("models", tmp_path / "nowhere").exit_code == 2


def test_models_lists_and_shows(home):
    assert "random-forest" in histcxr("models").output
    card = histcxr("models", home / "m.histcxr").output
    for part in (
        "## Intended use",
        "## Promises",
        "## Data",
        "| train |",
        "## Figures",
        "## Limits",
        "not a medical",
    ):
        assert part.lower() in card.lower()


def test_missing_labels_are_wrong_usage(home):
    result = histcxr("train", home / "incoming")
    assert result.exit_code == 2
    assert "must have a label" in result.output


def test_a_promise_that_does_not_hold_is_shouted_and_ends_with_3(home, tmp_path):
    table = pd.read_csv(home / "study" / "manifest.csv")
    for column in ("image", "mask"):
        table[column] = [str(home / "study" / name) for name in table[column]]
    table["label"] = table["label"].map({"Normal": "Lung_Opacity", "Lung_Opacity": "Normal"})
    table.to_csv(tmp_path / "wrong.csv", index=False)
    result = histcxr(
        "evaluate", tmp_path / "wrong.csv", "-m", home / "m.histcxr", "--json", tmp_path / "e.json"
    )
    assert result.exit_code == 3, result.output
    assert "CONTRADICTED: rule_out promises a sensitivity of 95 %" in result.output
    assert json.loads((tmp_path / "e.json").read_text())["contradicted"][0]["promise"] == "rule_out"


def test_calibrate_by_groups_says_who_certified(home, tmp_path):
    result = histcxr("calibrate", home / "study", "-m", home / "m.histcxr", "-o", tmp_path / "g.histcxr",
                     "--by", "label", "--sensitivity", "0.8", "--specificity", "0.8",
                     "--json", tmp_path / "c.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "| label=Lung_Opacity | rule_out |" in result.output
    assert "Certified on" in result.output
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["certified"]["by"] == ["label"]
    assert written["left_out"]["images"] == 0
    assert "label=Lung_Opacity" in histcxr("models", tmp_path / "g.histcxr").output
