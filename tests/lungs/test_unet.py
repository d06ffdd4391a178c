"""The U-Net: its ONNX file against Keras, its weights by name, its size."""

import numpy as np
import pytest

from histcxr.decision.out_of_distribution import OutOfDistribution
from histcxr.exceptions import ModelError
from histcxr.lungs.segmenter import SIZE
from histcxr.lungs.unet import WIDTHS, Gate, check_weights, write_onnx
from histcxr.networks.onnx_model import open_session

SMALL = (4, 6, 8)


def test_onnx_gives_what_keras_gives(random_weights, rng):
    pytest.importorskip("keras")
    from histcxr.lungs.unet import build_unet
    from histcxr.networks.fit import get_weights, set_weights

    model = build_unet(SMALL, seed=1)
    weights = random_weights(SMALL, rng)
    set_weights(model, weights)
    for name, values in get_weights(model).items():
        np.testing.assert_array_equal(values, weights[name])
    pictures = rng.normal(0, 1, (3, SIZE, SIZE)).astype(np.float32)
    by_keras = model.predict(pictures[..., None], verbose=0)
    lungs, context = open_session(write_onnx(weights)).run(["lungs", "context"], {"image": pictures[:, None]})
    np.testing.assert_allclose(lungs[:, 0], by_keras[..., 0], atol=2e-5)
    keras = pytest.importorskip("keras")
    deepest = keras.Model(model.input, model.get_layer("down2_conv2_relu").output)
    maps = deepest.predict(pictures[..., None], verbose=0)
    quarters = maps.reshape(3, 2, 16, 2, 16, -1).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(context, quarters, rtol=1e-4, atol=1e-5)


def test_onnx_gives_what_the_gate_asks(random_weights, rng):
    weights = random_weights(SMALL, rng)
    k = 4 * SMALL[-1]
    familiarity = OutOfDistribution(rng.normal(0, 1, k), rng.normal(0, 1, (5, k)), 1.0, 0.0)
    gate = Gate(familiarity, rng.normal(0, 1, k), 0.7, 0.0, 0.0)
    session = open_session(write_onnx(weights, gate, properties={"a": "ü"}))
    pictures = rng.normal(0, 1, (2, 1, SIZE, SIZE)).astype(np.float32)
    context, distance, height = session.run(["context", "distance", "height"], {"image": pictures})
    np.testing.assert_allclose(distance[:, 0], familiarity.distances(context), rtol=1e-3)
    np.testing.assert_allclose(height[:, 0], context @ gate.plane + 0.7, rtol=1e-3, atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map == {"a": "ü"}


def test_usual_network_fits_its_size(random_weights):
    weights = random_weights(WIDTHS, np.random.default_rng(0))
    assert len(write_onnx(weights)) <= 2_000_000


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_wrong_weights_are_refused(damage, random_weights, rng):
    weights = random_weights(SMALL, rng)
    name = "up0_enlarge/bias"
    if damage == "missing":
        del weights[name]
    elif damage == "shape":
        weights[name] = weights[name][:-1]
    else:
        weights[name][0] = np.nan
    with pytest.raises(ModelError, match="up0_enlarge/bias|finite"):
        check_weights(weights)
