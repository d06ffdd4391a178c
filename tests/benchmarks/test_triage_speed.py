import json

import pytest

from benchmarks.speed import triage_speed
from histcxr.phantoms.studies import write_study
from histcxr.store import save_model
from histcxr.study.train import train


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    options = {"size": (64, 64), "mask_size": (64, 64), "repeats": 0}
    study = write_study(folder / "study", n_patients=300, seed=1, **options)
    write_study(folder / "incoming", n_patients=12, seed=2, layout="flat", **options)
    result = train(
        study, classifiers=["knn", "svm"], zones=6, trials=0, sensitivity=0.8, specificity=0.8, confidence=0.8
    )
    for name, model in result.models.items():
        save_model(model, folder / f"{name}.histcxr")
    return folder


def test_rates_of_the_same_files_with_two_models(home, capsys):
    arguments = [
        "--data",
        home / "incoming",
        "--model",
        home / "knn.histcxr",
        "--model",
        home / "svm.histcxr",
    ]
    arguments += ["--repeats", 2, "--json", home / "speed.json"]
    triage_speed.main([str(argument) for argument in arguments])
    rows = json.loads((home / "speed.json").read_text())["models"]
    assert [row["classifier"] for row in rows] == ["knn", "svm"]
    assert [row["images"] for row in rows] == [12, 12]
    assert rows[0]["ratio"] == 1
    assert all(row["images_per_second"] > 0 and row["ratio"] > 0 for row in rows)
    assert "onnxruntime yes" in capsys.readouterr().out
