import numpy as np
import pytest

from histcxr.exceptions import HistcxrError, InputError
from histcxr.features.formulas import REPRESENTATIONS, histogram_tensor
from histcxr.models.lenet_network import (
    LeNetGraph,
    LeNetTrainer,
    TrainingOptions,
    build_lenet,
    histogram_jitter,
)
from histcxr.networks.fit import set_weights
from histcxr.networks.training import class_scores

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


def logits(network, x):
    model = build_lenet(GRAPH, seed=0)
    set_weights(model, network.weights)
    scores = class_scores(model, x)[:, 1]
    return np.log(scores / (1 - scores))


def test_the_weights_kept_are_those_of_the_best_epoch():
    x, y = bumps()
    held_out = np.arange(90, 120)
    network = LeNetTrainer(GRAPH, OPTIONS, x, y).train(np.arange(90), held_out, seed=0)
    z, t = logits(network, x[held_out]), y[held_out]
    loss = np.mean(np.logaddexp(0, z) - t * z)
    assert loss == pytest.approx(min(network.history["val_loss"]), abs=1e-5)
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
        network = LeNetTrainer(GRAPH, TrainingOptions(**common, **change), x, y).train(rows, seed=0)
        return np.abs(logits(network, x)).mean(), np.abs(network.weights["dense1/kernel"]).mean()

    plain = spread()
    assert spread(label_smoothing=0.4)[0] < 0.7 * plain[0]
    assert spread(weight_decay=1.0)[1] < 0.7 * plain[1]


def test_a_loss_that_is_no_number_is_an_error():
    x, y = bumps()
    options = TrainingOptions(epochs=8, patience=3, batch_size=32, learning_rate=1e30)
    with pytest.raises(HistcxrError, match="the loss became .* give a learning_rate below"):
        LeNetTrainer(GRAPH, options, x, y).train(np.arange(120), seed=0)


def jitter(*widths_and_exponent, seed):
    names = ("shift", "gamma", "contrast", "exponent")
    options = TrainingOptions(1, 1, 0.1, **dict(zip(names, widths_and_exponent, strict=True)))
    return histogram_jitter(options, seed=seed)


@pytest.mark.parametrize("representation", sorted(REPRESENTATIONS))
def test_jitter_moves_histograms_as_the_change_of_the_image_would(representation, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.normal(0.5, 0.12, 400_000).clip(0.02, 0.98)
    exponent = REPRESENTATIONS[representation]

    def tensor(values):
        counts = np.bincount((values * 255).round().astype(int), minlength=256)
        return histogram_tensor(counts[None, None], representation, smoothing=2).transpose(0, 2, 1)

    for shift, gamma, contrast in ((0.06, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.3)):
        layer = jitter(shift, gamma, contrast, exponent, seed=0)
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
    x = np.tile(bumps(1)[0], (4, 1, 1))
    layer = jitter(0.05, 0.1, 0.1, 0.5, seed=3)
    first, second = (keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    assert not np.allclose(first, second)
    assert not np.allclose(first[0], first[1])
    again = keras.ops.convert_to_numpy(jitter(0.05, 0.1, 0.1, 0.5, seed=3)(x, training=True))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x, training=False)), x)


def test_options_out_of_range_are_named():
    with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, got 0"):
        TrainingOptions(epochs=1, patience=1, batch_size=0, learning_rate=0.1)
    with pytest.raises(InputError, match="gamma must be at least 0 and finite; got -1"):
        TrainingOptions(epochs=1, patience=1, batch_size=1, learning_rate=0.1, gamma=-1)


@pytest.mark.parametrize("representation", sorted(REPRESENTATIONS))
@pytest.mark.parametrize("scale", ["raw", "own"])
def test_inputs_do_not_depend_on_the_number_of_pixels(representation, scale):
    counts = np.random.default_rng(0).poisson(3, (5, 2, 256))
    small, large = (
        histogram_tensor(c, representation, scale=scale, smoothing=1.5) for c in (counts, counts * 7)
    )
    assert small.dtype == np.float32
    assert small.shape == (5, 2, 256)
    np.testing.assert_allclose(small, large, atol=1e-5)
    assert 0.3 < np.abs(small).mean() < 3


def test_inputs_are_the_formulas_and_areas_show_only_when_asked_for():
    counts = np.random.default_rng(0).poisson(3, (4, 2, 256)).astype(float)
    counts[:, 1] *= 3
    density = counts / counts.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(histogram_tensor(counts, "density"), 256 * density, rtol=1e-6)
    np.testing.assert_allclose(histogram_tensor(counts, "sqrt"), np.sqrt(256 * density), rtol=1e-6)
    cumulative = histogram_tensor(counts, "cumulative")
    np.testing.assert_allclose(cumulative, 2 * np.cumsum(density, axis=2) - 1, atol=1e-6)
    with_areas = histogram_tensor(counts, "density", areas=True)
    shares = counts.sum(axis=2) / counts.sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(
        with_areas.sum(axis=2) / with_areas.sum(axis=(1, 2))[:, None], shares, rtol=1e-5
    )


def test_a_missing_zone_takes_the_distribution_of_the_others_and_an_empty_image_is_refused():
    counts = np.random.default_rng(0).poisson(3, (2, 3, 256))
    counts[1, 2] = 0
    tensor = histogram_tensor(counts, "density")
    whole = counts[1].sum(axis=0) / counts[1].sum()
    np.testing.assert_allclose(tensor[1, 2], 256 * whole, rtol=1e-5)
    with pytest.raises(InputError, match="image 1 has none"):
        histogram_tensor(counts * np.array([1, 0])[:, None, None])


def test_own_scale_undoes_a_linear_change_of_intensity():
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 10, 200_000)
    one, other = (np.bincount(p.round().astype(int), minlength=256) for p in (pixels, 2 * pixels - 60))
    tensor = histogram_tensor(np.stack([one, other])[:, None], "density", scale="own", smoothing=4)
    np.testing.assert_allclose(tensor[0, 0], tensor[1, 0], atol=0.08)
    raw = histogram_tensor(np.stack([one, other])[:, None], "density", smoothing=4)
    assert np.abs(raw[0, 0] - raw[1, 0]).max() > 1


def test_sizes_remain_visible_only_where_they_are_asked_for():
    counts = np.random.default_rng(0).poisson(30, (4, 3, 256))
    larger = counts * np.array([1, 2, 5])[:, None]
    for areas, same_larger, same_uneven in ((False, True, True), (True, True, False), ("size", False, False)):
        found, twice, uneven = (
            histogram_tensor(values, "density", areas=areas) for values in (counts, 2 * counts, larger)
        )
        assert np.allclose(found, twice) == same_larger
        assert np.allclose(found, uneven) == same_uneven
    with pytest.raises(InputError, match="areas must be False, True or 'size'; got 'lungs'"):
        histogram_tensor(counts, areas="lungs")
