import inspect
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

import histcxr
from histcxr.commands.train import command
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.recipe import Recipe
from histcxr.files.writing import write_image
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import CLASSIFIERS
from histcxr.study.cohort import read_cohort, select_rows
from histcxr.study.train import classifier_names, members_of_stack, order_of_training, train, usual_recipe


def test_without_arguments_it_is_the_command(tmp_path):
    assert usual_recipe() == (6, "travel")
    assert usual_recipe(1) == (1, False)
    assert usual_recipe("1+6", "full") == ("1+6", "full")
    assert usual_recipe(6, "none") == (6, False)
    defaults = {name: one.default for name, one in inspect.signature(train).parameters.items()}
    options = command.make_context("train", [str(tmp_path)]).params
    assert options["classifiers"] == (defaults["classifiers"],) == ("stack",)
    for name in ("zones", "bands", "sensitivity", "specificity", "confidence", "trials", "undersample", "lungs",
                 "class_weight", "normal", "device", "seed"):  # fmt: skip
        assert options[name] == defaults[name], name


def test_report_holds_what_scripts_rely_on(result):
    json.dumps(result.report, allow_nan=False)
    for name in ("knn", "svm"):
        figures = result.report["classifiers"][name]
        test = figures["test"]
        assert {"accuracy", "auc", "auc_low", "auc_high", "sensitivity", "specificity"} <= set(test)
        assert test["auc_low"] < test["auc"] < test["auc_high"]
        assert test["auc"] > 0.75
        assert figures["threshold"]["certified"]
        assert figures["fit_seconds"] > 0


def test_best_is_chosen_by_cross_validation_alone(result):
    figures = result.report["classifiers"]
    assert result.best.name == max(figures, key=lambda name: figures[name]["cross_validated_auc"])


def test_threshold_is_the_certificate_of_the_validation_patients(result, manifest):
    val = read_cohort(select_rows(manifest, {"split": ["val"]}), Recipe(6))
    model = result.models["knn"]
    scores, highest = model.score(val.values), {}
    for patient, score, sick in zip(val.patients, scores, val.sick, strict=True):
        if sick:
            highest[patient] = max(score, highest.get(patient, -1))
    assert model.rule_out == rule_out_threshold(list(highest.values()))


def test_test_figures_are_those_of_the_test_patients(result, manifest):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), Recipe(6))
    model = result.models["knn"]
    judged = test.part(~model.unfamiliar(test.values))
    figures = result.report["classifiers"]["knn"]["test"]
    assert figures["accuracy"] == np.mean((model.score(judged.values) >= 0.5) == judged.sick)
    assert figures["images"] == len(judged)
    assert result.report["refused"]["test"] == pytest.approx(1 - len(judged) / len(test), abs=1e-9)
    assert len(judged) > 0.95 * len(test)


def test_unlike_lungs_are_not_judged(result, manifest, tmp_path):
    """Lungs as no training patient had them go to review, whoever made their mask."""
    model = result.models["knn"]
    folder = tmp_path / "in"
    rows = manifest[manifest["split"] == "test"].head(12)
    for i, (image, mask) in enumerate(zip(rows["image"], rows["mask"], strict=True)):
        pixels = cv2.imread(image, cv2.IMREAD_GRAYSCALE)
        write_image(folder / f"{i}.png", pixels if i % 2 else 180 + pixels // 4)
        (folder / "masks").mkdir(exist_ok=True)
        shutil.copy(mask, folder / "masks" / f"{i}.png")
    histcxr.triage(folder, model, tmp_path / "w.csv")
    found = pd.read_csv(tmp_path / "w.csv", keep_default_na=False).set_index("file")["reason_code"]
    assert [found[f"{i}.png"] for i in range(0, 12, 2)].count("unlike_training") >= 4
    assert (found.loc[[f"{i}.png" for i in range(1, 12, 2)]] == "").all()


def test_lungs_found_by_the_network(manifest):
    """Where the data give no mask, the network's are used for every image, and the model says so."""
    bare = manifest.assign(mask="")
    trained = train(bare, classifiers="knn", zones=1, trials=0)
    assert trained.report["lungs"] == "found"
    assert trained.best.training["segmenter"] == load_segmenter().digest
    given = train(manifest, classifiers="knn", zones=1, trials=0)
    assert given.report["lungs"] == "given"
    figures = [one.report["classifiers"]["knn"]["test"]["auc"] for one in (trained, given)]
    assert abs(figures[0] - figures[1]) < 0.05
    mixed = manifest.assign(mask=np.where(manifest["label"] == "Normal", manifest["mask"], ""))
    with pytest.raises(InputError, match="both|sick and normal"):
        train(mixed, classifiers="knn", zones=1, trials=0)
    either = train(mixed, classifiers="knn", zones=1, trials=0, lungs="either")
    assert any("whose mask" in note for note in either.report["data"]["notes"])


def test_same_seed_same_scores(manifest, result):
    again = train(manifest, classifiers="svm", zones=6, trials=0)
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), Recipe(6))
    np.testing.assert_array_equal(again.best.score(test.values), result.models["svm"].score(test.values))


def test_uncertified_is_said_and_rules_nobody_out(manifest):
    small = manifest[manifest["split"] != "val"]
    val = manifest[manifest["split"] == "val"].groupby("label").head(25)
    result = train(pd.concat([small, val], ignore_index=True), classifiers="knn", zones=1, trials=0)
    threshold = result.report["classifiers"]["knn"]["threshold"]
    assert threshold["threshold"] is None
    assert "takes at least 59" in threshold["message"]
    assert result.report["classifiers"]["knn"]["test"]["specificity"] == 0


