import json

import numpy as np
import pytest
from sklearn.base import clone

from histcxr.exceptions import InputError
from histcxr.reference.architectures import ConvOptions, HeadOptions
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.tuning import head_space, rate_space, tune_reference

pytest.importorskip("keras")
keras_tuner = pytest.importorskip("keras_tuner")

# Learns nothing, so that a trial wins.
BASE = ReferenceClassifier(
    "cnn4", options=ConvOptions(filters=(4, 8)), epochs=9, batch_size=8, patience=9, learning_rate=1e-7
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 2)
    sick = patients % 2
    images = rng.normal(90, 25, (60, 16, 16))
    images[sick == 1, 8:14, 3:12] += 40
    return images.clip(0, 255).astype(np.uint8), sick, patients


@pytest.fixture
def fits(monkeypatch):
    """Replace training, for tests of the search around it, by a score drawn from the seed; list the fits."""
    seen = []

    def fit(self, X, y, *, groups=None, validation=None):
        seen.append((self.get_params(), validation))
        self.history_ = {
            "loss": [0.7],
            "val_loss": [0.7],
            "val_auc": [np.random.default_rng(self.random_state).random()],
        }
        self.best_epoch_ = 0
        return self

    monkeypatch.setattr(ReferenceClassifier, "fit", fit)
    return seen


def test_finds_a_rate_that_learns(data):
    images, sick, patients = data
    rows = []
    search = tune_reference(
        images,
        sick,
        groups=patients,
        estimator=BASE,
        space=lambda values: {"learning_rate": values.Choice("rate", [1e-7, 1e-2])},
        n_trials=5,
        on_trial=rows.append,
    )
    assert search.best_params == {"learning_rate": 1e-2}
    assert search.best_estimator.get_params() == clone(BASE).set_params(learning_rate=1e-2).get_params()
    assert search.best_score == search.table.score.max() > search.table.score[0]
    assert search.table.trial.tolist() == [0, 1, 2]  # there is no third rate to try
    assert [row["trial"] for row in rows] == [1, 2]
    assert (search.table.status == "ok").all()
    assert search.directory is None
    assert search.n_judged == 12


def test_trials_share_one_part_and_no_patient(data, fits):
    images, sick, patients = data
    search = tune_reference(images, sick, groups=patients, estimator=BASE, n_trials=4)
    parts = [held for _, held in fits]
    assert len(parts) == 5
    for held in parts:
        np.testing.assert_array_equal(held, parts[0])
    assert not set(patients[parts[0]]) & set(patients[~parts[0]])
    assert search.n_judged == parts[0].sum()
    own = patients < 8
    tune_reference(images, sick, groups=patients, validation=own, estimator=BASE, n_trials=1)
    np.testing.assert_array_equal(fits[-1][1], own)


def test_hyperband_trains_the_better_ones_longer(data, fits):
    images, sick, patients = data
    search = tune_reference(images, sick, groups=patients, estimator=BASE, n_trials=13)
    epochs = [params["epochs"] for params, _ in fits]
    assert epochs[0] == 9
    assert {1, 3, 9} == set(epochs)
    table = search.table.set_index("trial")
    again = table[table.repeats != ""]
    assert len(again)
    for row in again.itertuples():
        assert row.learning_rate == table.learning_rate[row.repeats]
        first, later = fits[row.repeats][0]["epochs"], fits[row.Index][0]["epochs"]
        assert later == 3 * first
        assert table.score[row.repeats] >= table.score[1:5].min()


def test_another_search_is_not_gone_on_with(data, fits, tmp_path):
    images, sick, patients = data
    how = {"groups": patients, "estimator": BASE, "directory": tmp_path, "n_trials": 1}
    tune_reference(images, sick, **how)
    for change, name in (
        ({"random_state": 1}, "random_state"),
        ({"estimator": clone(BASE).set_params(batch_size=4)}, "estimator"),
        ({"space": lambda values: {"learning_rate": values.Float("rate", 1e-2, 1)}}, "space"),
        ({"validation": patients < 8}, "data"),
    ):
        with pytest.raises(InputError, match=f"with other .*{name}"):
            tune_reference(images, sick, **(how | change))


def test_the_space_follows_the_architecture(data, fits):
    images, sick, patients = data
    values = keras_tuner.HyperParameters()
    assert head_space(values) == {"head": HeadOptions(), "learning_rate": 1e-3}
    found = {dimension.name: dimension.values for dimension in values.space}
    assert found["dense_1"] == found["dense_2"] == [0, 32, 64, 128, 256, 512]
    assert found["dropout"] == found["entry_dropout"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert sorted(found["learning_rate"]) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert rate_space(keras_tuner.HyperParameters()) == {"learning_rate": 1e-3}
    for name, columns in (("cnn4", False), ("lenet5-tuned", True), ("vgg16", True)):
        search = tune_reference(
            images, sick, estimator=ReferenceClassifier(name, learning_rate=1e-3), n_trials=1
        )
        assert ("dense_1" in search.table) == columns
        assert "learning_rate" in search.table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
        ({"space": lambda values: {"colour": 1}}, "parameters of ReferenceClassifier; it has no colour"),
        ({"estimator": clone(BASE).set_params(validation_fraction=0)}, "validation must be given where"),
        ({"estimator": ReferenceClassifier("alexnet")}, "architecture must be one of"),
    ],
)
def test_wrong_arguments_are_named(data, change, message):
    images, sick, patients = data
    arguments = {"groups": patients, "estimator": BASE} | change
    with pytest.raises(InputError, match=message):
        tune_reference(images, sick, **arguments)


def test_what_was_tried_is_kept_as_json(data, fits, tmp_path):
    images, sick, patients = data
    tune_reference(images, sick, groups=patients, estimator=BASE, directory=tmp_path, n_trials=1)
    kept = json.loads((tmp_path / "search.json").read_text())
    assert set(kept) == {"random_state", "estimator", "space", "data"}
