import warnings

import joblib
import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from histcxr.data.splits import patient_folds
from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError
from histcxr.models import registry
from histcxr.models.calibrated import CalibratedClassifier
from histcxr.models.gaussian_svc import GaussianSVC
from histcxr.models.out_of_fold import case_logits
from histcxr.models.registry import make_classifier
from histcxr.models.search import run_search
from histcxr.models.tuning import tune

C = "classifier__estimator__C"
GAMMA = "classifier__estimator__gamma"
NEIGHBOURS = "classifier__estimator__n_neighbors"


def test_it_finds_what_is_better_than_the_defaults(study, others):
    counts, sick, patients = study
    found = tune("svm", counts, sick, patients, zones=6, n_trials=6, search="random", cv=3)
    table = found.trials
    assert list(table.trial) == list(range(len(table)))
    assert list(table.status.unique()) == ["ok"]
    assert (table.images == len(sick)).all()
    assert found.score == table.score.max() >= table.score[0]
    best = table.loc[table.score.idxmax()]
    assert found.parameters in ({}, {C: best[C], GAMMA: best[GAMMA]})
    for key, value in found.parameters.items():
        assert found.estimator.get_params()[key] == value
    assert roc_auc_score(others[1], found.estimator.predict_proba(others[0])[:, 1]) > 0.85
    assert found.not_tried == 0
    assert found.seconds > table.seconds.max()


def test_scores_are_those_of_a_plain_cross_validation(study):
    """The shortcuts (features once, no calibration) change no score."""
    counts, sick, patients = study
    found = tune("svm", counts, sick, patients, zones=6, n_trials=1, search="random", cv=3, refit=False)
    for _, row in found.trials.iterrows():
        scores = []
        for train, test in patient_folds(sick, patients, 3, 0):
            model = make_classifier("svm", zones=6)
            if row.trial:
                model.set_params(**{C: row[C], GAMMA: row[GAMMA]})
            model.fit(counts[train], sick[train], classifier__groups=patients[train])
            scores.append(roc_auc_score(sick[test], case_logits(model, counts[test])))
        assert row.score == pytest.approx(np.mean(scores))
        assert row.score_std == pytest.approx(np.std(scores))


def test_halving_spends_its_time_on_the_better_third(study):
    counts, sick, patients = study
    found = tune("svm", counts, sick, patients, zones=6, n_trials=6, cv=2, refit=False)
    images = found.trials.images.to_numpy()
    assert len(images) == 7
    assert (images[[0]] == len(sick)).all()  # the defaults reach the end
    assert (images == len(sick)).sum() == 3
    assert ((images > 60) & (images < 100)).sum() == 4
    stopped = found.trials[found.trials.images < len(sick)]
    assert found.score == found.trials[found.trials.images == len(sick)].score.max()
    assert len(stopped) == 4


def test_halving_keeps_patients_together():
    """Copies of one image with the same random label: whoever splits them scores far above chance."""
    rng = np.random.default_rng(0)
    n = 80
    single = rng.poisson(20, (n, 1, 256)) + rng.poisson(60, (n, 1, 8)).repeat(32, axis=2)
    counts, patients = np.repeat(single, 2, axis=0), np.repeat(np.arange(n), 2)
    sick = patients % 2 == 1
    space = {NEIGHBOURS: [1, 2, 3]}
    settings = {"n_trials": 3, "cv": 2, "space": space, "refit": False, "random_state": 1}
    honest = tune("knn", counts, sick, patients, **settings)
    assert honest.trials.score.between(0.3, 0.7).all()
    fooled = tune("knn", counts, sick, **settings)
    assert fooled.trials.score[1:].max() > honest.trials.score.max() + 0.1


def test_failures_are_reported_and_do_not_win(study):
    counts, sick, patients = study
    space = {C: [-1.0, 2.0, 0.5]}
    with pytest.warns(
        HistcxrWarning, match="svm: 1 of 4 trials failed; the first with: InputError: C must be"
    ):
        found = tune("svm", counts, sick, patients, zones=6, n_trials=3, search="random", cv=2, space=space)
    table = found.trials.set_index(C)
    assert table.status[-1.0] == "failed"
    assert "C must be a number above 0" in table.error[-1.0]
    assert np.isnan(table.score[-1.0])
    assert found.parameters.get(C) != -1.0


def test_a_failure_in_the_small_rung_goes_no_further(study):
    counts, sick, patients = study
    space = {NEIGHBOURS: [3, 5, 7, 1000]}
    with pytest.warns(HistcxrWarning, match="1 of 5 trials failed.*n_neighbors"):
        found = tune("knn", counts, sick, patients, zones=6, n_trials=4, cv=2, space=space, refit=False)
    failed = found.trials[found.trials.status == "failed"]
    assert list(failed[NEIGHBOURS]) == [1000]
    assert failed.images.max() < len(sick)


