"""The commands of networks as a person would chain them, on one small phantom study."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.data.manifest import read_manifest
from histcxr.data.masks import read_mask
from histcxr.phantoms.studies import write_study
from histcxr.reference.architectures import ARCHITECTURES, build_architecture
from histcxr.reference.images import read_images
from histcxr.store import load_model
from histcxr.study.certify import calibrate

pytest.importorskip("keras")

TINY = ["--architecture", "cnn3", "--size", "32", "--epochs", "2", "-j", "1"]
PROMISE = ["--sensitivity", "0.8", "--specificity", "0.8", "--confidence", "0.8"]


def histcxr(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_study(folder / "study", n_patients=200, size=(64, 64), mask_size=(64, 64), seed=5)
    result = histcxr("reference", "train", folder / "study", *TINY, *PROMISE,
                     "-o", folder / "net.histcxr", "--json", folder / "train.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder / "train.txt").write_text(result.output)
    return folder


def test_train_prints_its_figures_and_writes_them_as_json(home):
    text, report = (home / "train.txt").read_text(), json.loads((home / "train.json").read_text())
    assert f"{report['test']['auc']:.3f} (" in text
    assert "certified: sensitivity of at least 80 % at 80 % confidence" in text
    assert f"{report['parameters']:,} parameters" in text
    classes = report["test"]["classes"]
    assert np.sum(classes["matrix"]) == report["data"]["test"]["images"]
    assert sum(report["learnt_from"].values()) == report["data"]["train"]["images"]
    assert len(report["history"]["loss"]) == len(report["history"]["val_loss"]) == report["epochs"]
    assert {part: report["data"][part]["images"] for part in ("train", "val", "test")} == dict(
        read_manifest(home / "study")["split"].value_counts()
    )


def test_train_draws_curves_beside_the_network(home):
    for name in ("history.png", "test.png"):
        assert cv2.imread(str(home / "net.plots" / name)).std() > 1


def test_a_network_is_not_replaced_by_accident_and_that_is_said_before_training(home):
    result = histcxr("reference", "train", home / "study", "--epochs", "50", "-o", home / "net.histcxr")
    assert result.exit_code == 2
    assert "choose another name (-o), or replace it (--overwrite)" in result.output
    assert histcxr("reference", "train", home / "study", "-o", home / "study").exit_code == 2


def test_evaluate_measures_what_train_measured(home):
    result = histcxr("evaluate", home / "study", "-m", home / "net.histcxr",
                     "--by", "findings", "--json", home / "evaluate.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "findings=consolidation" in result.output
    found, report = (json.loads((home / f"{name}.json").read_text()) for name in ("evaluate", "train"))
    assert found["overall"]["auc"] == report["test"]["auc"]
    assert found["overall"]["classes"]["matrix"] == report["test"]["classes"]["matrix"]
    assert found["seen"]["images"] == 0


def test_nobody_is_measured_who_was_trained_on(home):
    result = histcxr("evaluate", home / "study", "-m", home / "net.histcxr", "--split", "train")
    assert result.exit_code == 2
    assert "has not seen, got none" in result.output


def test_explain_tells_the_share_inside_the_lungs(home, tmp_path):
    result = histcxr("explain", home / "study", "-m", home / "net.histcxr", "-o", tmp_path / "maps",
                     "--images", "6", "--maps", "--target", "sick", "--json", tmp_path / "x.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "x.json").read_text())
    assert [row["label"] for row in said["shares"]] == ["all", "Lung_Opacity", "Normal"]
    assert [row["images"] for row in said["shares"]] == [12, 6, 6]
    table = pd.read_csv(tmp_path / "maps" / "shares.csv")
    masks = dict(zip(*(read_manifest(home / "study")[name] for name in ("image", "mask")), strict=True))
    maps = np.load(tmp_path / "maps" / "maps.npy")
    assert maps.shape == (12, 32, 32)
    for row, cam in zip(table.itertuples(), maps, strict=True):
        lungs = read_mask(masks[row.image], (32, 32))
        assert row.even == pytest.approx(lungs.mean())
        assert row.explained == "sick"
        if cam.any():
            assert row.inside == pytest.approx(cam[lungs].sum() / cam.sum(), rel=1e-5)
    pictures = sorted((tmp_path / "maps" / "overlays").glob("*.png"))
    assert [picture.stem.split("-", 1)[1] for picture in pictures] == [
        Path(name).stem for name in table["image"]
    ]
    for picture in (*pictures, tmp_path / "maps" / "grid.png"):
        assert np.ptp(cv2.imread(str(picture)), axis=2).max() > 100, "no colour key"


def test_explain_takes_single_files(home, tmp_path):
    image = read_manifest(home / "study")["image"].iloc[0]
    result = histcxr("explain", image, "-m", home / "net.histcxr", "-o", tmp_path, "--lungs", "either",
                     "--layer", "conv1")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "layer conv1" in result.output
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 1


def test_explain_needs_matplotlib_and_says_so_before_it_begins(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = histcxr("explain", home / "study", "-m", home / "net.histcxr", "-o", tmp_path / "maps")
    assert result.exit_code == 1
    assert "matplotlib is needed to draw plots" in result.output
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--layer", "conv9", "layer must be one of"),
        ("--target", "COVID", "target must be one of normal, sick"),
    ],
)
def test_explain_names_what_there_is(home, tmp_path, option, value, message):
    result = histcxr("explain", home / "study", "-m", home / "net.histcxr", "-o", tmp_path, option, value)
    assert result.exit_code == 2
    assert message in result.output


def test_every_label_as_a_class_on_full_images_equally_many_of_each(home, tmp_path):
    table = pd.read_csv(home / "study" / "manifest.csv")
    sick = np.flatnonzero(table["label"] != "Normal")
    table.loc[sick[::3], "label"] = "Other"
    for column in ("image", "mask"):
        table[column] = [str(home / "study" / name) for name in table[column]]
    table.to_csv(tmp_path / "three.csv", index=False)
    result = histcxr("reference", "train", tmp_path / "three.csv", *TINY, "--classes", "all", "--region", "full",
                     "--undersample", "--augment", "none", "--held-out", "val", "--json", tmp_path / "t.json",
                     "-o", tmp_path / "three.histcxr")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "t.json").read_text())
    assert list(report["learnt_from"]) == ["Normal", "Lung_Opacity", "Other"]
    assert len(set(report["learnt_from"].values())) == 1
    assert np.shape(report["test"]["classes"]["matrix"]) == (3, 3)
    assert not report["threshold"]["certified"]  # the val part said when to stop
    again = histcxr("evaluate", tmp_path / "three.csv", "-m", tmp_path / "three.histcxr",
                    "--json", tmp_path / "e.json")  # fmt: skip
    assert again.exit_code == 0, again.output
    overall = json.loads((tmp_path / "e.json").read_text())["overall"]
    assert overall["classes"]["accuracy"] == report["test"]["classes"]["accuracy"]


def test_missing_masks_are_named(home, tmp_path):
    table = pd.read_csv(home / "study" / "manifest.csv").drop(columns="mask")
    table["image"] = [str(home / "study" / name) for name in table["image"]]
    table.to_csv(tmp_path / "bare.csv", index=False)
    result = histcxr("reference", "train", tmp_path / "bare.csv", *TINY, "--lungs", "given")
    assert result.exit_code == 2
    assert "mask_missing" in result.output


def test_list_shows_every_network(tmp_path):
    result = histcxr("reference", "list", "--json", tmp_path / "list.json")
    assert result.exit_code == 0, result.output
    listed = json.loads((tmp_path / "list.json").read_text())["architectures"]
    assert [row["name"] for row in listed] == list(ARCHITECTURES)
    assert all(row["name"] in result.output for row in listed)


@pytest.mark.parametrize("name", ["cnn3", "cnn4", "lenet5", "cnn-lstm", "resnet-small", "mobilenet"])
def test_the_listed_parameters_are_those_of_the_network(name):
    assert build_architecture(name).count_params() == ARCHITECTURES[name].parameters


def test_without_keras_one_line_says_what_to_install(home, tmp_path):
    network = ["-m", str(home / "net.histcxr")]
    commands = [
        ["reference", "train", str(home / "study"), "-o", str(tmp_path / "n.histcxr")],
        ["evaluate", str(home / "study"), *network],
        ["explain", str(home / "study"), *network, "-o", str(tmp_path / "maps")],
        ["models", str(home / "net.histcxr")],
        ["reference", "list"],
    ]
    code = (
        "import json, sys\nsys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "from click.testing import CliRunner\nfrom histcxr.commands import main\n"
        "results = [CliRunner().invoke(main, one) for one in json.loads(sys.argv[1])]\n"
        "print(json.dumps([[one.exit_code, one.output] for one in results]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    *wanting, (code, listed) = json.loads(done.stdout)
    for exit_code, output in wanting:
        assert exit_code == 1
        assert len(output.splitlines()) == 1
        assert "pip install '.[neural]'" in output
    assert code == 0
    assert "densenet121" in listed


def test_a_wrong_json_path_is_said_before_training(home, tmp_path):
    result = histcxr("reference", "train", home / "study", *TINY, *PROMISE,
                     "-o", tmp_path / "none.histcxr", "--json", tmp_path / "nowhere" / "x.json")  # fmt: skip
    assert result.exit_code == 2
    assert "nowhere' does not exist" in result.output
    assert not (tmp_path / "none.histcxr").exists()


def test_evaluate_draws_the_whole_and_each_group(home, tmp_path):
    result = histcxr("evaluate", home / "study", "-m", home / "net.histcxr",
                     "--by", "findings", "-o", tmp_path / "plots")  # fmt: skip
    assert result.exit_code == 0, result.output
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert {"all.png", "findings-consolidation.png"} <= set(drawn)
    for name in drawn:
        assert cv2.imread(str(tmp_path / "plots" / name)).std() > 1
        assert name in result.output


def test_two_explanations_do_not_mix(home, tmp_path):
    image = read_manifest(home / "study")["image"][0]
    call = ["explain", image, "-m", home / "net.histcxr", "-o", tmp_path, "--lungs", "either"]
    assert histcxr(*call, "--maps").exit_code == 0
    (tmp_path / "mine.txt").write_text("kept")
    again = histcxr(*call)
    assert again.exit_code == 2
    assert "holds an earlier result" in again.output
    assert histcxr(*call, "--overwrite").exit_code == 0
    assert not (tmp_path / "maps.npy").exists()
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_calibrating_on_the_same_patients_gives_the_same_thresholds(home, tmp_path):
    result = histcxr("calibrate", home / "study", "-m", home / "net.histcxr", *PROMISE,
                     "-o", tmp_path / "again.histcxr", "--json", tmp_path / "t.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    before, again = (load_model(folder / name) for folder, name in
                     ((home, "net.histcxr"), (tmp_path, "again.histcxr")))  # fmt: skip
    assert (again.rule_out, again.rule_in) == (before.rule_out, before.rule_in)
    assert json.loads((tmp_path / "t.json").read_text())["rule_out"] == before.rule_out.to_dict()
    assert not again.metrics


def test_calibrating_with_views_certifies_what_is_scored_then(home, tmp_path):
    study = read_manifest(home / "study")
    network = load_model(home / "net.histcxr")
    seen_twice = calibrate(network, study, views=2, sensitivity=0.8, specificity=0.8, confidence=0.8)
    val = study[study["split"] == "val"]
    scores = seen_twice.score(read_images(val, network.inputs).pixels)
    assert seen_twice.rule_out.threshold in scores
    assert network.classifier.views == 1
    assert seen_twice.classifier.views == 2


def test_nobody_is_calibrated_on_who_was_trained_on(home, tmp_path):
    result = histcxr("calibrate", home / "study", "-m", home / "net.histcxr", "--split", "train",
                     "-o", tmp_path / "x.histcxr")  # fmt: skip
    assert result.exit_code == 2
    assert "has not seen, got none" in result.output


def test_a_network_and_a_histogram_model_are_compared_on_the_same_patients(home, tmp_path):
    trained = histcxr("train", home / "study", "--classifier", "knn", "--zones", "1", "--trials", "0", *PROMISE,
                      "-o", tmp_path / "knn.histcxr")  # fmt: skip
    assert trained.exit_code == 0, trained.output
    models = ["-m", tmp_path / "knn.histcxr", "-m", home / "net.histcxr"]
    result = histcxr("evaluate", home / "study", *models, "--by", "findings", "--json", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "c.json").read_text())
    single = json.loads((home / "train.json").read_text())["test"]
    assert said["overall"]["n_images"] == single["images"]
    assert said["overall"]["auc"]["second"] == pytest.approx(single["auc"])
    gap = said["overall"]["auc"]["difference"]
    assert f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" in result.output
    assert "B: cnn3" in result.output
    assert histcxr("evaluate", home / "study", *models, *models).exit_code == 2


def test_pictures_are_of_networks(home, tmp_path):
    result = histcxr("evaluate", home / "study", "-o", tmp_path / "plots")
    assert result.exit_code == 2
    assert "pictures are drawn of the calls of one network" in result.output


def test_the_card_of_a_network(home):
    card = histcxr("models", home / "net.histcxr").output
    report = json.loads((home / "train.json").read_text())
    for part in (
        "# cnn3",
        "the lungs only at 32 x 32 pixels; classes normal, sick",
        "certified: sensitivity of at least 80 % at 80 % confidence",
        "| train |",
        f"AUC {report['test']['auc']:.3f}",
        "called sick",
        "not a medical device",
    ):
        assert part.lower() in card.lower()


def test_a_histogram_model_has_no_map(home, tmp_path):
    result = histcxr("explain", home / "study", "-m", "boxed", "-o", tmp_path / "maps")
    assert result.exit_code == 2
    assert "is a histogram model, of which there is nothing to explain yet but its card" in result.output
    assert not (tmp_path / "maps").exists()
