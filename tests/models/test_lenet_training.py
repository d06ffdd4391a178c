import numpy as np
import pytest

from histcxr.exceptions import HistcxrError, InputError
from histcxr.models.lenet_graph import LeNetGraph
from histcxr.models.lenet_inputs import REPRESENTATIONS, histogram_tensor
from histcxr.models.lenet_training import LeNetTrainer, TrainingOptions, _batches

keras = pytest.importorskip("keras")

GRAPH = LeNetGraph(
    bins=32,
    channels=1,
    filters=(4,),
    kernel_size=(3,),
    pool_size=(2,),
    conv_dropout=(0.1,),
    dense=(8,),
    dense_dropout=(0.1, 0.1),
)
OPTIONS = TrainingOptions(epochs=6, patience=6, batch_size=32, learning_rate=0.01, shift=0.02, exponent=0.5)


def bumps(n=120, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    centre = 14 + 4 * y + rng.normal(0, 1, n)
    x = np.exp(-0.5 * ((np.arange(32) - centre[:, None]) / 4) ** 2)
    return x[:, :, None].astype(np.float32), y


def test_one_compiled_step_serves_all_seeds_as_new_ones_would():
    x, y = bumps()
    rows, held_out = np.arange(90), np.arange(90, 120)
    trainer = LeNetTrainer(GRAPH, OPTIONS, x, y)
    trainer.train(rows, held_out, seed=1)
    used = trainer.train(rows, held_out, seed=2)
    new = LeNetTrainer(GRAPH, OPTIONS, x, y).train(rows, held_out, seed=2)
    assert used.history == new.history
    for name in new.weights:
        np.testing.assert_array_equal(used.weights[name], new.weights[name])


def test_the_weights_kept_are_those_of_the_best_epoch():
    x, y = bumps()
    rows, held_out = np.arange(90), np.arange(90, 120)
    trainer = LeNetTrainer(GRAPH, OPTIONS, x, y)
    network = trainer.train(rows, held_out, seed=0)
    from histcxr.models.lenet_graph import set_weights

    set_weights(trainer._network, network.weights)
    z, t = trainer.logits(held_out), y[held_out]
    loss = np.mean(np.logaddexp(0, z) - t * z)
    assert loss == pytest.approx(min(network.history["val_loss"]), abs=1e-6)
    assert network.history["val_loss"][network.best_epoch] == min(network.history["val_loss"])


def test_training_stops_when_patience_ends():
    x, y = bumps()
    y = np.where(np.arange(len(y)) < 90, y, 1 - y)  # What helps in training hurts in validation.
    options = TrainingOptions(epochs=30, patience=2, batch_size=32, learning_rate=0.01)
    network = LeNetTrainer(GRAPH, options, x, y).train(np.arange(90), np.arange(90, 120), seed=0)
    assert len(network.history["loss"]) == network.best_epoch + 3 < 30


def test_label_smoothing_and_weight_decay_hold_the_network_back():
    x, y = bumps()
    rows = np.arange(120)
    common = {"epochs": 25, "patience": 25, "batch_size": 32, "learning_rate": 0.02}

    def spread(**change):
        trainer = LeNetTrainer(GRAPH, TrainingOptions(**common, **change), x, y)
        network = trainer.train(rows, seed=0)
        return np.abs(trainer.logits(rows)).mean(), np.abs(network.weights["dense1/kernel"]).mean()

    plain = spread()
    assert spread(label_smoothing=0.4)[0] < 0.7 * plain[0]
    assert spread(weight_decay=1.0)[1] < 0.7 * plain[1]


def test_a_loss_that_is_no_number_is_an_error():
    x, y = bumps()
    options = TrainingOptions(epochs=8, patience=3, batch_size=32, learning_rate=1e30)
    with pytest.raises(HistcxrError, match="the loss became .* a lower learning_rate"):
        LeNetTrainer(GRAPH, options, x, y).train(np.arange(120), seed=0)


def test_each_epoch_sees_every_row_in_batches_of_one_size():
    generator = np.random.default_rng(0)
    batches = list(_batches(np.arange(100, 150), 16, generator))
    assert {len(batch) for batch in batches} == {16}
    assert set(np.concatenate(batches)) == set(range(100, 150))
    assert [len(batch) for batch in _batches(np.arange(5), 16, generator)] == [5]
    assert not np.array_equal(batches[0], next(_batches(np.arange(100, 150), 16, generator)))


@pytest.mark.parametrize("representation", sorted(REPRESENTATIONS))
def test_jitter_moves_histograms_as_the_change_of_the_image_would(representation, monkeypatch):
    from histcxr.models.lenet_layers import HistogramJitter

    rng = np.random.default_rng(0)
    pixels = rng.normal(0.5, 0.12, 400_000).clip(0.02, 0.98)
    exponent = REPRESENTATIONS[representation]

    def tensor(values):
        counts = np.bincount((values * 255).round().astype(int), minlength=256)
        return histogram_tensor(counts[None, None], representation, smoothing=2).transpose(0, 2, 1)

    for shift, gamma, contrast in ((0.06, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.3)):
        layer = HistogramJitter(shift, gamma, contrast, exponent=exponent, seed=0)
        with monkeypatch.context() as patch:  # The upper end of each range instead of a draw.
            patch.setattr(keras.random, "uniform", lambda shape, *_, **__: keras.ops.ones(shape))
            moved = keras.ops.convert_to_numpy(layer(tensor(pixels), training=True))
        changed = (pixels ** np.exp(gamma) - 0.5) * np.exp(contrast) + 0.5 + shift
        kept = changed[(changed >= 0) & (changed <= 1)]
        expected = tensor(kept)
        size = np.abs(expected).max()
        np.testing.assert_allclose(moved, expected, atol=0.04 * size)
        assert np.abs(tensor(pixels) - expected).max() > 0.1 * size


def test_jitter_draws_anew_each_time_and_rests_when_not_training():
    from histcxr.models.lenet_layers import HistogramJitter

    x = np.tile(bumps(1)[0], (4, 1, 1))
    layer = HistogramJitter(0.05, 0.1, 0.1, exponent=0.5, seed=3)
    first, second = (keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    assert not np.allclose(first, second)
    assert not np.allclose(first[0], first[1])
    again = keras.ops.convert_to_numpy(
        HistogramJitter(0.05, 0.1, 0.1, exponent=0.5, seed=3)(x, training=True)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x, training=False)), x)


def test_options_out_of_range_are_named():
    with pytest.raises(InputError, match="batch_size must be an integer of at least 1; got 0"):
        TrainingOptions(epochs=1, patience=1, batch_size=0, learning_rate=0.1)
    with pytest.raises(InputError, match="gamma must be at least 0 and finite; got -1"):
        TrainingOptions(epochs=1, patience=1, batch_size=1, learning_rate=0.1, gamma=-1)