def test_when_all_fail_it_says_why(study):
    counts, sick, patients = study
    few = np.flatnonzero(patients < 12)  # 25 neighbours cannot be found among 16
    with pytest.raises(
        HistcxrError, match=r"knn: each of 1 trials failed; the first with: ValueError: .*n_neighbors"
    ):
        tune("knn", counts[few], sick[few], patients[few], zones=6, n_trials=0, cv=3)


class Broken(GaussianNB):
    """Has a bug, as opposed to unsuitable settings."""

    def fit(self, X, y):
        raise AttributeError("a slip of the pen")


def test_bugs_are_not_hidden(study):
    counts, sick, patients = study
    pipeline = Pipeline(
        [("features", FunctionTransformer()), ("classifier", CalibratedClassifier(Broken(), random_state=0))]
    )
    with pytest.raises(AttributeError, match="slip of the pen"):
        run_search(
            pipeline,
            {},
            counts[:, 0],
            sick,
            patients,
            n_trials=0,
            halving=False,
            deadline=None,
            cv=2,
            metric=roc_auc_score,
            random_state=0,
            n_jobs=1,
        )


@pytest.mark.parametrize("search", ["random", "halving"])
def test_out_of_time_the_defaults_remain(study, search):
    counts, sick, patients = study
    found = tune(
        "svm", counts, sick, patients, zones=6, n_trials=6, seconds=1e-6, search=search, cv=2, refit=False
    )
    assert list(found.trials.trial) == [0]
    assert found.parameters == {}
    assert found.not_tried == 6


def test_no_trials_measures_the_defaults(study):
    counts, sick, patients = study
    found = tune("svm", counts, sick, patients, zones=6, n_trials=0, cv=2)
    assert len(found.trials) == 1
    assert 0.8 < found.score <= 1
    assert found.estimator["classifier"].cv == 5


def test_features_can_be_searched_too_and_distributions_given(study):
    counts, sick, patients = study
    space = {"features__own__n_quantiles": [4, 8], C: loguniform(0.1, 10)}
    found = tune("svm", counts, sick, patients, zones=6, n_trials=3, search="random", cv=2, space=space)
    assert len(found.trials) == 4
    assert set(found.trials["features__own__n_quantiles"][1:]) <= {4, 8}
    assert found.trials[C][1:].between(0.1, 10).all()
    if found.parameters:
        width = found.parameters["features__own__n_quantiles"] * 6 + 8 * 6 + 2
        assert found.estimator["classifier"].n_features_in_ == width


def test_a_small_space_is_tried_once_without_the_defaults(study):
    counts, sick, patients = study
    space = {C: [3.0, 1.0]}  # 3 is the default
    found = tune(
        "svm", counts, sick, patients, zones=6, n_trials=50, search="random", cv=2, space=space, refit=False
    )
    assert list(found.trials.trial) == [0, 1]
    assert found.trials[C][1] == 1.0


def test_seeds_and_jobs_make_no_difference(study):
    counts, sick, patients = study
    settings = {"zones": 6, "n_trials": 4, "cv": 2, "refit": False}
    one = tune("svm", counts, sick, patients, **settings)
    with joblib.parallel_config("threading"):
        two = tune("svm", counts, sick, patients, n_jobs=2, **settings)
    columns = ["trial", "score", "images", C, GAMMA]
    assert one.trials[columns].equals(two.trials[columns])
    assert one.parameters == two.parameters


def test_the_stack_is_built_of_tuned_members(study, others, monkeypatch):
    counts, sick, patients = study
    settings = {"zones": 6, "n_trials": 2, "cv": 2}
    members = {
        "svm": tune("svm", counts, sick, patients, **settings),
        "knn": tune("knn", counts, sick, patients, refit=False, **settings),
    }
    found = tune("stack", counts, sick, patients, members=members, **settings)
    stack = found.estimator["classifier"]
    assert [name for name, _ in stack.estimators] == ["svm", "knn"]
    for name, member in stack.estimators:
        for key, value in members[name].parameters.items():
            assert member.get_params()[key] == value
            assert found.parameters[f"{name}__{key}"] == value
    assert set(found.trials.classifier) == {"svm", "knn"}
    assert len(found.trials) == 6
    scores = found.estimator.predict_proba(others[0])[:, 1]
    assert roc_auc_score(others[1], scores) > 0.85
    assert found.score > max(member.score for member in members.values()) - 0.03

    # Without members it tunes its own.
    monkeypatch.setattr("histcxr.models.tuning.stack_members", lambda zones, bands: ("svm", "knn"))
    again = tune("stack", counts, sick, patients, refit=False, **settings)
    assert again.score == pytest.approx(found.score)
    assert again.parameters == found.parameters


