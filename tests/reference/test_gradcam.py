import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.reference.architectures import build_architecture
from histcxr.reference.gradcam import even_share, grad_cam, share_inside

keras = pytest.importorskip("keras")
layers = keras.layers

SIDE = 6
MIX = np.array([[1.0, -1.0, 0.5]], dtype=np.float32)  # of the grey level into three maps
CLASSES = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0]], dtype=np.float32)  # of the maps into two classes


def greys(n=3, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side)).astype(np.uint8)


def linear_model(*, around=False, units=2):
    """Maps of 1 x 1 convolutions, averaged, and classes: every gradient is known on paper."""
    image = keras.Input((SIDE, SIDE, 1))
    x = layers.Rescaling(1.0, -100.0)(image)
    x = layers.Conv2D(3, 1, use_bias=False, name="maps")(x)
    if around:
        x = layers.Add(name="sum")([x, layers.Conv2D(3, 1, use_bias=False, name="branch")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(units, use_bias=False, name="logits")(x)
    score = layers.Activation("softmax" if units > 1 else "sigmoid", name="score")(logits)
    model = keras.Model(image, score)
    model.get_layer("maps").set_weights([MIX[None, None]])
    model.get_layer("logits").set_weights([CLASSES[:, :units]])
    return model


def expected(images, weights):
    """Return the weighted sum of the maps, cut off at 0 and with 1 for its largest value."""
    maps = (images[..., None].astype(np.float64) - 100) @ MIX
    cams = np.maximum(maps @ weights, 0)
    tops = cams.max(axis=(1, 2), keepdims=True)
    return np.divide(cams, tops, out=np.zeros_like(cams), where=tops > 0)


@pytest.mark.parametrize("target", [0, 1])
def test_the_map_is_the_one_on_paper(target):
    images = greys()
    cams = grad_cam(linear_model(), images, target=target)
    np.testing.assert_allclose(cams, expected(images, CLASSES[:, target]), atol=1e-4)
    assert (cams > 0).any()


def test_the_gradient_takes_every_way_around():
    images = greys()
    model = linear_model(around=True)
    branch = np.array([[0.2, 1.0, 0.0], [-1.0, 0.3, 2.0], [0.5, 0.0, 0.1]], dtype=np.float32)
    model.get_layer("branch").set_weights([branch[None, None]])
    cams = grad_cam(model, images, layer="maps", target=0)
    np.testing.assert_allclose(cams, expected(images, (np.eye(3) + branch) @ CLASSES[:, 0]), atol=1e-4)
    through = grad_cam(model, images, layer="branch", target=0)
    np.testing.assert_allclose(through, expected(images, branch @ CLASSES[:, 0]), atol=1e-4)


def test_by_default_it_explains_what_is_predicted():
    model, images = linear_model(), np.concatenate([greys() // 4, greys() // 4 + 180])
    predicted = keras.ops.convert_to_numpy(model(images[..., None].astype(np.float32))).argmax(axis=1)
    assert set(predicted) == {0, 1}
    wanted = np.stack([grad_cam(model, images, target=target) for target in (0, 1)])
    np.testing.assert_array_equal(grad_cam(model, images), wanted[predicted, np.arange(len(images))])


def test_one_sigmoid_speaks_for_both_classes():
    model, images = linear_model(units=1), np.concatenate([greys() // 4, greys() // 4 + 180])
    for_sick, for_normal = (grad_cam(model, images, target=target) for target in (1, 0))
    np.testing.assert_allclose(for_sick, expected(images, CLASSES[:, 0]), atol=1e-4)
    np.testing.assert_allclose(for_normal, expected(images, -CLASSES[:, 0]), atol=1e-4)
    sick = keras.ops.convert_to_numpy(model(images[..., None].astype(np.float32)))[:, 0] >= 0.5
    assert 0 < sick.sum() < len(images)
    np.testing.assert_array_equal(
        grad_cam(model, images), np.where(sick[:, None, None], for_sick, for_normal)
    )


def test_a_saturated_probability_still_has_a_map():
    model = linear_model()
    model.get_layer("logits").set_weights([CLASSES * 1000])
    images = greys()
    np.testing.assert_allclose(grad_cam(model, images, target=0), expected(images, CLASSES[:, 0]), atol=1e-4)


def test_batches_change_nothing_and_the_model_stays_as_it_was(tmp_path):
    model, images = build_architecture("resnet-small", size=32), greys(5, 32)
    before = keras.ops.convert_to_numpy(model(images[..., None].astype(np.float32)))
    layer = "stage2_block1_conv1"
    cams = grad_cam(model, images, layer=layer, target=0)
    np.testing.assert_allclose(grad_cam(model, images, layer=layer, target=0, batch_size=2), cams, atol=1e-4)
    assert "call" not in vars(model.get_layer(layer))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(images[..., None].astype(np.float32))), before
    )
    model.save(tmp_path / "model.keras")
    again = grad_cam(keras.saving.load_model(tmp_path / "model.keras"), images, layer=layer, target=0)
    np.testing.assert_allclose(again, cams, atol=1e-5)


def test_layers_inside_a_backbone_are_found_by_name():
    model, images = build_architecture("mobilenet", size=64), greys(2, 64)
    cams = grad_cam(model, images, layer="conv_pw_3_relu", target=1)
    assert cams.shape == (2, 64, 64)
    assert len(np.unique(cams)) > 100  # finer than the 2 x 2 places of the last layer
    with pytest.raises(InputError, match="the last of them .*conv_pw_13_relu; got 'conv99'"):
        grad_cam(model, images, layer="conv99")


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (greys(side=7), {}, r"images must have shape \(n, 6, 6\)"),
        (greys()[0], {}, r"images must have shape \(n, 6, 6\)"),
        (np.full((1, SIDE, SIDE), np.nan), {}, "images must be finite grey levels"),
        (greys(), {"target": 2}, "target must be a class from 0 to 1; got 2"),
        (greys(), {"target": -1}, "target must be a whole number"),
        (greys(), {"batch_size": 0}, "batch_size must be a whole number"),
        (greys(), {"layer": "logits"}, "layer must be one of the 2"),
    ],
)
def test_wrong_arguments_are_named(images, settings, message):
    with pytest.raises(InputError, match=message):
        grad_cam(linear_model(), images, **settings)


def test_a_model_without_maps_is_refused():
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(image)))
    with pytest.raises(InputError, match="model must have a convolution"):
        grad_cam(model, greys())


def test_share_inside():
    cam, mask = np.zeros((4, 4)), np.zeros((4, 4), dtype=bool)
    mask[:2] = True
    cam[0, 0], cam[3, 3] = 0.75, 0.25
    assert share_inside(cam, mask) == pytest.approx(0.75)
    assert share_inside(np.ones((4, 4)), mask) == pytest.approx(even_share(mask)) == pytest.approx(0.5)
    assert share_inside(cam, ~mask) == pytest.approx(0.25)
    assert share_inside(mask, mask) == 1
    assert np.isnan(share_inside(np.zeros((4, 4)), mask))
    with pytest.raises(InputError, match=r"one shape; got \(4, 4\) and \(2, 4\)"):
        share_inside(cam, mask[:2])
    with pytest.raises(InputError, match="cam must be finite and at least 0"):
        share_inside(-cam, mask)
    with pytest.raises(InputError, match=r"mask must be an image \(rows, columns\)"):
        even_share(mask[0])
