"""The reports' rows: every configuration stands, finished rows are kept, what cannot run says why."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import reference_rows, reproduce_reports
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.study.evaluate import class_figures

pytest.importorskip("keras")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A paediatric study and a four-class one that holds lungs only, of phantoms."""
    folder = tmp_path_factory.mktemp("data")
    for name, labels in (("children", ["PNEUMONIA"]), ("four", ["COVID", "Lung_Opacity", "Viral Pneumonia"])):
        path = write_study(folder / name, n_patients=96, size=(64, 64), mask_size=(64, 64), repeats=0, seed=5)
        table = pd.read_csv(path / "manifest.csv")
        normal = table["label"] == "Normal"
        sick = np.array([labels[i % len(labels)] for i in range(len(table))], dtype=object)
        table["label"] = np.where(normal, "NORMAL" if name == "children" else "Normal", sick)
        table["lungs_only"] = name == "four"
        if name == "children":
            table["split"] = table["split"].replace("val", "train")
        table.to_csv(path / "manifest.csv", index=False)
    return folder


def run(data, output, *arguments):
    paths = [part for name in ("children", "four") for part in ("--data", str(data / name))]
    reproduce_reports.main([*paths, "-o", str(output), "--jobs", "1", *map(str, arguments)])


def test_every_row_can_be_built_and_compared():
    rows = reference_rows.ROWS
    assert len(rows) > 60
    probabilities = np.random.default_rng(0).dirichlet([1, 1], 20)
    figures = {"classes": class_figures(np.arange(20) % 2, probabilities, ("normal", "sick"))}
    two = reproduce_reports.our_figures({"test": figures}, "test")
    for row in rows.values():
        assert json.loads(json.dumps(row.to_dict()))["name"] == row.name
        assert set(row.published) <= set(two)
        if row.histogram is None:
            settings = reproduce_reports.settings_of(row, epochs=None, size=None)
            assert settings.classifier(0).architecture == row.settings["architecture"]


def test_the_published_figures_of_the_three_networks_from_scratch():
    rows = reference_rows.ROWS
    assert [rows[name].published["accuracy"] for name in ("cnn3", "cnn4-raw", "cnn-lstm")] == [
        0.8638,
        0.857,
        0.81,
    ]


def test_our_figures_are_counted_from_the_matrix():
    classes = {
        "names": ["normal", "sick"],
        "matrix": [[90, 10], [5, 45]],
        "classes": [{"images": 100, "precision": 90 / 95}, {"images": 50, "precision": 45 / 55}],
        **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "loss"), 0.9),
    }
    found = reproduce_reports.our_figures({"test": {"classes": classes}}, "test")
    assert (found["tp"], found["tn"]) == (45, 90)
    assert found["sensitivity"] == pytest.approx(0.9)
    assert found["specificity"] == pytest.approx(0.9)
    assert found["precision"] == pytest.approx(45 / 55)
    assert found["weighted_precision"] == pytest.approx((100 * 90 / 95 + 50 * 45 / 55) / 150)


def test_a_finished_row_is_kept_and_a_broken_one_starts_anew(data, tmp_path, capsys, monkeypatch):
    arguments = ["--rows", "cnn4", "--rows", "histogram-knn", "--epochs", 1, "--size", 32]
    (tmp_path / "cnn4.json").write_text('{"asked": ')  # broken off
    run(data, tmp_path, *arguments)
    first = capsys.readouterr().out
    assert "accuracy 0.766, loss 1.355, tn 94, tp 384" in first
    result = json.loads((tmp_path / "cnn4.json").read_text())
    test = result["report"]["test"]["classes"]
    assert f"accuracy {test['accuracy']:.3f}" in first
    published_test = pd.read_csv(data / "children" / "manifest.csv")["split"].eq("test").sum()
    assert result["report"]["data"]["test"]["images"] == published_test
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn4.json", "histogram-knn.json"]

    def fail(*_):
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(reproduce_reports, "run_row", fail)
    run(data, tmp_path, *arguments)
    assert capsys.readouterr().out == first
    with pytest.raises(AssertionError, match="run again"):  # other settings: another row
        run(data, tmp_path, *arguments[:-1], 40)


def test_a_row_of_four_classes_learns_equally_many_of_each(data, tmp_path, capsys):
    run(data, tmp_path, "--rows", "lenet5", "--epochs", 1, "--size", 32)
    report = json.loads((tmp_path / "lenet5.json").read_text())["report"]
    assert len(set(report["learnt_from"].values())) == 1
    assert len(report["learnt_from"]) == 4
    assert f"{report['val']['classes']['balanced_accuracy']:.3f}" in capsys.readouterr().out


def test_no_row_is_started_that_will_not_fit(data, tmp_path, capsys):
    run(data, tmp_path, "--rows", "cnn3", "--minutes", 0.15, "--size", 64)
    assert "not run: takes up to" in capsys.readouterr().out
    run(data, tmp_path, "--rows", "cnn3", "--minutes", 0)
    assert "not run: no time was left" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_rows_without_data_or_weights_say_why(data, tmp_path, capsys, monkeypatch):
    def offline(name, **_):
        raise InputError(f"weights='imagenet' for {name} are not on this computer")

    monkeypatch.setattr(reproduce_reports, "build_architecture", offline)
    run(data, tmp_path, "--rows", "vgg19-hidden", "--rows", "mobilenet-children")
    text = capsys.readouterr().out
    assert "not run: the data hold lungs only, the row wants hidden" in text
    assert "not run: weights='imagenet' for mobilenet are not on this computer" in text
    reproduce_reports.main(["--data", str(data / "four"), "-o", str(tmp_path), "--rows", "cnn4"])
    assert "not run: no paediatric data given" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(data, tmp_path, "--rows", "nonsense")