def test_defaults_take_the_registrys_place(study):
    counts, sick, patients = study
    settings = {"zones": 6, "cv": 2, "defaults": {C: 0.5}}
    plain = tune("svm", counts, sick, patients, n_trials=0, **settings)
    assert plain.estimator.get_params()[C] == 0.5
    assert plain.parameters == {C: 0.5}
    searched = tune("svm", counts, sick, patients, n_trials=2, refit=False, **settings)
    assert searched.trials.score[0] == plain.score


def test_a_search_is_gone_on_with(study, tmp_path, monkeypatch):
    counts, sick, patients = study
    settings = {"zones": 6, "n_trials": 4, "cv": 2, "refit": False}
    whole = tune("svm", counts, sick, patients, **settings)
    fit, calls = GaussianSVC.fit, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(GaussianSVC, "fit", interrupted)
    folder = tmp_path / "search"
    with pytest.raises(KeyboardInterrupt):
        tune("svm", counts, sick, patients, directory=folder, **settings)
    known = (folder / "fits.jsonl").read_text().splitlines()
    assert len(known) == 3
    with (folder / "fits.jsonl").open("a") as file:
        file.write('{"fit": "cut sho')  # as a kill may leave it
    again = tune("svm", counts, sick, patients, directory=folder, **settings)
    columns = ["trial", "score", "images", C, GAMMA]
    assert again.trials[columns].equals(whole.trials[columns])
    fits = len(calls) - 4
    assert fits == 4 * 2 + 3 * 2 - 3  # two rungs of two folds, less what was known
    tune("svm", counts, sick, patients, directory=folder, **settings)
    assert len(calls) - 4 == fits  # nothing is fitted again
    with pytest.raises(InputError, match="holds one with other data"):
        tune("svm", counts + 1, sick, patients, directory=folder, **settings)
    with pytest.raises(InputError, match="holds one with other classifier"):
        tune("knn", counts, sick, patients, directory=folder, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "name must be one of knn, svm"),
        ({"n_trials": -1}, "n_trials must be an integer of at least 0"),
        ({"n_trials": 2.5}, "n_trials must be an integer of at least 0"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"search": "grid"}, "search must be one of halving, random for 'svm'; got 'grid'"),
        ({"scoring": "accuracy"}, "scoring must be one of roc_auc, average_precision; got 'accuracy'"),
        ({"space": {"classifier__estimator__D": [1]}}, "'svm'; it has no classifier__estimator__D"),
        ({"name": "stack", "space": {C: [1]}}, "space must be None for the stack"),
        ({"name": "stack", "defaults": {C: 1}}, "defaults must be None for the stack"),
        ({"name": "stack", "search": "random"}, "search must be None for the stack; got 'random'"),
        ({"name": "lenet", "search": "halving"}, "one of hyperband, random, bayesian for 'lenet'"),
        ({"name": "lenet", "space": {C: [1]}}, "space must be a function of keras_tuner.HyperParameters"),
        ({"space": len}, "space must be a mapping for 'svm'"),
        ({"defaults": {"classifier__estimator__D": 1}}, "defaults must name parameters of 'svm'; it has no"),
        ({"members": {}}, "members are for the stack only; got them for 'svm'"),
        ({"cv": 1}, "folds must be a whole number of at least 2"),
        ({"y": np.zeros(240)}, "y must hold two classes; got 1"),
        ({"groups": np.arange(240) % 2}, "5 folds take at least 5 patients of each class"),
    ],
)
def test_refused(arguments, message, study):
    counts, sick, patients = study
    call = {"name": "svm", "X": counts, "y": sick, "groups": patients, "zones": 6, **arguments}
    with pytest.raises(InputError, match=message):
        tune(**call)


def test_usual_numbers_of_trials_are_lean():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(spec.n_trials <= 12 for spec in registry.CLASSIFIERS.values())


@pytest.mark.parametrize("name", ["svm", "xgboost"])
def test_without_trials_the_folds_of_the_calibration_give_the_same_score(name, study):
    counts, sick, patients = study
    quick = tune(name, counts, sick, patients, zones=6, n_trials=0)
    searched = tune(name, counts, sick, patients, zones=6, n_trials=0, refit=False)
    assert quick.score == pytest.approx(searched.score, abs=1e-9)
    assert quick.trials.score_std[0] == pytest.approx(searched.trials.score_std[0], abs=1e-9)
    alone = make_classifier(name, zones=6).fit(counts, sick, classifier__groups=patients)
    np.testing.assert_array_equal(quick.estimator.predict_proba(counts), alone.predict_proba(counts))
