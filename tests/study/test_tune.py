import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.recipe import Recipe
from histcxr.models.tuning import TuningOptions
from histcxr.phantoms.studies import write_study
from histcxr.reference.architectures import HeadOptions
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.images import InputSettings
from histcxr.reports import drawing
from histcxr.reports.text import search_report
from histcxr.study.network_train import ReferenceSettings
from histcxr.study.tune import head_space, rate_space, read_tuned, search_settings, write_search

ZONES = Recipe(6)
SEED = 8  # of phantoms among which none looks like another's twin
SMALL = ReferenceSettings("lenet5-tuned", region="full", size=32, epochs=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    write_study(place, n_patients=300, size=(64, 64), mask_size=(64, 64), repeats=0, seed=SEED)
    return place


@pytest.fixture(scope="module")
def manifest(folder):
    return histcxr.read_manifest(folder)


@pytest.fixture(scope="module")
def result(manifest):
    return search_settings(manifest, "svm", TuningOptions(recipe=ZONES, n_trials=3))


@pytest.fixture
def untrained(monkeypatch):
    """Replace the training of networks by a score that is drawn from the seed; list the fits."""
    pytest.importorskip("keras_tuner")
    fits = []

    def fit(self, X, y, *, groups=None):
        fits.append((self.get_params(), len(X)))
        return self

    def predict_proba(self, X):
        positive = np.random.default_rng(self.random_state).random(len(X))
        return np.column_stack([1 - positive, positive])

    monkeypatch.setattr(ReferenceClassifier, "fit", fit)
    monkeypatch.setattr(ReferenceClassifier, "predict_proba", predict_proba)
    return fits


def test_only_training_patients_take_part(manifest, result):
    train = manifest.split == "train"
    assert result.trials.images.max() == train.sum()
    labels = np.where(train, manifest.label, manifest.label.to_numpy()[::-1])
    again = search_settings(manifest.assign(label=labels), "svm", TuningOptions(recipe=ZONES, n_trials=3))
    assert again.trials.drop(columns="seconds").equals(result.trials.drop(columns="seconds"))
    assert not hasattr(result.estimator[-1], "classes_")


def test_what_is_written_is_read_again(result, tmp_path):
    paths = write_search(result, ZONES, tmp_path / "found")
    assert [path.name for path in paths] == ["trials.csv", "best.json"]
    table = pd.read_csv(paths[0], keep_default_na=False, na_values={"score": ""})
    np.testing.assert_allclose(table.score, result.trials.score)
    for path in (tmp_path / "found", paths[1]):
        assert read_tuned([path], ZONES) == {"svm": result.parameters}
    assert json.loads(paths[1].read_text())["cross_validated_auc"] == result.score
    for seen in (Recipe(6, "travel"), InputSettings(32)):
        with pytest.raises(InputError, match="was searched for other .* give the same"):
            read_tuned([tmp_path / "found"], seen)
    with pytest.raises(InputError, match="there are settings for svm already"):
        read_tuned([tmp_path / "found"] * 2, ZONES)


def test_a_network_that_sees_images_is_searched_alike(manifest, untrained, tmp_path):
    options = TuningOptions(n_trials=11, directory=tmp_path / "search")
    found = search_settings(manifest, SMALL, options)
    table = found.trials
    assert table.epochs.tolist() == [9] + [1] * 9 + [3] * 2
    images = (manifest.split == "train").sum()
    assert table.images[0] == pytest.approx(images / 5, abs=2)
    assert {n for _, n in untrained} == {images - table.images[0]}
    assert {"dense_1", "dense_2", "dropout", "entry_dropout", "learning_rate"} <= set(table)
    assert found.measure == "AUC of held-out patients"
    assert set(found.parameters) == {"head", "learning_rate"}  # a draw: the first is not the best of twelve
    assert found.estimator.get_params()["head"] == found.parameters["head"]
    write_search(found, SMALL.inputs(), tmp_path)
    assert read_tuned([tmp_path], SMALL.inputs()) == {"lenet5-tuned": found.parameters}
    assert json.loads((tmp_path / "best.json").read_text())["auc_of_held_out_patients"] == found.score
    again = search_settings(manifest, SMALL, options)
    assert len(untrained) == 12  # nothing is trained twice
    assert again.trials.equals(table)
    other = ReferenceSettings("lenet5-tuned", region="full", size=48, epochs=9)
    with pytest.raises(InputError, match="holds one with other estimator, data"):
        search_settings(manifest, other, options)


@pytest.mark.parametrize("space", [head_space, rate_space])
def test_spaces_begin_at_values_that_were_published(space):
    keras_tuner = pytest.importorskip("keras_tuner")
    first = space(keras_tuner.HyperParameters())
    assert first.get("head", HeadOptions()) == HeadOptions()
    assert first["learning_rate"] == 1e-3
    ReferenceClassifier("vgg16", **first)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("resnet", {}, "name must be one of .*; got 'resnet'"),
        ("resnet", {"recipe": Recipe(6, "travel")}, "name must be one of .*; got 'resnet'"),
        ("stack", {}, "the stack has no settings of its own: tune its members"),
        ("lenet", {"method": "halving"}, "search must be one of hyperband"),
        ("xgboost", {"device": "cuda:99"}, "device 'cuda:99'"),
        (SMALL, {"method": "halving"}, "search must be one of hyperband"),
        (SMALL, {"n_trials": 0}, "trials must be a whole number of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_images_are_read(manifest, what, options, message):
    nowhere = manifest.assign(image="/nowhere.png")
    with pytest.raises(InputError, match=message):
        search_settings(nowhere, what, TuningOptions(**options))


@pytest.mark.parametrize("what", ["lenet", SMALL])
def test_a_missing_package_is_named_before_images_are_read(manifest, what, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(MissingDependencyError, match="keras_tuner"):
        search_settings(manifest.assign(image="/nowhere.png"), what, TuningOptions(n_trials=1))


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"classifier": "svm"})])
def test_other_files_are_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "best.json").write_text(content)
    with pytest.raises(InputError, match="best.json does not hold the settings of a search"):
        read_tuned([tmp_path], ZONES)


