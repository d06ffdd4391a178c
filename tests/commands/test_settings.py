"""Settings from a file, and the file beside each model that repeats it; defaults that are the same in Python."""

import inspect
import json
import tomllib

import click
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import COMMANDS, main
from histcxr.phantoms.studies import write_study
from histcxr.study import train as training

TRAIN = histcxr.train  # itself, also while a test puts another in its place


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def settings(monkeypatch):
    """Catch what ``histcxr train`` would train with."""
    caught = {}

    def train(data, **how):
        caught.update(how, data=data)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", train)
    return caught


def test_a_file_says_what_the_command_line_would(phantoms, tmp_path, settings):
    study = phantoms.study()
    arguments = ["--classifier", "svm", "--classifier", "knn", "--zones", "6", "--trials", "3", "--undersample",
                 "--where", "label=Normal", "--where", "label=Lung_Opacity", "--by", "label,source",
                 "--sensitivity", "0.9", "--lungs", "either", "--seed", "7"]  # fmt: skip
    assert run("train", study, *arguments).exit_code == 130
    by_hand = dict(settings)
    (tmp_path / "study.toml").write_text(
        f"""
        data = '{study}'  # a comment
        classifier = ["svm", "knn"]
        zones = 6
        trials = 3
        undersample = true
        where = ["label=Normal", "label=Lung_Opacity"]
        by = "label,source"
        sensitivity = 0.9
        lungs = "either"
        seed = 7
        """
    )
    settings.clear()
    assert run("train", "--config", tmp_path / "study.toml").exit_code == 130
    data, other = by_hand.pop("data"), settings.pop("data")
    assert data.equals(other)
    assert settings == by_hand
    assert by_hand["classifiers"] == ("svm", "knn")
    # the command line comes first, wherever it stands
    for first in (["--seed", "8", "--config", tmp_path / "study.toml"],
                  ["--config", tmp_path / "study.toml", "--seed", "8"]):  # fmt: skip
        assert run("train", *first).exit_code == 130
        assert {**settings, "data": None} == {**by_hand, "seed": 8, "data": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clasifier = 'svm'", "'clasifier' is no setting of train; there are bands, by, cache, "),
        ("clasifier = 'svm'", "did you mean 'classifier'?"),
        ("salt = 'secret'", "'salt' is no setting of train"),
        ("zones = [6]", "zones must be one value, got [6]"),
        ("where = {label = 'Normal'}", "where must be a list of values"),
        ("zones = 3", "'3' is not one of"),
        ("sensitivity = 95", "must lie between 0 and 1"),
        ("sensitivity = 'high'", "is not a valid float"),
        ("zones = ", "must be a TOML file"),
        ("zones = 6\nzones = 6", "must be a TOML file"),
    ],
)
def test_a_wrong_file_is_refused(phantoms, tmp_path, settings, text, message):
    (tmp_path / "wrong.toml").write_text(text)
    result = run("train", phantoms.study(), "--config", tmp_path / "wrong.toml")
    assert result.exit_code == 2, result.output
    assert message.strip() in " ".join(result.output.split())
    assert not settings


