"""A model adapted to a hospital's own patients."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.exceptions import InputError
from histcxr.models.adapted import LOCAL, MIXTURE, RECALIBRATED, Linear, cross_fit, fit_linear, mean_of
from histcxr.phantoms.studies import write_study
from histcxr.site.adapt import adapt, choose
from histcxr.site.adapt_report import adaptation_text, not_shown
from histcxr.study.cohort import read_cohort
from histcxr.study.train import train

PROMISE = {"sensitivity": 0.8, "specificity": 0.8, "confidence": 0.8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_study(folder, n_patients=200, size=(64, 64), mask_size=(80, 80), seed=3)
    return train(folder, classifiers=["knn"], zones=6, trials=0, lungs="given").best


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    write_study(folder, n_patients=160, size=(64, 64), mask_size=(80, 80), seed=77, repeats=0.2)
    return histcxr.read_manifest(folder).assign(split="")


@pytest.fixture(scope="module")
def adapted(model, local):
    return adapt(model, local, **PROMISE)


def signal(seed, n=120, p=20, model=1.0, features=1.0):
    rng = np.random.default_rng(seed)
    sick = np.arange(n) % 2 == 0
    side = np.where(sick, 0.5, -0.5)
    values = rng.normal(size=(n, p))
    values[:, 0] += 2 * features * side
    return values, model * side + rng.normal(size=n), sick


def test_means_of_linear_scores_are_the_scores_of_means():
    rng = np.random.default_rng(0)
    values, logits = rng.normal(size=(9, 4)), rng.normal(size=9)
    parts = [Linear(rng.normal(size=4), *rng.normal(size=2)) for _ in range(3)]
    mean = np.mean([part(values, logits) for part in parts], axis=0)
    np.testing.assert_allclose(mean_of(parts)(values, logits), mean)


def test_each_candidate_sees_what_it_should():
    values, logits, sick = signal(1)
    assert not fit_linear(values, logits, sick, RECALIBRATED).coef.any()
    assert fit_linear(values, logits, sick, LOCAL).slope == 0
    both = fit_linear(values, logits, sick, MIXTURE)
    assert both.slope > 0
    assert both.coef[0] == max(both.coef)


def test_out_of_fold_scores_come_from_the_other_folds():
    values, logits, sick = signal(2)
    folds = [(np.arange(60, 120), np.arange(60)), (np.arange(60), np.arange(60, 120))]
    apart, fitted = cross_fit(values, logits, sick, folds)
    other = fit_linear(values[60:], logits[60:], sick[60:], MIXTURE)
    np.testing.assert_allclose(apart[MIXTURE][:60], other(values[:60], logits[:60]))
    both = [fit_linear(values[rows], logits[rows], sick[rows], MIXTURE) for rows, _ in folds]
    np.testing.assert_allclose(fitted[MIXTURE].coef, mean_of(both).coef)


def test_features_that_know_nothing_leave_the_model_in_order():
    for seed in range(4):
        values, logits, sick = signal(seed, n=400, model=3.0, features=0.0)
        found = choose(values, logits, sick, np.arange(400))
        assert found.weights.get(LOCAL, 0) + found.weights.get(MIXTURE, 0) < 0.3
        score = logits if found.part is None else found.part(values, logits)
        assert np.corrcoef(score, logits)[0, 1] > 0.95


def test_features_that_know_more_are_used():
    values, logits, sick = signal(4, model=0.0, features=2.0)
    found = choose(values, logits, sick, np.arange(120))
    assert found.weights.get(RECALIBRATED, 0) < 0.5
    assert found.chosen == "blend"


def test_a_model_that_cannot_be_mixed_is_recalibrated_or_left():
    _, logits, sick = signal(5, n=400, model=2.0)
    skewed = choose(None, 4 * logits + 3, sick, np.arange(400))
    assert skewed.chosen == "recalibrated"
    np.testing.assert_array_equal(np.argsort(skewed.scores), np.argsort(logits))
    turned = choose(None, -logits, sick, np.arange(400))
    assert turned.chosen == "as it is"  # never turned over unseen


def test_adapted_model_is_saved_and_scores_alike(adapted, model, local, tmp_path):
    loaded = histcxr.load_model(histcxr.save_model(adapted.model, tmp_path / "ours"))
    counts = read_cohort(local, model).values[:20]
    np.testing.assert_allclose(loaded.score(counts), adapted.model.score(counts))
    assert loaded.rule_out == adapted.model.rule_out
    assert loaded.site is not None
    assert loaded.familiarity is not None or model.familiarity is None
    assert adapted.model.training["adapted"]["certificate"] == "out-of-fold"


def test_every_patient_certifies_and_half_of_them_by_the_split(adapted, model, local):
    whole, split = adapted.offers["out-of-fold"], adapted.offers["split"]
    assert whole.patients == sum(adapted.patients)
    assert split.patients == pytest.approx(whole.patients / 2, abs=2)
    assert adapted.model.rule_out.n == whole.certificates.rule_out.n
    assert adapted.model.rule_out.threshold == whole.certificates.rule_out.threshold
    halved = adapt(model, local, certificate="split", **PROMISE)
    assert halved.deployed == "split"
    assert halved.model.rule_out == halved.offers["split"].certificates.rule_out
    assert halved.patients == adapted.patients
    assert "split (taken)" in adaptation_text(halved.to_dict())


def test_local_patients_are_known_again(adapted, model, local):
    with pytest.raises(InputError, match="that the model has not seen"):
        histcxr.evaluate(adapted.model, local, split="all")
    assert adapted.model.training["val"]["left_out"]["images"] == 0


def test_training_and_test_patients_do_not_adapt(model, local):
    tested = adapt(
        model, local.assign(split=np.where(np.arange(len(local)) < 40, "test", "train")), **PROMISE
    )
    assert tested.model.training["val"]["images"] <= len(local) - 40
    forgetful = replace(model, training={})
    with pytest.raises(InputError, match="does not remember"):
        adapt(forgetful, local)


def test_groups_are_certified_out_of_fold(model, local):
    views = local.assign(view=np.where(local["patient_id"].rank(method="dense") % 2 == 1, "AP", "PA"))
    found = adapt(model, views, by=["view"], **PROMISE)
    assert set(found.model.groups.rule_out.groups["view"]) == {"AP", "PA"}
    with pytest.raises(InputError, match="by must name columns"):
        adapt(model, local, by=["nonsense"])


def test_too_few_patients_are_refused_or_promised_nothing(model, local):
    few = local.groupby("label").head(15)
    with pytest.raises(InputError, match="at least 20 sick and as many normal"):
        adapt(model, few)
    with pytest.raises(InputError, match="certificate must be"):
        adapt(model, local, certificate="none")
    some = adapt(model, local.groupby("label").head(40))
    assert not some.certified
    assert not some.model.rule_out.certified
    assert "no promise" in adaptation_text(some.to_dict())
    assert "sick patients are fewer than the 59" in adaptation_text(some.to_dict())


def test_what_was_not_there_is_said(model, local):
    cohort = read_cohort(local.assign(view="PA", sex="", age_group="adult"), model)
    knew = {"train": {"view": {"AP": 7, "PA": 2}, "sex": {"F": 3}, "label": {"COVID": 9}}}
    text = "\n".join(not_shown(knew, cohort))
    assert "No images in AP view are among these patients (the model knew 7)" in text
    assert "The data do not say sex" in text
    assert "COVID (9), of which these patients show none" in text
    assert "age_group" not in text
    assert "adult" not in text
    one_sided = read_cohort(local.assign(view=np.where(local["label"] == "Normal", "PA", "AP")), model)
    assert "images in AP view are sick" in "\n".join(not_shown({}, one_sided))
    mixed = replace(cohort, patients=np.arange(len(cohort)).astype(object) // 2)
    normal = len(set(mixed.patients) - set(mixed.patients[mixed.sick]))
    assert f"{normal} normal patients are fewer than the 59" in "\n".join(not_shown({}, mixed))


def test_the_command_tells_and_saves(model, local, tmp_path):
    saved = histcxr.save_model(model, tmp_path / "model")
    data = tmp_path / "local.csv"
    local.to_csv(data, index=False)
    line = [
        "adapt",
        str(data),
        "-m",
        str(saved),
        "-o",
        str(tmp_path / "ours"),
        "--json",
        str(tmp_path / "out.json"),
    ]
    done = CliRunner().invoke(
        main, [*line, "--sensitivity", "0.8", "--specificity", "0.8", "--confidence", "0.8"]
    )
    assert done.exit_code == 0, done.output
    assert "as it is" in done.output
    assert "split" in done.output
    told = json.loads((tmp_path / "out.json").read_text())
    assert set(told["offers"]) == {"out-of-fold", "split"}
    promises_nothing = CliRunner().invoke(main, [*line, "--overwrite", "--sensitivity", "0.999"])
    assert promises_nothing.exit_code == 3, promises_nothing.output
    assert histcxr.load_model(tmp_path / "ours").rule_in.certified


def test_a_network_is_recalibrated_on_its_scores(network, phantoms, tmp_path):
    from histcxr.reference.classifier import ReferenceClassifier

    pixels = network.probe()
    before = network.classifier.predict_proba(pixels)[:, 1]
    moved = ReferenceClassifier()
    moved.__dict__.update(vars(network.classifier))
    moved.recalibration_ = (2.0, 0.5)
    after = moved.predict_proba(pixels)
    expected = 1 / (1 + np.exp(-(2 * np.log(before / (1 - before)) + 0.5)))
    np.testing.assert_allclose(after[:, 1], expected, atol=1e-6)
    np.testing.assert_allclose(after.sum(axis=1), 1)
    told = replace(network, classifier=moved)
    loaded = histcxr.load_model(histcxr.save_model(told, tmp_path / "network"))
    np.testing.assert_allclose(loaded.score(pixels), told.score(pixels), atol=1e-6)


def test_a_network_goes_through_adapt(network, phantoms):
    study = phantoms.study(n_patients=60)
    known = replace(network, training={"seen": {"train": ""}, "fingerprint": "x"})
    found = adapt(known, histcxr.read_manifest(study).assign(split=""), **PROMISE)
    assert {one.name for one in found.candidates} == {"as it is", "recalibrated"}
    assert not found.weights
    assert found.model.rule_out.n == found.patients[0]
