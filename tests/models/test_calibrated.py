import os

import numpy as np
import pytest
import sklearn
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.data.splits import patient_folds
from histcxr.exceptions import InputError
from histcxr.models.out_of_fold import CalibratedClassifier
from histcxr.models.scoring import case_logits


@parametrize_with_checks([CalibratedClassifier(GaussianNB(), cv=2), CalibratedClassifier(SVC(), cv=None)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def clouds(n=300, seed=0, distance=1.5):
    """Two overlapping clouds in five dimensions; two images a patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // 2), 2)
    y = patients % 2
    return rng.normal(0, 1, (n, 5)) + distance * y[:, None] * [1, 0.5, 0, 0, 0], y, patients


def copies(n=200, seed=0):
    """Each patient twice, the same image, with a label that the image does not betray."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(0, 1, (n // 2, 5)), np.arange(n // 2) % 2
    return np.repeat(X, 2, axis=0), np.repeat(y, 2), np.repeat(np.arange(n // 2), 2)


def test_a_patient_never_vouches_for_itself():
    """One nearest neighbour knows every copy by heart: calibration must not believe it."""
    X, y, patients = copies()
    memory = KNeighborsClassifier(1)
    honest = CalibratedClassifier(memory, random_state=0)
    assert abs(roc_auc_score(y, honest.fit_out_of_fold(X, y, patients)) - 0.5) < 0.15
    assert np.abs(honest.predict_proba(X)[:, 1] - 0.5).max() < 0.2
    fooled = CalibratedClassifier(memory, random_state=0).fit(X, y)
    assert np.abs(fooled.predict_proba(X)[:, 1] - 0.5).min() > 0.35


def test_it_agrees_with_scikit_learn_on_the_same_folds():
    X, y, patients = clouds(800)
    new, _, _ = clouds(400, seed=1)
    ours = CalibratedClassifier(SVC(), random_state=0).fit(X, y, groups=patients)
    folds = patient_folds(y, patients, 5, 0)
    theirs = CalibratedClassifierCV(SVC(), method="sigmoid", ensemble=False, cv=folds).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), atol=0.01)


def test_probabilities_come_true_and_the_order_stays():
    X, y, patients = clouds(1000, distance=1.0)
    new, truth, _ = clouds(2000, seed=1, distance=1.0)
    plain = KNeighborsClassifier(3).fit(X, y)
    calibrated = CalibratedClassifier(KNeighborsClassifier(3), random_state=0).fit(X, y, groups=patients)
    before, after = plain.predict_proba(new)[:, 1], calibrated.predict_proba(new)[:, 1]
    assert brier_score_loss(truth, after) < brier_score_loss(truth, before) - 0.01
    assert abs(after[after > 0.6].mean() - truth[after > 0.6].mean()) < 0.06
    assert roc_auc_score(truth, after) == pytest.approx(roc_auc_score(truth, before), abs=1e-12)


def test_logits_keep_the_order_of_certain_probabilities():
    class Sure:
        def predict_proba(self, X):
            return np.column_stack([1 - X, X])

    values = np.array([0, 1e-9, 0.001, 0.5, 0.999, 1 - 1e-9, 1])
    logits = case_logits(Sure(), values)
    assert np.isfinite(logits).all()
    assert (np.diff(logits) > 0).all()
    assert logits[3] == pytest.approx(0, abs=1e-12)


def test_without_folds_it_passes_the_scores_on():
    X, y, _ = clouds()
    machine = SVC().fit(X, y)
    passed = CalibratedClassifier(SVC(), cv=None).fit(X, y)
    np.testing.assert_allclose(passed.predict_proba(X)[:, 1], expit(machine.decision_function(X)))
    with pytest.raises(InputError, match="cv must be a number of folds"):
        passed.fit_out_of_fold(X, y)


@pytest.mark.parametrize("estimator", [LogisticRegression(), KNeighborsClassifier(15)])
def test_class_weights_move_the_middle(estimator):
    X, y, patients = clouds(600)
    keep = (y == 0) | (np.arange(600) < 120)
    X, y, patients = X[keep], y[keep], patients[keep]
    new, truth, _ = clouds(1000, seed=1)

    def sensitivity(weight):
        model = CalibratedClassifier(estimator, class_weight=weight, random_state=0).fit(X, y, patients)
        return model.predict(new)[truth == 1].mean()

    assert sensitivity("balanced") > sensitivity(None) + 0.1
    assert sensitivity({1: 1000.0}) > 0.99


def test_labels_of_any_kind_and_three_dimensions():
    X, y, patients = clouds()
    words = np.where(y == 1, "sick", "normal")
    cube = X[:, None, :]

    class Flat(GaussianNB):
        """Like the features of the library: takes counts in three dimensions."""

        def fit(self, X, y):
            return super().fit(X.reshape(len(X), -1), y)

        def predict_proba(self, X):
            return super().predict_proba(X.reshape(len(X), -1))

    model = CalibratedClassifier(Flat(), random_state=0).fit(cube, words, groups=patients)
    flat = CalibratedClassifier(GaussianNB(), random_state=0).fit(X, y, groups=patients)
    assert list(model.classes_) == ["normal", "sick"]
    assert set(model.predict(cube)) == {"normal", "sick"}
    np.testing.assert_allclose(model.predict_proba(cube), flat.predict_proba(X))
    with pytest.raises(ValueError, match="5 features"):
        model.predict(cube[:, :, 1:])


@pytest.mark.parametrize(
    ("y", "message"), [(np.zeros(300), "one class"), (np.arange(300) % 3, "binary"), (None, "requires y")]
)
def test_refused(y, message):
    with pytest.raises(InputError, match=message):
        CalibratedClassifier(GaussianNB()).fit(clouds()[0], y)


def test_groups_reach_it_through_pipelines_and_searches():
    X, y, patients = copies()
    pipeline = Pipeline(
        [
            ("scale", StandardScaler()),
            ("classifier", CalibratedClassifier(KNeighborsClassifier(1), random_state=0)),
        ]
    )
    folds = StratifiedGroupKFold(3)
    honest = {"params": {"classifier__groups": patients}, "groups": patients}
    losses = [
        -cross_val_score(pipeline, X, y, cv=folds, scoring="neg_log_loss", **options).mean()
        for options in (honest, {"groups": patients})
    ]
    # Without the patients it takes its copies for evidence, and is sure of itself on strangers.
    assert losses[0] < 0.8
    assert losses[1] > 1.1

    search = GridSearchCV(
        pipeline, {"classifier__estimator__n_neighbors": [1, 5]}, cv=folds, scoring="neg_log_loss"
    )
    search.fit(X, y, groups=patients, classifier__groups=patients)
    assert search.cv_results_["mean_test_score"].min() > -0.8
    assert search.best_estimator_.predict_proba(X).shape == (200, 2)


def test_groups_reach_it_by_metadata_routing():
    X, y, patients = copies()
    with sklearn.config_context(enable_metadata_routing=True):
        model = CalibratedClassifier(KNeighborsClassifier(1), random_state=0).set_fit_request(groups=True)
        scores = cross_val_score(
            Pipeline([("classifier", model)]),
            X,
            y,
            cv=StratifiedGroupKFold(3),
            scoring="neg_log_loss",
            params={"groups": patients},
        )
    assert scores.mean() > -0.8


def test_clones_are_equal():
    X, y, patients = clouds()
    model = CalibratedClassifier(KNeighborsClassifier(5), random_state=3).fit(X, y, groups=patients)
    again = clone(model).fit(X, y, groups=patients)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))