def test_the_file_beside_a_model_makes_the_same_model(tmp_path):
    study = write_study(tmp_path / "my 'study'", n_patients=100, size=(64, 64), mask_size=(64, 64), repeats=0)
    first = run("train", study, "--classifier", "knn", "--zones", "2", "--trials", "0", "--where", "source=phantom",
                "--sensitivity", "0.7", "--confidence", "0.7",
                "-o", tmp_path / "first.histcxr", "--seed", "3")  # fmt: skip
    assert first.exit_code == 0, first.output
    recipe = tmp_path / "first.recipe.toml"
    assert f"its settings to {recipe}" in first.output
    said = tomllib.loads(recipe.read_text())
    assert said["data"] == str(study)
    assert (said["zones"], said["bands"], said["lungs"]) == ("2", "none", "given")
    assert said["where"] == ["source=phantom"]
    assert not {"output", "salt", "json", "overwrite", "config"} & set(said)
    again = run("train", "--config", recipe, "-o", tmp_path / "again.histcxr")
    assert again.exit_code == 0, again.output
    manifests = [
        (tmp_path / name / "manifest.json").read_bytes() for name in ("first.histcxr", "again.histcxr")
    ]
    assert manifests[0] == manifests[1]
    lines = [path.read_text().splitlines()[2:] for path in (recipe, tmp_path / "again.recipe.toml")]
    assert lines[0] == lines[1]
    assert histcxr.load_model(tmp_path / "again.histcxr").rule_out.certified
    # certified anew, and that repeated
    promise = ("--sensitivity", "0.6", "--confidence", "0.6", "--split", "test")
    certified = run(
        "calibrate", study, "-m", tmp_path / "first.histcxr", *promise, "-o", tmp_path / "c1.histcxr"
    )
    assert certified.exit_code == 0, certified.output
    repeated = run("calibrate", "--config", tmp_path / "c1.recipe.toml", "-o", tmp_path / "c2.histcxr")
    assert repeated.exit_code == 0, repeated.output
    models = [histcxr.load_model(tmp_path / f"c{number}.histcxr") for number in (1, 2)]
    assert models[0].hash == models[1].hash
    assert models[0].rule_out.target == 0.6


def test_a_file_says_what_to_search(tmp_path):
    study = write_study(tmp_path / "study", n_patients=60, size=(64, 64), mask_size=(64, 64), repeats=0)
    asked = {"classifier": "knn", "zones": "1", "trials": 3, "seed": 4}
    given = [text for name, value in asked.items() for text in (f"--{name}", value)]
    first = run("tune", study, *given, "-o", tmp_path / "first")
    assert first.exit_code == 0, first.output
    lines = [
        f"data = {json.dumps(str(study))}",
        *(f"{name} = {json.dumps(value)}" for name, value in asked.items()),
    ]
    (tmp_path / "search.toml").write_text("\n".join(lines))
    again = run("tune", "--config", tmp_path / "search.toml", "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    found = [json.loads((tmp_path / name / "best.json").read_text()) for name in ("first", "again")]
    assert found[0]["parameters"] == found[1]["parameters"]


def test_the_model_in_the_box_is_no_place(tmp_path):
    """A recipe names places in full, but the box by its name."""
    study = write_study(tmp_path / "study", n_patients=40, size=(64, 64), mask_size=(64, 64), repeats=0)
    done = run("calibrate", study, "-m", "boxed", "--split", "all", "--sensitivity", "0.5", "--confidence", "0.5",
               "-o", tmp_path / "ours.histcxr")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert tomllib.loads((tmp_path / "ours.recipe.toml").read_text())["model"] == "boxed"


SPEED_ONLY = {"n_jobs", "progress"}


def test_train_means_the_same_in_python_as_on_the_command_line(phantoms, settings):
    assert run("train", phantoms.study()).exit_code == 130
    signature = inspect.signature(TRAIN)
    expected = {name: one.default for name, one in signature.parameters.items() if name != "data"}
    expected["zones"], expected["bands"] = training.usual_recipe()
    given = {name: value for name, value in settings.items() if name != "data"}
    assert set(given) == set(expected)
    (given["classifiers"],) = given["classifiers"]
    given["tuned"] = given["tuned"] or None
    given["by"] = tuple(given["by"] or ())
    assert {name for name in expected if given[name] != expected[name]} <= SPEED_ONLY


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in histcxr.__all__ and name != "train"])
def test_defaults_are_the_same_in_python(name):
    context = click.Context(main)
    command = main.get_command(context, name)
    python = inspect.signature(getattr(histcxr, name)).parameters
    unset = (None, (), [])
    for param in command.params:
        if param.name in python and param.name not in SPEED_ONLY:
            here, there = python[param.name].default, param.get_default(context)
            there = None if "UNSET" in repr(there) else there
            assert here == there or here is inspect.Parameter.empty or (here in unset and there in unset), (
                param.name
            )
