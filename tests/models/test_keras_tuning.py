import sys

import numpy as np
import pytest
from sklearn.base import clone

from histcxr.exceptions import HistcxrError, InputError, MissingDependencyError
from histcxr.models.keras_tuning import lenet_space, tune_lenet
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_training import LeNetTrainer, TrainedNetwork

pytest.importorskip("keras")
keras_tuner = pytest.importorskip("keras_tuner")

BASE = LeNetClassifier(epochs=9, batch_size=32, dense_dropout=0.0, shift=0, gamma=0, contrast=0)


def space(values):
    return {
        "filters": (values.Choice("filters_1", [2, 4]),),
        "kernel_size": values.Choice("kernel_1", [3, 5]),
        "dense": (values.Choice("dense_1", [4, 8]),),
        "learning_rate": values.Float("learning_rate", 3e-3, 3e-2, sampling="log"),
    }


@pytest.fixture
def untrained(monkeypatch):
    """Replace training, for tests of the search around it, by a score that is drawn from the seed."""

    def train(self, rows, validation, *, seed):
        history = {"loss": [0.7], "val_loss": [0.7], "val_auc": [np.random.default_rng(seed).random()]}
        return TrainedNetwork({}, history, 0)

    monkeypatch.setattr(LeNetTrainer, "train", train)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 2)
    sick = patients % 2
    pixels = rng.normal(28 + 8 * sick[:, None], 8, (80, 400)).clip(0, 63).astype(int)
    return np.stack([np.bincount(row, minlength=64) for row in pixels])[:, None], sick, patients


def test_hyperband_trains_the_better_ones_longer(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # Keras Tuner's own trials would fail without it.
    counts, sick, patients = data
    seen = []
    slow = clone(BASE).set_params(learning_rate=1e-6)  # learns nothing, so that a trial wins
    search = tune_lenet(
        counts, sick, groups=patients, estimator=slow, space=space, n_trials=11, on_trial=seen.append
    )
    table = search.table
    assert len(table) == 12  # the estimator as it came is trained first, in full
    assert len(seen) == 11
    assert set(table.status) == {"ok"}
    assert table.epochs.tolist() == [9] + [1] * 9 + [3] * 2
    repeated = table.loc[table.repeats[10:].astype(int)]
    assert repeated.score.min() >= table.score[1:10].sort_values().iloc[-2]
    for name in ("filters_1", "kernel_1", "dense_1", "learning_rate"):
        assert table[name][10:].tolist() == repeated[name].tolist()
    best = table.score.idxmax()
    assert search.best_score == table.score[best] > 0.8
    assert best != 0
    assert search.best_params["learning_rate"] == table.learning_rate[best]
    assert search.best_estimator.filters == (table.filters_1[best],)
    assert search.best_estimator.epochs == 9
    assert not hasattr(search.best_estimator, "members_")
    assert search.directory is None


def test_every_trial_is_judged_by_the_images_that_were_named(data, monkeypatch):
    parts = []

    def train(self, rows, validation, *, seed):
        parts.append((rows, validation))
        return TrainedNetwork({}, {"loss": [0.7], "val_loss": [0.7], "val_auc": [0.5]}, 0)

    monkeypatch.setattr(LeNetTrainer, "train", train)
    counts, sick, patients = data
    held = patients >= 30
    search = tune_lenet(counts, sick, validation=held, estimator=BASE, space=space, n_trials=2)
    assert len(parts) == 3
    for rows, validation in parts:
        np.testing.assert_array_equal(rows, np.flatnonzero(~held))
        np.testing.assert_array_equal(validation, np.flatnonzero(held))
    assert search.n_judged == 20


def test_a_search_is_gone_on_with_and_no_other_in_its_place(data, untrained, tmp_path):
    counts, sick, patients = data
    folder = tmp_path / "search"
    base = clone(BASE).set_params(epochs=1)
    options = {"groups": patients, "estimator": base, "space": space, "method": "random", "directory": folder}
    first = tune_lenet(counts, sick, n_trials=1, **options).table
    trained = []
    both = tune_lenet(counts, sick, n_trials=3, on_trial=trained.append, **options)
    assert [row["trial"] for row in trained] == [2, 3]
    assert both.table[:2].equals(first)
    assert both.directory == folder
    with pytest.raises(InputError, match="holds one with other data"):
        tune_lenet(counts + 1, sick, n_trials=4, **options)
    with pytest.raises(InputError, match="holds one with other method, data, random_state"):
        tune_lenet(counts, sick, n_trials=4, **options | {"method": "bayesian", "random_state": 3})


def test_a_search_in_which_nothing_works_is_an_error(data):
    counts, sick, patients = data
    seen = []
    with pytest.raises(HistcxrError, match="the first 3 trials .* failed, .*learning_rate must be above 0"):
        tune_lenet(
            counts,
            sick,
            groups=patients,
            estimator=BASE,
            space=lambda values: space(values) | {"learning_rate": -1.0},
            on_trial=seen.append,
        )
    assert len(seen) == 3


def test_the_space_covers_what_it_promises():
    values = keras_tuner.HyperParameters()
    params = lenet_space(values)
    assert set(params) <= set(LeNetClassifier().get_params())
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "grid"}, "method must be one of hyperband, random, bayesian; got 'grid'"),
        ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
        ({"space": lambda values: {"colour": 1}}, "parameters of LeNetClassifier; it has no colour"),
        ({"validation": np.zeros(80, bool)}, "the validation part must hold both classes; got 0 images"),
        ({"validation": np.zeros(80)}, "validation must be an array of bool"),
        ({"estimator": LeNetClassifier(validation_fraction=0)}, "validation must be given"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(data, change, message):
    counts, sick, patients = data
    with pytest.raises(InputError, match=message):
        tune_lenet(counts, sick, groups=patients, **{"on_trial": lambda row: pytest.fail("ran"), **change})


def test_wrong_data_stop_the_search_instead_of_failing_every_trial(data):
    counts, sick, _ = data
    empty = np.where(np.arange(80)[:, None, None] == 7, 0, counts)
    with pytest.raises(InputError, match="image 7 has none"):
        tune_lenet(empty, sick, on_trial=lambda row: pytest.fail("ran"))


def test_a_missing_keras_tuner_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(MissingDependencyError, match=r"keras_tuner is needed.*pip install histcxr\[neural\]"):
        tune_lenet(data[0], data[1])