def test_one_class_only_is_refused(manifest):
    with pytest.raises(InputError, match="the train part must hold sick and normal radiographs"):
        train(select_rows(manifest, {"label": ["Normal"]}), classifiers="knn", zones=1, trials=0)
    with pytest.raises(InputError, match="normal must be a label of the data .*got 'healthy'; it has "):
        train(manifest, classifiers="knn", zones=1, trials=0, normal="healthy")


def test_names(monkeypatch):
    monkeypatch.setattr("histcxr.study.train.neural_problem", lambda: None)
    assert classifier_names("all") == list(CLASSIFIERS)
    monkeypatch.setattr("histcxr.study.train.neural_problem", lambda: "keras not installed")
    with pytest.warns(HistcxrWarning, match="all but the lenet, .* keras not installed"):
        names = classifier_names("all")
    assert names == [name for name in CLASSIFIERS if name != "lenet"]
    assert names[-1] == "stack"
    assert classifier_names(["svm", "svm"]) == ["svm"]
    with pytest.raises(InputError, match=r"must be among .* or 'all', got \['cnn'\]"):
        classifier_names(["cnn"])
    with pytest.raises(InputError, match="got none"):
        classifier_names([])


def test_the_stack_comes_last_and_its_members_first():
    zones, travel = Recipe(6), Recipe(6, "travel")
    assert order_of_training(["stack", "svm"], zones) == ["svm", "knn", "random-forest", "xgboost", "stack"]
    assert order_of_training(["svm", "knn"], zones) == ["svm", "knn"]
    assert order_of_training(["stack"], travel) == ["random-forest", "xgboost", "stack"]
    assert members_of_stack(["lenet", "stack", "svm"], travel) == ["lenet", "svm"]


def test_settings_found_before_are_used_without_a_search(manifest):
    tuned = {"knn": {"classifier__estimator__n_neighbors": 40}}
    found = train(manifest, classifiers="knn", zones=6, trials=5, tuned=tuned)
    assert found.best.estimator["classifier"].estimator.n_neighbors == 40
    assert len(found.trials["knn"]) == 1
    assert found.report["classifiers"]["knn"]["parameters"] == {"classifier__estimator__n_neighbors": "40"}


def test_settings_for_a_classifier_that_is_not_trained_are_refused(manifest):
    with pytest.raises(InputError, match="tuned must be for classifiers that are trained, got lenet besides"):
        train(manifest, classifiers="svm", zones=6, tuned={"lenet": {}})


def test_a_stack_trained_alone_tunes_its_members_unseen(manifest):
    found = train(manifest, classifiers="stack", zones=6, bands="travel", trials=0, n_jobs=2)
    assert list(found.models) == list(found.report["classifiers"]) == ["stack"]
    assert [name for name, _ in found.best.estimator["classifier"].estimators] == ["random-forest", "xgboost"]
    assert found.report["classifiers"]["stack"]["test"]["auc"] > 0.75


def test_sources_of_one_class_are_pointed_out(manifest):
    mixed = manifest.assign(source=np.where(manifest.index % 2, "a", "b"))
    assert not any(
        "source" in note
        for note in train(mixed, classifiers="knn", zones=1, trials=0).report["data"]["notes"]
    )
    sick = manifest["label"] != "Normal"
    entangled = mixed.assign(source=mixed["source"].where(~sick | (mixed["source"] == "a"), "c"))
    notes = train(entangled, classifiers="knn", zones=1, trials=0).report["data"]["notes"]
    assert [note.partition(":")[0].split()[5:] for note in notes if "learn the source" in note] == [
        ["source", "b", "are", "normal"],
        ["source", "c", "are", "sick"],
    ]


def test_bands_go_all_the_way(manifest, tmp_path):
    result = train(manifest, classifiers="svm", zones=6, bands="travel", trials=0, n_jobs=2)
    loaded = histcxr.load_model(histcxr.save_model(result.best, tmp_path / "bands"))
    assert loaded.recipe == Recipe(6, "travel")
    assert histcxr.evaluate(loaded, manifest)["overall"] == result.report["classifiers"]["svm"]["test"]
    summary = histcxr.triage(
        str(manifest["image"][0]), loaded, tmp_path / "w.csv", masks=str(manifest["mask"][0])
    )
    assert summary.unjudged == 0


def test_classes_can_be_made_to_count_alike(manifest):
    rows = np.where((manifest["split"] == "train") & (manifest["label"] != "Normal"), manifest.index % 3, 0)
    few = manifest[rows == 0].reset_index(drop=True)
    plain = train(few, classifiers="svm", zones=1, trials=0)
    drawn = train(few, classifiers="svm", zones=1, trials=0, undersample=True)
    counts = drawn.report["learnt_from"]
    assert counts["sick"] == counts["normal"] == plain.report["data"]["train"]["sick"]
    assert drawn.report["data"] == plain.report["data"]
    weighed = train(few, classifiers="svm", zones=1, trials=0, class_weight="balanced")
    assert weighed.best.training["class_weight"] == "balanced"
    test = read_cohort(select_rows(few, {"split": ["test"]}), Recipe(1))
    means = [one.best.score(test.values).mean() for one in (plain, drawn, weighed)]
    assert means[0] < min(means[1:]) - 0.05