def test_the_report_shows_failures_and_what_is_left(result):
    text = search_report(result)
    assert f"{len(result.trials)} trials" in text
    assert f"svm: cross-validated AUC {result.score:.4f}" in text
    trials = result.trials.copy()
    trials.loc[1, ["status", "error", "score"]] = ["failed", "ValueError: no such kernel", float("nan")]
    broken = type(result)(**{**vars(result), "trials": trials, "not_tried": 2})
    text = search_report(broken)
    assert "Failed: svm trial 1: ValueError: no such kernel" in text
    assert "time ended before 2 trials" in text


def run(*arguments):
    return CliRunner().invoke(main, ["tune", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("missing", [False, True])
def test_the_command_works_without_matplotlib(folder, tmp_path, missing, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingDependencyError, match=r"pip install '\.\[report\]'"):
            drawing.require_matplotlib()
    arguments = ["--classifier", "knn", "--zones", "6", "--trials", "1", "--lungs", "given", "-o", tmp_path]
    told = run(folder, *arguments)
    assert told.exit_code == 0, told.output
    assert (tmp_path / "best.json").exists()
    assert (tmp_path / "trials.png").exists() != missing
    assert ("Note: no picture was drawn: matplotlib" in told.output) == missing


def test_the_command_takes_lungs_and_architectures(folder, tmp_path, untrained):
    arguments = ["--classifier", "cnn4", "--region", "full", "--epochs", "2", "--trials", "2", "-o", tmp_path]
    told = run(folder, *arguments, "--search", "random", "--json", tmp_path / "tune.json")
    assert told.exit_code == 0, told.output
    assert "cnn4: AUC of held-out patients" in told.output
    said = json.loads((tmp_path / "tune.json").read_text())
    assert [trial["epochs"] for trial in said["trials"]] == [2, 2, 2]
    seen = ReferenceSettings("cnn4", region="full").inputs()
    assert list(read_tuned([tmp_path], seen)) == ["cnn4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classifier", "stack"], "the stack has no settings of its own"),
        (["--classifier", "svm", "--region", "full"], "--region: for reference networks only"),
        (["--classifier", "vgg16"], "vgg16 without weights learns nothing"),
        (["--classifier", "svm", "--seconds", "3"], "seconds are for networks only"),
    ],
)
def test_the_command_refuses_what_does_not_fit(folder, tmp_path, arguments, message):
    told = run(folder, *arguments, "-o", tmp_path)
    assert told.exit_code == 2
    assert message in told.output


def test_reference_train_uses_what_was_found(folder, tmp_path, monkeypatch):
    content = {
        "classifier": "cnn4",
        "parameters": {"learning_rate": 0.5},
        "inputs": InputSettings(128, "full").to_dict(),
    }
    (tmp_path / "best.json").write_text(json.dumps(content))
    given = []

    def train_reference(data, settings, *promise_and_reading, **how):
        given.append(settings.learning_rate)
        raise InputError("enough")

    monkeypatch.setattr("histcxr.study.network_train.train_reference", train_reference)
    arguments = [
        "reference",
        "train",
        str(folder),
        "--region",
        "full",
        "--tuned",
        str(tmp_path),
        "--architecture",
    ]
    for more in (["cnn4"], ["cnn4", "--learning-rate", "0.1"]):
        assert "enough" in CliRunner().invoke(main, [*arguments, *more]).output
    assert given == [0.5, 0.1]
    told = CliRunner().invoke(main, [*arguments, "cnn4-raw"])
    assert "--tuned holds settings of cnn4, not of cnn4-raw" in told.output


def test_heads_of_a_frozen_backbone_are_tried_on_what_it_gave_once(
    manifest, untrained, monkeypatch, tmp_path
):
    seen = []

    def features(network, images, *, cache, progress):
        seen.append((network.architecture, images.shape[1:], cache))
        return np.zeros((len(images), 4), np.float16)

    monkeypatch.setattr("histcxr.study.tune.frozen_features", features)
    monkeypatch.setattr(ReferenceClassifier, "check", lambda self: None)
    settings = ReferenceSettings("mobilenet", region="full", size=32, weights="published.h5")
    found = search_settings(manifest, settings, TuningOptions(n_trials=3), cache=tmp_path)
    assert seen == [("mobilenet", (32, 32), tmp_path)]
    assert len(untrained) == 4
    assert type(found.estimator) is ReferenceClassifier
    assert found.estimator.weights == "published.h5"
    assert {name: found.estimator.get_params()[name] for name in found.parameters} == found.parameters
    seen.clear()
    search_settings(manifest, replace(settings, augment="mild"), TuningOptions(n_trials=1))
    assert not seen  # pictures that change are no use to keep
