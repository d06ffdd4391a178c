"""Training of class networks: best weights, patience, plateaus and stages, on a network of a few numbers."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from histcxr.exceptions import HistcxrError, InputError
from histcxr.networks import fit
from histcxr.networks.backend import seeded
from histcxr.networks.fit import FitOptions, get_weights, make_batches, set_weights
from histcxr.networks.training import TrainingData, class_scores, judge_scores, train_classes

keras = pytest.importorskip("keras")


def blobs(n=48, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (rng.normal(0, 1, (n, 6)) + 4 * np.eye(6)[y]).astype(np.float32), y


def small_network(units=1, seed=0):
    with seeded(seed):
        x = keras.Input((6,))
        y = keras.layers.Dense(8, activation="relu", name="dense")(x)
        y = keras.layers.Dense(units, name="logits")(keras.layers.Dropout(0.2, name="drop")(y))
        return keras.Model(x, keras.layers.Activation("sigmoid" if units == 1 else "softmax")(y))


def run(monkeypatch, losses, *stages, thaw=None, **settings):
    """Train with losses as they are given in place of judging; return what came and each epoch's weights."""
    given, kept = iter(losses), []
    monkeypatch.setattr(
        TrainingData, "judge", lambda *_: {"val_loss": next(given), "val_accuracy": 0.5, "val_auc": 0.5}
    )
    x, y = blobs()
    model = small_network()

    def keep(values):
        kept.append(model.get_weights())
        assert values["epoch"] == len(kept)

    options = {"epochs": 6, "batch_size": 16, "patience": 2} | settings
    data = TrainingData(x, y, np.arange(40), np.arange(40, 48))
    trained = train_classes(
        model,
        data,
        [FitOptions(**options, learning_rate=rate) for rate in stages or (0.01,)],
        seed=0,
        thaw=None if thaw is None else lambda: (thaw(model, kept), (model, data))[1],
        on_epoch=keep,
    )
    for ours, best in zip(model.get_weights(), kept[trained.best_epoch], strict=True):
        np.testing.assert_array_equal(ours, best)
    return trained


def test_stops_early_and_restores_the_best_weights(monkeypatch):
    trained = run(monkeypatch, [3, 1, 2, 1.5, 0])
    assert trained.history["val_loss"] == [3, 1, 2, 1.5]
    assert trained.best_epoch == 1


def test_without_patience_all_epochs_are_run_and_the_best_is_kept(monkeypatch):
    trained = run(monkeypatch, [3, 1, 2, 2, 2, 2], patience=None)
    assert trained.history["val_loss"] == [3, 1, 2, 2, 2, 2]
    assert trained.best_epoch == 1


def test_a_plateau_lowers_the_rate(monkeypatch):
    trained = run(monkeypatch, [3, 4, 5, 2, 6, 7], patience=4, schedule="plateau")
    np.testing.assert_allclose(trained.history["learning_rate"], [0.01] * 3 + [0.003] * 3)


@pytest.mark.parametrize(("second", "best"), [([0.5, 0.8], 3), ([5, 6], 1)])
def test_the_second_stage_starts_from_the_best_and_must_improve_on_it(monkeypatch, second, best):
    def thaw(model, kept):
        for ours, wanted in zip(model.get_weights(), kept[1], strict=True):
            np.testing.assert_array_equal(ours, wanted)

    # A patience of one ends the first stage with its third epoch.
    trained = run(monkeypatch, [3, 1, 2, *second], 0.01, 0.001, patience=1, thaw=thaw)
    assert trained.history["stage"] == [1, 1, 1, 2, 2]
    np.testing.assert_allclose(trained.history["learning_rate"], [0.01] * 3 + [0.001] * 2)
    assert trained.best_epoch == best


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_and_repeats_itself(classes):
    x, y = blobs(classes=classes)
    data = TrainingData(x, y, np.arange(36), np.arange(36, 48), np.linspace(0.5, 1.5, 48))
    options = FitOptions(12, 8, 0.02, schedule="cosine", weight_decay=1e-3)
    found = []
    for _ in range(2):
        model = small_network(1 if classes == 2 else classes, seed=3)
        found.append((train_classes(model, data, [options], seed=3).history, class_scores(model, x)))
    (history, scores), (again, others) = found
    np.testing.assert_array_equal(scores, others)
    assert {k: v for k, v in history.items() if k != "seconds"} == {
        k: v for k, v in again.items() if k != "seconds"
    }
    assert np.mean(scores.argmax(axis=1) == y) > 0.8
    assert history["accuracy"][-1] > history["accuracy"][0]
    expected = 0.02 * 0.5 * (1 + np.cos(np.pi * np.arange(12) / 12))
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5)


def test_a_loss_that_is_no_number_is_an_error():
    x, y = blobs()
    with pytest.raises(HistcxrError, match=r"the loss became nan in epoch \d; give a learning_rate below"):
        train_classes(small_network(), TrainingData(x, y, np.arange(48)), [FitOptions(9, 8, 1e30)], seed=0)


