from dataclasses import replace
from unittest.mock import patch

import joblib
import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.metrics import roc_auc_score

from histcxr.data.splits import patient_folds
from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError
from histcxr.features.recipe import Recipe
from histcxr.models import registry
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.pipelines import GaussianSVC
from histcxr.models.registry import lenet_space, make_classifier
from histcxr.models.scoring import case_logits
from histcxr.models.tuning import TuningOptions, prepare, tune

C = "classifier__estimator__C"
GAMMA = "classifier__estimator__gamma"
NEIGHBOURS = "classifier__estimator__n_neighbors"
ZONES = Recipe(6)


def tuned(name, data, *, recipe=ZONES, space=None, defaults=None, members=None, refit=True, **options):
    options, spec = TuningOptions(recipe=recipe, **options), registry.CLASSIFIERS.get(name)
    other = {} if space is None else {name: replace(spec, space=lambda recipe: space)}
    with patch.dict(registry.CLASSIFIERS, other):
        return tune(name, *data, options, defaults=defaults, members=members, refit=refit)


def test_it_finds_what_is_better_than_the_defaults(study, others):
    found = tuned("svm", study, n_trials=6, method="random")
    table = found.trials
    assert list(table.trial) == list(range(len(table)))
    assert list(table.status.unique()) == ["ok"]
    assert (table.images == len(study[1])).all()
    assert found.score == table.score.max() >= table.score[0]
    best = table.loc[table.score.idxmax()]
    assert found.parameters in ({}, {C: best[C], GAMMA: best[GAMMA]})
    for key, value in found.parameters.items():
        assert found.estimator.get_params()[key] == value
    assert roc_auc_score(others[1], found.estimator.predict_proba(others[0])[:, 1]) > 0.85
    assert found.seconds > table.seconds.max()


def test_scores_are_those_of_a_plain_cross_validation(study):
    """The shortcuts (features once, no calibration) change no score."""
    counts, sick, patients = study
    found = tuned("svm", study, n_trials=1, method="random", refit=False)
    assert not hasattr(found.estimator["classifier"], "classes_")
    for _, row in found.trials.iterrows():
        scores = []
        for train, test in patient_folds(sick, patients, 5, 0):
            model = make_classifier("svm", zones=6)
            if row.trial:
                model.set_params(**{C: row[C], GAMMA: row[GAMMA]})
            model.fit(counts[train], sick[train], classifier__groups=patients[train])
            scores.append(roc_auc_score(sick[test], case_logits(model, counts[test])))
        assert row.score == pytest.approx(np.mean(scores))
        assert row.score_std == pytest.approx(np.std(scores))


def test_halving_spends_its_time_on_the_better_third(study):
    found = tuned("svm", study, n_trials=6, refit=False)
    whole = found.trials.images == len(study[1])
    assert len(whole) == 7
    assert whole[0]  # the defaults reach the end
    assert whole.sum() == 3
    assert found.trials.images[~whole].between(60, 100).all()
    assert found.score == found.trials[whole].score.max()


def test_too_few_patients_are_not_halved(study):
    few = tuple(part[:60] for part in study)
    assert (tuned("svm", few, n_trials=6, refit=False).trials.images == 60).all()


def test_halving_keeps_patients_together():
    """Copies of one image with the same random label: whoever splits them scores far above chance."""
    rng = np.random.default_rng(0)
    n = 80
    single = rng.poisson(20, (n, 1, 256)) + rng.poisson(60, (n, 1, 8)).repeat(32, axis=2)
    counts, patients = np.repeat(single, 2, axis=0), np.repeat(np.arange(n), 2)
    data = (counts, patients % 2 == 1, patients)
    settings = {
        "n_trials": 3,
        "space": {NEIGHBOURS: [1, 2, 3]},
        "refit": False,
        "random_state": 1,
        "recipe": Recipe(),
    }
    honest = tuned("knn", data, **settings)
    assert honest.trials.score.between(0.25, 0.7).all()
    fooled = tuned("knn", (*data[:2], None), **settings)
    assert fooled.trials.score[1:].max() > honest.trials.score.max() + 0.1


@pytest.mark.parametrize("method", ["random", "halving"])
def test_failures_are_reported_and_do_not_win(study, method):
    space = {C: [-1.0, 2.0, 0.5, 0.7]}
    with pytest.warns(
        HistcxrWarning, match="svm: 1 of 5 trials failed; the first with: InputError: C must be"
    ):
        found = tuned("svm", study, n_trials=4, method=method, space=space, refit=False)
    table = found.trials.set_index(C)
    assert table.status[-1.0] == "failed"
    assert "C must be a number above 0" in table.error[-1.0]
    assert np.isnan(table.score[-1.0])
    assert (table.images[-1.0] < len(study[1])) == (method == "halving")  # it goes no further
    assert found.parameters.get(C) != -1.0


