"""OutOfDistribution: the Mahalanobis distance, with numpy's as the oracle."""

import json

import numpy as np
import pytest

from histcxr.decision.out_of_distribution import OutOfDistribution, fit_out_of_distribution
from histcxr.exceptions import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_distance_is_mahalanobis(rng):
    mixing = rng.normal(0, 1, (5, 5)) + 2 * np.eye(5)
    training, validation = (rng.normal(0, 1, (20_000, 5)) @ mixing.T + 3 for _ in range(2))
    found = fit_out_of_distribution(training, validation, false_alarms=0.01)
    centred = validation - training.mean(axis=0)
    expected = np.einsum("ij,jk,ik->i", centred, np.linalg.inv(np.cov(training.T)), centred)
    np.testing.assert_allclose(found.distances(validation), expected, rtol=0.05)
    assert found.false_alarms == pytest.approx(0.01, abs=0.001)
    assert found.outside(validation).mean() == found.false_alarms


def test_largest_directions_alone(rng):
    training = rng.normal(0, 1, (2000, 3)) * [10, 5, 0.1]
    found = fit_out_of_distribution(training, training, directions=2)
    assert found.whitening.shape == (2, 3)
    away = np.array([[0, 0, 100.0], [100, 0, 0]])
    assert found.outside(away).tolist() == [False, True]


def test_what_is_no_number_is_outside(rng):
    training = rng.normal(0, 1, (100, 2))
    found = fit_out_of_distribution(training, training, false_alarms=0.0)
    assert not found.outside(training).any()
    assert found.outside(np.array([[np.nan, 0.0]])).all()


def test_json_brings_it_back(rng):
    training = rng.normal(0, 1, (100, 3))
    found = fit_out_of_distribution(training, training)
    back = OutOfDistribution.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(back.distances(training), found.distances(training))
    assert back.limit == found.limit


@pytest.mark.parametrize("damage", [{}, {"centre": [1, 2]}, {"limit": "much"}])
def test_damaged_json_is_refused(damage, rng):
    stored = fit_out_of_distribution(*2 * [rng.normal(0, 1, (100, 3))]).to_dict()
    stored = stored | damage if damage else {}
    with pytest.raises(InputError, match="familiar"):
        OutOfDistribution.from_dict(stored)


def test_few_radiographs_are_refused(rng):
    few = rng.normal(0, 1, (20, 5))
    with pytest.raises(InputError, match="at least 50"):
        fit_out_of_distribution(few, few)
    many = rng.normal(0, 1, (60, 5))
    with pytest.raises(InputError, match="false_alarms"):
        fit_out_of_distribution(many, many, false_alarms=1.0)
