import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.exceptions import InputError
from histcxr.models import pipelines
from histcxr.models.pipelines import GaussianSVC

# Weights and repetitions agree to the solver's tolerance of 1e-3, not to the 1e-7 that is asked for.
SOLVER = {"check_sample_weight_equivalence_on_dense_data": "equal to the solver's tolerance"}


@parametrize_with_checks(
    [GaussianSVC(gamma=0.5), GaussianSVC(gamma=0.5, n_components=2)],
    expected_failed_checks=lambda estimator: SOLVER,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def clouds(n=400, d=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return rng.normal(0.3 * y[:, None], 1, (n, d)), np.where(y, "sick", "normal")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limit", [2 << 30, 0])
def test_it_is_the_machine_of_scikit_learn(monkeypatch, limit, weighted):
    monkeypatch.setattr(pipelines, "_LARGEST_KERNEL", limit)
    X, y = clouds()
    weight = np.where(y == "sick", 3.0, 1.0) if weighted else None
    oracle = SVC(C=2.0, gamma=0.01).fit(X, y, weight)
    found = GaussianSVC(C=2.0, gamma=0.01).fit(X, y, weight)
    others, _ = clouds(n=1500, seed=1)  # more than one block
    np.testing.assert_allclose(found.decision_function(others), oracle.decision_function(others), atol=5e-3)
    assert (found.predict(others) == oracle.predict(others)).mean() > 0.995
    assert abs(len(found.support_vectors_) - len(oracle.support_)) <= 3
    assert found.support_vectors_.dtype == np.float32


@pytest.mark.parametrize("weighted", [False, True])
def test_components_are_those_of_scikit_learn(weighted):
    X, y = clouds()
    weight = np.where(y == "sick", 3.0, 0.0 if weighted else 3.0)
    weight[:50] = 1.0
    kept = weight > 0
    found = GaussianSVC(C=2.0, gamma=0.01, n_components=20).fit(X, y, weight)
    pca = PCA(20).fit(X[kept])
    oracle = SVC(C=2.0, gamma=0.01).fit(pca.transform(X[kept]), y[kept], weight[kept])
    others, _ = clouds(n=150, seed=1)
    np.testing.assert_allclose(
        found.decision_function(others), oracle.decision_function(pca.transform(others)), atol=5e-3
    )
    assert found.support_vectors_.shape[1] == 20
    assert {found.mean_.dtype, found.components_.dtype} == {np.dtype(np.float32)}


def test_no_more_components_than_there_are():
    X, y = clouds(n=30, d=60)
    machine = GaussianSVC(gamma=0.01, n_components=200).fit(X, y)
    whole = GaussianSVC(gamma=0.01).fit(X, y)
    assert machine.support_vectors_.shape[1] == 30
    np.testing.assert_allclose(machine.decision_function(X), whole.decision_function(X), atol=5e-3)


@pytest.mark.parametrize("n_components", [None, 50])
def test_a_score_does_not_depend_on_its_neighbours(n_components):
    X, y = clouds(n=500, d=700)
    machine = GaussianSVC(gamma=0.001, n_components=n_components).fit(X, y)
    others, _ = clouds(n=150, d=700, seed=1)
    together = machine.decision_function(others)
    for size in (1, 37, 64, 100):
        apart = [machine.decision_function(others[i : i + size]) for i in range(0, 150, size)]
        np.testing.assert_array_equal(np.concatenate(apart), together)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 0}, "C must be a number above 0"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"gamma": "scale"}, "gamma must be a number above 0, got 'scale'"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        GaussianSVC(**parameters).fit(*clouds(n=20))