def test_each_epoch_sees_every_row_in_batches_of_one_size():
    def rows_of(batches):
        return [batches[step][0] for step in range(len(batches))]

    batches = make_batches(lambda rows, *_: (rows,), np.arange(100, 150), 16, seed=1)
    first = rows_of(batches)
    assert {len(batch) for batch in first} == {16}
    assert set(np.concatenate(first)) == set(range(100, 150))
    batches.begin(1)
    second = rows_of(batches)
    assert not np.array_equal(first, second)
    later = make_batches(lambda rows, *_: (rows,), np.arange(100, 150), 16, seed=1, first_epoch=1)
    np.testing.assert_array_equal(rows_of(later), second)
    few = make_batches(lambda rows, *_: (rows,), np.arange(5), 16, seed=1)
    assert [len(batch) for batch in rows_of(few)] == [5]
    shares = np.r_[np.zeros(40), np.full(10, 0.1)]
    drawn = make_batches(lambda rows, *_: (rows,), np.arange(50), 50, seed=1, shares=shares)
    assert rows_of(drawn)[0].min() >= 40


def test_much_is_judged_little_at_a_time(monkeypatch):
    class Model:
        sizes: list = []

        def predict_on_batch(self, batch):
            self.sizes.append(len(batch))
            return batch.mean(axis=(1, 2)) / 255

    images = np.random.default_rng(0).integers(0, 256, (11, 30, 30, 1)).astype(np.uint8)
    monkeypatch.setattr(fit, "_JUDGED_VALUES", 4 * 900)
    scores = class_scores(Model(), images)
    assert Model.sizes == [4, 4, 4]
    np.testing.assert_allclose(scores[:, 1], images.mean(axis=(1, 2, 3)) / 255)


def test_judging_is_what_scikit_learn_says():
    scores = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [1.0, 0.0]])
    truth, weights = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 1.0, 1.0])
    judged = judge_scores(scores, truth, weights)
    assert judged["val_accuracy"] == 0.5
    assert judged["val_auc"] == roc_auc_score(truth, scores[:, 1])
    expected = -(np.log(0.8) + 2 * np.log(0.4) + np.log(0.7) + np.log(1e-7)) / 5
    assert judged["val_loss"] == pytest.approx(expected)
    assert math.isnan(judge_scores(scores[:2], truth[:2])["val_auc"])


def test_weights_go_out_and_in_by_name():
    model, other = small_network(seed=1), small_network(seed=2)
    weights = get_weights(model)
    assert list(weights) == ["dense/kernel", "dense/bias", "logits/kernel", "logits/bias"]
    set_weights(other, weights)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    del weights["logits/bias"]
    with pytest.raises(InputError, match="weights must hold logits/bias"):
        set_weights(other, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"learning_rate": math.nan}, "learning_rate must be a number above 0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"schedule": "steps"}, "schedule must be 'cosine', 'warmup', 'plateau' or None"),
        ({"schedule": "plateau"}, "schedule='plateau' takes a patience"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(InputError, match=message):
        FitOptions(**{"epochs": 1, "batch_size": 1, "learning_rate": 0.1} | change)


def test_blended_rows_are_learnt_in_shares():
    rows = np.arange(6)
    data = TrainingData(np.arange(12.0).reshape(6, 2), rows % 2, rows, weights=None, mixup=0.4)
    inputs, targets = data.batch(rows, 3, 1)
    own, other, share = targets.T
    np.testing.assert_array_equal(own, rows % 2)
    assert ((share >= 0.5) & (share <= 1)).all()
    partner = (inputs - share[:, None] * data.inputs) / (1 - share[:, None])
    np.testing.assert_array_equal(np.rint(partner[:, 0] / 2).astype(int) % 2, other)
    np.testing.assert_array_equal(data.batch(rows, 3, 1)[0], inputs)
    assert (data.batch(rows, 3, 2)[1] != targets).any()


@pytest.mark.parametrize("units", [1, 2])
def test_the_loss_of_blended_rows_is_that_of_soft_targets(units):
    inputs = keras.Input((3,))
    logits = keras.layers.Dense(units, name="logits")(inputs)
    score = keras.layers.Activation("sigmoid" if units == 1 else "softmax")(logits)
    model = keras.Model(inputs, score)
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    data = TrainingData(values, np.arange(8) % 2, np.arange(8), mixup=0.4)
    (order,) = make_batches(lambda rows, *_: (rows,), data.rows, 8, seed=5).order
    mixed, targets = data.batch(order, 0, 0)
    sick = np.asarray(model(mixed))[:, -1]
    soft = targets[:, 0] * targets[:, 2] + targets[:, 1] * (1 - targets[:, 2])
    wanted = -(soft * np.log(sick) + (1 - soft) * np.log(1 - sick)).mean()
    found = train_classes(model, data, [FitOptions(1, 8, 1e-3)], seed=5)
    assert found.history["loss"][0] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (7, [8]), (17, [16, 1]), (29, [32]), (75, [64, 8, 4])])
def test_batches_of_nothing_are_small(rows, sizes, monkeypatch):
    seen = []

    class Doubling:
        def predict_on_batch(self, batch):
            seen.append(len(batch))
            return 2 * batch

    monkeypatch.setattr(fit, "_JUDGED_ROWS", 64)
    inputs = np.arange(float(rows))[:, None]
    np.testing.assert_array_equal(fit.outputs(Doubling(), inputs), 2 * inputs)
    assert seen == sizes