def test_when_all_fail_it_says_why(study):
    few = tuple(part[:24] for part in study)  # 25 neighbours cannot be found among so few
    message = r"knn: each of 1 trials failed; the first with: ValueError: .*n_neighbors"
    with pytest.raises(HistcxrError, match=message):
        tuned("knn", few, n_trials=0, refit=False)


def test_bugs_are_not_hidden(study, monkeypatch):
    def fit(self, X, y):
        raise AttributeError("a slip of the pen")

    monkeypatch.setattr(GaussianSVC, "fit", fit)
    with pytest.raises(AttributeError, match="slip of the pen"):
        tuned("svm", study, n_trials=1)


def test_features_can_be_searched_too_and_distributions_given(study):
    space = {"features__own__n_quantiles": [4, 8], C: loguniform(0.1, 10)}
    found = tuned("svm", study, n_trials=3, method="random", space=space)
    assert len(found.trials) == 4
    assert set(found.trials["features__own__n_quantiles"][1:]) <= {4, 8}
    assert found.trials[C][1:].between(0.1, 10).all()
    if found.parameters:
        width = found.parameters["features__own__n_quantiles"] * 6 + 8 * 6 + 2
        assert found.estimator["classifier"].n_features_in_ == width


def test_a_small_space_is_tried_once_without_the_defaults(study):
    space = {C: [3.0, 1.0]}  # 3 is the default
    found = tuned("svm", study, n_trials=50, method="random", space=space, refit=False)
    assert list(found.trials.trial) == [0, 1]
    assert found.trials[C][1] == 1.0


def test_seeds_and_jobs_make_no_difference(study):
    one = tuned("svm", study, n_trials=4, refit=False)
    with joblib.parallel_config("threading"):
        two = tuned("svm", study, n_jobs=2, n_trials=4, refit=False)
    columns = ["trial", "score", "images", C, GAMMA]
    assert one.trials[columns].equals(two.trials[columns])
    assert one.parameters == two.parameters


def test_the_stack_is_built_of_tuned_members(study, others):
    members = {"svm": tuned("svm", study, n_trials=2), "knn": tuned("knn", study, n_trials=2, refit=False)}
    found = tuned("stack", study, members=members)
    stack = found.estimator["classifier"]
    assert [name for name, _ in stack.estimators] == ["svm", "knn"]
    for name, member in stack.estimators:
        for key, value in members[name].parameters.items():
            assert member.get_params()[key] == value
            assert found.parameters[f"{name}__{key}"] == value
    assert set(found.trials.classifier) == {"svm", "knn"}
    assert len(found.trials) == 6
    assert roc_auc_score(others[1], found.estimator.predict_proba(others[0])[:, 1]) > 0.85
    assert found.score > max(member.score for member in members.values()) - 0.03


def test_defaults_take_the_registrys_place(study):
    plain = tuned("svm", study, n_trials=0, defaults={C: 0.5})
    assert plain.estimator.get_params()[C] == 0.5
    assert plain.parameters == {C: 0.5}
    searched = tuned("svm", study, n_trials=2, defaults={C: 0.5}, refit=False)
    assert searched.trials.score[0] == pytest.approx(plain.score, abs=2e-3)  # which scales on all patients


def test_a_folder_remembers_whose_search_it_is(study, tmp_path):
    settings = {"n_trials": 1, "refit": False, "directory": tmp_path / "search"}
    first, again = (tuned("svm", study, **settings) for _ in range(2))
    assert again.trials.drop(columns="seconds").equals(first.trials.drop(columns="seconds"))
    with pytest.raises(InputError, match="holds one with other data"):
        tuned("svm", (study[0] + 1, *study[1:]), **settings)
    with pytest.raises(InputError, match="holds one with other estimator, classifier"):
        tuned("knn", study, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet"}, "name must be one of knn, svm"),
        ({"n_trials": -1}, "n_trials must be a whole number of at least 0"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"seconds": 9}, "seconds are for networks only; give fewer trials for 'svm'"),
        ({"method": "grid"}, "search must be one of halving, random for 'svm'; got 'grid'"),
        ({"name": "stack", "defaults": {C: 1}}, "defaults must be None for the stack"),
        ({"name": "lenet", "method": "halving"}, "one of hyperband, random, bayesian for 'lenet'"),
        ({"defaults": {"classifier__estimator__D": 1}}, "defaults must name parameters of 'svm'; it has no"),
        ({"name": "stack"}, "members must hold at least one classifier"),
        ({"members": {}}, "members are for the stack only; got them for 'svm'"),
        ({"y": np.zeros(240)}, "y must hold two classes; got 1"),
        ({"groups": np.arange(240) % 2}, "5 folds take at least 5 patients of each class"),
    ],
)
def test_refused(change, message, study):
    given = dict(zip(("counts", "y", "groups"), study, strict=True)) | {"name": "svm"} | change
    name, *data = (given.pop(key) for key in ("name", "counts", "y", "groups"))
    with pytest.raises(InputError, match=message):
        tuned(name, data, **given)


