import json

import numpy as np
import pandas as pd
import pytest

import histcxr
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.recipe import Recipe
from histcxr.phantoms.studies import write_study
from histcxr.reports import plots
from histcxr.reports.text import search_report
from histcxr.study.tune import read_all_settings, read_settings, search_settings, write_search


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return histcxr.read_manifest(
        write_study(folder, n_patients=300, size=(64, 64), mask_size=(64, 64), repeats=0, seed=5)
    )


@pytest.fixture(scope="module")
def result(manifest):
    return search_settings(manifest, "svm", zones=6, trials=3)


def test_only_training_patients_take_part(manifest, result):
    assert result.trials.images.max() == (manifest.split == "train").sum()
    scrambled = manifest.assign(
        label=np.where(manifest.split == "train", manifest.label, manifest.label.to_numpy()[::-1])
    )
    again = search_settings(scrambled, "svm", zones=6, trials=3)
    assert again.trials.drop(columns="seconds").equals(result.trials.drop(columns="seconds"))
    assert not hasattr(result.estimator[-1], "classes_")


def test_what_is_written_is_read_again(result, tmp_path):
    recipe = Recipe(6)
    paths = write_search(result, recipe, tmp_path / "found", plot=True)
    assert [path.name for path in paths] == ["trials.csv", "best.json", "trials.png"]
    assert paths[2].read_bytes()[1:4] == b"PNG"
    table = pd.read_csv(paths[0], keep_default_na=False, na_values={"score": ""})
    np.testing.assert_allclose(table.score, result.trials.score)
    for path in (tmp_path / "found", paths[1]):
        settings = read_settings(path)
        assert settings.classifier == "svm"
        assert settings.recipe == recipe
        assert settings.parameters == result.parameters
        assert settings.score == result.score
    assert set(read_all_settings([tmp_path / "found"], recipe)) == {"svm"}
    with pytest.raises(InputError, match="was searched for .* and this is"):
        read_all_settings([tmp_path / "found"], Recipe(6, "travel"))
    with pytest.raises(InputError, match="there are settings for svm already"):
        read_all_settings([tmp_path / "found"] * 2, recipe)


@pytest.mark.parametrize("recipe", [{"zones": 6}, {"zones": 6, "bands": "travel"}])
def test_an_unknown_classifier_is_refused_before_images_are_read(manifest, recipe):
    nowhere = manifest.assign(image="/nowhere.png")
    with pytest.raises(InputError, match="name must be one of .*; got 'resnet'"):
        search_settings(nowhere, "resnet", **recipe)


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"classifier": "svm"})])
def test_other_files_are_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "best.json").write_text(content)
    with pytest.raises(InputError, match="best.json does not hold the settings of a search"):
        read_settings(tmp_path)


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


def test_plots_say_what_they_need(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install histcxr\[report\]"):
        plots.require_matplotlib()
