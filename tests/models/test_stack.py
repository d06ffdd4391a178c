import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.data.splits import patient_folds
from histcxr.exceptions import InputError
from histcxr.models.out_of_fold import StackedClassifier
from histcxr.models.scoring import case_logits


@parametrize_with_checks(
    [StackedClassifier([("bayes", GaussianNB()), ("near", KNeighborsClassifier(3))], cv=2)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def first_column(X):
    return X[:, :1]


def second_column(X):
    return X[:, 1:2]


def halves(n=600, seed=0):
    """Two columns, each with half of what there is to know; two images a patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // 2), 2)
    y = patients % 2
    return np.column_stack([rng.normal(1.2 * y), rng.normal(y), rng.normal(0, 1, n)]), y, patients


def members():
    return [
        ("first", make_pipeline(FunctionTransformer(first_column), GaussianNB())),
        ("second", make_pipeline(FunctionTransformer(second_column), GaussianNB())),
        ("memory", KNeighborsClassifier(1)),
    ]


def out_of_fold(X, y, patients):
    """The members' out-of-fold logits, the slow way."""
    logits = np.empty((len(y), 3))
    for train, test in patient_folds(y, patients, 5, 0):
        for column, (_, member) in enumerate(members()):
            logits[test, column] = case_logits(clone(member).fit(X[train], y[train]), X[test])
    return logits


def test_together_they_know_more_than_each():
    X, y, patients = halves()
    new, truth, _ = halves(seed=1)
    stack = StackedClassifier(members(), random_state=0).fit(X, y, groups=patients)
    alone = [roc_auc_score(truth, case_logits(clone(member).fit(X, y), new)) for _, member in members()]
    assert roc_auc_score(truth, stack.decision_function(new)) > max(alone) + 0.03
    # A member that knows its training images by heart earns no weight by it.
    assert stack.coef_[2] < 0.5 * stack.coef_[:2].min()


def test_weights_without_evenness_are_those_of_a_logistic_regression():
    X, y, patients = halves()
    stack = StackedClassifier(members(), evenness=0, random_state=0).fit(X, y, groups=patients)
    free = LogisticRegression(C=1e6).fit(out_of_fold(X, y, patients), y)
    np.testing.assert_allclose(stack.coef_, free.coef_[0], atol=0.02)
    assert stack.intercept_ == pytest.approx(free.intercept_[0], abs=0.02)


def test_weights_become_even():
    X, y, patients = halves()
    logits = out_of_fold(X, y, patients)
    slopes = [LogisticRegression().fit(logits[:, [column]], y).coef_[0, 0] for column in range(3)]
    uneven = []
    for evenness in (0, 0.01, 0.1, 1e4):
        stack = StackedClassifier(members(), evenness=evenness, random_state=0).fit(X, y, groups=patients)
        uneven.append(np.ptp(stack.coef_ / slopes))
    assert uneven == sorted(uneven, reverse=True)
    assert uneven[0] > 0.3
    assert uneven[-1] < 1e-3


def test_out_of_fold_scores_are_honest():
    rng = np.random.default_rng(0)
    X, y = np.repeat(rng.normal(0, 1, (100, 3)), 2, axis=0), np.repeat(np.arange(100) % 2, 2)
    patients = np.repeat(np.arange(100), 2)
    stack = StackedClassifier([("memory", KNeighborsClassifier(1))], random_state=0)
    assert abs(roc_auc_score(y, stack.fit_out_of_fold(X, y, patients)) - 0.5) < 0.15
    assert roc_auc_score(y, stack.fit_out_of_fold(X, y)) > 0.85


def test_without_folds_all_weigh_the_same():
    X, y, _ = halves()
    stack = StackedClassifier(members(), cv=None).fit(X, y)
    np.testing.assert_allclose(stack.coef_, 1 / 3)


def test_jobs_make_no_difference():
    X, y, patients = halves(200)
    one = StackedClassifier(members(), random_state=0, n_jobs=1).fit(X, y, groups=patients)
    with joblib.parallel_config("threading"):
        two = StackedClassifier(members(), random_state=0, n_jobs=2).fit(X, y, groups=patients)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_members_can_be_searched():
    X, y, patients = halves(200)
    stack = StackedClassifier(members(), cv=2, random_state=0)
    search = GridSearchCV(stack, {"memory__n_neighbors": [1, 15], "evenness": [0.1]}, cv=2, scoring="roc_auc")
    search.fit(X, y)
    assert search.best_params_["memory__n_neighbors"] in (1, 15)
    stack.set_params(memory=GaussianNB())
    assert isinstance(stack.get_params()["memory"], GaussianNB)


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ([], {}, "got none"),
        ([("same", GaussianNB()), ("same", GaussianNB())], {}, "not unique"),
        ([("one", GaussianNB())], {"evenness": -1}, "evenness must be"),
        ([("one", GaussianNB())], {"evenness": float("inf")}, "evenness must be"),
    ],
)
def test_refused(parts, settings, message):
    X, y, _ = halves(40)
    with pytest.raises(ValueError, match=message) as caught:
        StackedClassifier(parts, **settings).fit(X, y)
    assert isinstance(caught.value, InputError) or "unique" in message