def test_views_are_learnt_from_the_first_and_scored_by_the_mean_of_all():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    own, other = rng.normal(y[:, None], 2, (200, 3)), rng.normal(y[:, None], 2, (200, 3))
    both = np.hstack([own, other])
    plain = CalibratedClassifier(SVC(), cv=None).fit(own, y)
    twice = CalibratedClassifier(SVC(), views=2, cv=None).fit(both, y)
    np.testing.assert_allclose(
        twice.decision_function(both), (plain.decision_function(own) + plain.decision_function(other)) / 2
    )
    # The sigmoid is fitted on such means, too, of patients unseen.
    fitted = CalibratedClassifier(SVC(), views=2, cv=4, random_state=0)
    scores = fitted.fit_out_of_fold(both, y)
    np.testing.assert_allclose(
        fitted.decision_function(both), fitted.coef_ * twice.decision_function(both) + fitted.intercept_
    )
    assert roc_auc_score(y, scores) > roc_auc_score(
        y, CalibratedClassifier(SVC(), cv=4, random_state=0).fit_out_of_fold(own, y)
    )


def test_views_must_fit():
    X, y = np.ones((20, 5)), np.arange(20) % 2
    with pytest.raises(InputError, match="X must hold 2 views of each image side by side; got shape"):
        CalibratedClassifier(GaussianNB(), views=2, cv=None).fit(X, y)
    with pytest.raises(InputError, match="views must be a whole number of at least 1, got 0"):
        CalibratedClassifier(GaussianNB(), views=0, cv=None).fit(X, y)


class Network(ClassifierMixin, BaseEstimator):
    """Notes where it was fitted, and for which patients."""

    fits_in_workers = False

    def fit(self, X, y, *, groups=None):
        self.process_, self.groups_, self.classes_ = os.getpid(), groups, np.unique(y)
        return self

    def predict_proba(self, X):
        return np.column_stack([1 - X[:, 0], X[:, 0]])


def test_a_network_stays_in_this_process_and_is_told_the_patients():
    X, y = np.random.default_rng(0).random((40, 1)), np.arange(40) % 2
    patients = np.arange(40) // 2 * 2 + y
    fitted = CalibratedClassifier(Network(), cv=2, n_jobs=2).fit(X, y, groups=patients)
    assert fitted.estimators_[0].process_ == os.getpid()
    np.testing.assert_array_equal(fitted.estimators_[0].groups_, patients)