def test_what_needs_no_data_is_refused_without(monkeypatch):
    with pytest.raises(InputError, match="device 'cuda:99'"):
        prepare("xgboost", TuningOptions(device="cuda:99"))


def test_usual_numbers_of_trials_are_lean():
    assert all(spec.n_trials <= 12 for spec in registry.CLASSIFIERS.values())
    assert prepare("svm", TuningOptions(recipe=Recipe(6, "travel")))[2] == 0


@pytest.mark.parametrize("name", ["svm", "xgboost"])
def test_without_trials_the_folds_of_the_calibration_give_the_same_score(name, study):
    counts, sick, patients = study
    quick = tuned(name, study, n_trials=0)
    searched = tuned(name, study, n_trials=0, refit=False)
    assert len(quick.trials) == len(searched.trials) == 1
    assert quick.score == pytest.approx(searched.score, abs=1e-9)
    assert quick.trials.score_std[0] == pytest.approx(searched.trials.score_std[0], abs=1e-9)
    alone = make_classifier(name, zones=6).fit(counts, sick, classifier__groups=patients)
    np.testing.assert_array_equal(quick.estimator.predict_proba(counts), alone.predict_proba(counts))


def small_lenet(values):
    return {
        "filters": (values.Choice("filters_1", [2, 4]),),
        "learning_rate": values.Float("rate", 3e-3, 3e-2),
    }


def test_a_lenet_is_searched_cross_validated_and_fitted(study, others, tmp_path):
    pytest.importorskip("keras_tuner")
    small = {"scale": "own", "bin_width": 8, "kernel_size": 3, "dense": (8,), "epochs": 12, "batch_size": 16}
    small["learning_rate"] = 1e-6  # learns nothing, so that a trial wins
    defaults = {f"classifier__estimator__{key}": value for key, value in small.items()}
    settings = {
        "space": small_lenet,
        "method": "random",
        "defaults": defaults,
        "directory": tmp_path / "search",
    }
    found = tuned("lenet", study, n_trials=2, **settings)
    assert found.trials.trial.tolist() == [0, 1, 2]
    assert (found.trials.images == 48).all()  # a fold
    best = found.trials.loc[found.trials.score.idxmax()]
    assert best.trial > 0
    assert found.parameters == defaults | {
        "classifier__estimator__filters": (best.filters_1,),
        "classifier__estimator__learning_rate": best.rate,
    }
    assert found.measure == "cross-validated AUC"
    assert found.score > 0.7
    assert found.estimator["classifier"].estimator.epochs == 12
    assert roc_auc_score(others[1], found.estimator.predict_proba(others[0])[:, 1]) > 0.7


def test_a_lenet_without_trials_needs_no_search(study, monkeypatch):
    pytest.importorskip("keras")
    monkeypatch.setattr("histcxr.networks.search.search_networks", lambda *given: pytest.fail("searched"))
    small = {"bin_width": 16, "kernel_size": 3, "filters": (2,), "dense": (4,), "epochs": 1}
    defaults = {f"classifier__estimator__{key}": value for key, value in small.items()}
    found = tuned("lenet", study, n_trials=0, defaults=defaults, refit=False)
    assert found.trials.score.tolist() == [found.score]
    assert not hasattr(found.estimator["classifier"], "classes_")


def test_the_space_of_the_lenet_covers_what_it_promises():
    keras_tuner = pytest.importorskip("keras_tuner")
    values = keras_tuner.HyperParameters()
    assert set(lenet_space(values)) <= set(LeNetClassifier().get_params())
    choices = {hp.name: getattr(hp, "values", None) for hp in values.space}
    assert choices["dense_1"] == [16, 32, 64, 128, 256, 512, 1024, 2048]
    assert set(choices["activation"]) == {"relu", "tanh"}
    for blocks in (1, 2, 3):
        for layers in (1, 2, 3):
            some = keras_tuner.HyperParameters()
            some.Fixed("blocks", blocks)
            some.Fixed("dense_layers", layers)
            params = lenet_space(some)
            assert len(params["filters"]) == len(params["kernel_size"]) == blocks
            assert len(params["dense"]) == layers
            assert None not in params["filters"] + params["kernel_size"] + params["dense"]
