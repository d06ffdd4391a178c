import os
import random
import subprocess
import sys

import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.reference.architectures import ARCHITECTURES, HeadOptions, build_architecture
from histcxr.reference.backbones import (
    BACKBONES,
    PREPROCESSED,
    backbone_of,
    last_convolution,
    unfreeze,
)
from histcxr.reference.gradcam import grad_cam
from histcxr.reference.small_networks import ConvOptions, LeNetOptions, RecurrentOptions, ResidualOptions

keras = pytest.importorskip("keras")

PREPROCESS = {
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "xception": "xception",
    "inceptionv3": "inception_v3",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnet50v2": "resnet_v2",
    "resnet101v2": "resnet_v2",
    "resnet152v2": "resnet_v2",
    "densenet121": "densenet",
    "densenet201": "densenet",
    "mobilenet": "mobilenet",
    "mobilenetv2": "mobilenet_v2",
    "efficientnetb0": "efficientnet",
    "efficientnetb1": "efficientnet",
    "efficientnetb7": "efficientnet",
}
#: Where the published classes look last, from the papers' figures; the shortcut and the activation are part of it.
LAST = {
    "cnn4": "conv4",
    "cnn3": "conv3",
    "lenet5": "conv2",
    "cnn-lstm": "conv4",
    "vgg16": "block5_conv3",
    "vgg19": "block5_conv4",
    "resnet50": "conv5_block3_out",
    "resnet152v2": "post_relu",
    "mobilenet": "conv_pw_13_relu",
    "efficientnetb7": "top_activation",
}


#: One network of each family; the others take minutes and stand under a marker.
QUICK = ("cnn3", "lenet5", "cnn-lstm", "resnet-small", "mobilenet")


def one_of_each(names, quick=QUICK):
    """Return names for a test, marked where they are not quick."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.all_networks) for n in names]


def greys(side, n=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side)).astype(np.uint8)


def scores(model, images):
    return keras.ops.convert_to_numpy(model(images[..., None].astype(np.float32), training=False))


def numpy_weights(layer):
    return [np.array(w) for w in layer.get_weights()]


def soften(model):
    """Bring the classes away from certainty: a random backbone may be so loud that no gradient is left."""
    logits = model.get_layer("logits")
    logits.set_weights([w / 10 for w in logits.get_weights()])


def train_step(model, images):
    """One step on one batch; eager, for tracing a deep network takes longer than running it once.

    All of one class: some random backbones let so little through that two classes would cancel out.
    """
    single = model.output_shape[-1] == 1
    model.compile(
        "adam", "binary_crossentropy" if single else "sparse_categorical_crossentropy", run_eagerly=True
    )
    targets = np.ones(len(images))
    return model.train_on_batch(images[..., None].astype(np.float32), targets[:, None] if single else targets)


@pytest.mark.parametrize("name", one_of_each(ARCHITECTURES))
def test_it_builds_is_saved_scores_is_explained_and_learns(name, tmp_path):
    architecture = ARCHITECTURES[name]
    images = greys(architecture.min_size)
    model = build_architecture(name, size=architecture.min_size)

    if architecture.transfer:
        module = getattr(keras.applications, PREPROCESS[name])
        entering = keras.Model(model.inputs[0], model.get_layer(PREPROCESSED).output)
        colour = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
        expected = module.preprocess_input(colour)
        if name.startswith("efficientnet"):  # whose preprocess_input leaves it to layers of the network
            expected = 255 * keras.applications.densenet.preprocess_input(colour)
        np.testing.assert_allclose(scores(entering, images), expected, atol=1e-3)
        assert backbone_of(model).trainable_weights == []
        assert len(model.trainable_weights) == 6  # kernels and biases of dense 128, dense 32 and the classes

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = scores(model, images)
    np.testing.assert_array_equal(scores(loaded, images), found)
    assert found.shape == (2, 1 if architecture.sigmoid else 2)
    assert ((found >= 0) & (found <= 1)).all()
    if not architecture.sigmoid:
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)

    assert last_convolution(loaded) == LAST.get(name, last_convolution(model))
    cams = grad_cam(loaded, images, target=1)
    assert cams.shape == images.shape
    assert cams.dtype == np.float32
    assert np.isin(cams.max(axis=(1, 2)), (0, 1)).all()
    assert cams.min() >= 0

    # The loaded one, whose frozen weights TensorFlow does not follow: half the time of the one just built.
    soften(loaded)
    before = numpy_weights(loaded.get_layer("logits"))
    assert np.isfinite(train_step(loaded, images)).all()
    after = numpy_weights(loaded.get_layer("logits"))
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_cnn3_is_the_published_network():
    model = build_architecture("cnn3")
    assert model.input_shape == (None, 224, 224, 1)
    assert model.output_shape == (None, 2)
    assert model.count_params() == 3_267_202


def test_lenet5_is_the_published_network():
    assert build_architecture("lenet5", size=32, n_classes=10).count_params() == 61_706


def test_resnet_small_is_small():
    assert 300_000 < build_architecture("resnet-small").count_params() < 1_200_000


@pytest.mark.parametrize("name", one_of_each(["cnn4", "cnn3", "lenet5-tuned", "cnn-lstm", "mobilenet"]))
def test_more_classes_sum_to_one(name):
    found = scores(build_architecture(name, size=32, n_classes=4), greys(32))
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_cnn4_scales_and_cnn4_raw_does_not():
    images = greys(16)
    scaled, raw = build_architecture("cnn4", size=16), build_architecture("cnn4-raw", size=16)
    for name, model, expected in (("cnn4", scaled, images / 255), ("cnn4-raw", raw, images / 1)):
        entering = keras.Model(model.inputs[0], model.get_layer(PREPROCESSED).output)
        np.testing.assert_allclose(scores(entering, images)[..., 0], expected, rtol=1e-6, err_msg=name)


def test_options_change_the_layers():
    model = build_architecture(
        "lenet5-tuned",
        size=32,
        options=LeNetOptions(filters=(4, 8), conv_dropout=0.2, dense=(16,), activation="tanh"),
        head=HeadOptions((20, 0), 0.5, "tanh", entry_dropout=0.1),
    )
    units = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert units == [16, 20, 2]
    assert rates == [0.2, 0.2, 0.1, 0.5]
    assert model.get_layer("head_dense1").activation is keras.activations.tanh
    recurrent = build_architecture(
        "cnn-lstm", size=16, options=RecurrentOptions((4, 4), units=5, dropout=0.0)
    )
    assert recurrent.get_layer("sequence").output.shape == (None, 16, 4)
    assert recurrent.get_layer("lstm").units == 5


@pytest.mark.parametrize("name", ["cnn-lstm", "mobilenet"])
def test_equal_seeds_give_equal_weights(name):
    random.seed(5)
    state = random.getstate()
    first, again, other = (build_architecture(name, size=32, seed=seed) for seed in (1, 1, 2))
    assert random.getstate() == state
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_unfreezing_the_last_layers(tmp_path):
    model = build_architecture("vgg16", size=32, unfrozen=4)
    backbone = backbone_of(model)
    trained = [layer.name for layer in backbone.layers if layer.trainable_weights]
    assert trained == [
        "block5_conv1",
        "block5_conv2",
        "block5_conv3",
    ]  # and block5_pool, which has no weights
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 12
    assert unfreeze(loaded, 2) == 2
    assert len(backbone_of(loaded).trainable_weights) == 2
    assert unfreeze(loaded, "all") == len(backbone.layers) == 19
    assert len(backbone_of(loaded).trainable_weights) == 26
    assert unfreeze(loaded, 0) == 0
    assert backbone_of(loaded).trainable_weights == []
    assert len(loaded.trainable_weights) == 6
    for wrong in (20, -1, "some", True):
        with pytest.raises(InputError, match="unfrozen must be 'all' or a whole number from 0 to 19"):
            unfreeze(loaded, wrong)
    with pytest.raises(InputError, match="cnn4 has none"):
        unfreeze(build_architecture("cnn4", size=16), "all")


@pytest.mark.all_networks
@pytest.mark.parametrize("unfrozen", ["all", 190])
def test_batch_norms_stay_as_they_are_unless_all_is_trained(unfrozen, tmp_path):
    model = build_architecture("resnet50v2", size=32, unfrozen=unfrozen)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    soften(model)
    backbone = backbone_of(model)
    before = {layer.name: numpy_weights(layer) for layer in backbone.layers if layer.weights}
    train_step(model, greys(32, n=4))
    moved = {
        name: [
            bool((a != b).any()) for a, b in zip(old, numpy_weights(backbone.get_layer(name)), strict=True)
        ]
        for name, old in before.items()
    }
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 49
    for norm in norms:
        changes = moved.pop(norm.name)
        assert all(changes[2:]) if unfrozen == "all" else not any(changes)
    assert all(map(any, moved.values()))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_come_from_files(tmp_path, suffix):
    images = greys(32)
    for name in ("cnn4", "mobilenet"):
        model = build_architecture(name, size=32, seed=1)
        file = tmp_path / f"{name}{suffix}"
        model.save(file) if suffix == ".keras" else model.save_weights(file)
        again = build_architecture(name, size=32, seed=2, weights=file)
        np.testing.assert_array_equal(scores(again, images), scores(model, images))
    # A backbone's own weights fit under any head.
    inner = tmp_path / f"inner{suffix}"
    backbone_of(model).save(inner) if suffix == ".keras" else backbone_of(model).save_weights(inner)
    other = build_architecture("mobilenet", size=48, n_classes=4, weights=inner, unfrozen="all")
    for a, b in zip(backbone_of(other).get_weights(), backbone_of(model).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", one_of_each([".h5", ".keras", ".weights.h5"], [".h5"]))
def test_published_efficientnet_weights_meet_the_scale_they_were_learnt_with(tmp_path, suffix):
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    published = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    norm = next(x for x in published.layers if isinstance(x, keras.layers.Normalization))
    norm.set_weights([mean, spread, np.array(0)])  # as in the published files
    file = tmp_path / f"efficientnetb0_notop{suffix}"
    published.save_weights(file) if suffix == ".weights.h5" else published.save(file)
    model = build_architecture("efficientnetb0", size=32, weights=file)
    backbone = backbone_of(model)
    # What enters the first convolution, in Keras's own network with weights="imagenet": the spread's root twice.
    images = greys(32)
    expected = (images[..., None] / 255 - mean) / np.sqrt(spread) / np.sqrt(spread)
    norm = next(x for x in backbone.layers if isinstance(x, keras.layers.Normalization))
    entering = keras.Model(model.inputs[0], model.get_layer(PREPROCESSED).output)
    found = keras.Model(backbone.inputs[0], norm.output)(entering(images[..., None].astype(np.float32)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)
    # Nothing of it lies in the weights, which may be put into another network one by one.
    other = build_architecture("efficientnetb0", size=32, seed=1)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(scores(other, images), scores(model, images))


def test_weights_that_do_not_fit_are_named(tmp_path):
    build_architecture("cnn3", size=16).save(tmp_path / "other.keras")
    (tmp_path / "noise.weights.h5").write_bytes(b"no weights at all")
    (tmp_path / "noise.keras").write_bytes(b"no archive")
    for name, files in (
        ("cnn4", ("other.keras", "noise.weights.h5", "noise.keras")),
        ("mobilenet", ("other.keras",)),
    ):
        for file in files:
            with pytest.raises(InputError, match=f"{file} does not hold the weights of {name}"):
                build_architecture(name, size=32, weights=tmp_path / file)
    with pytest.raises(InputError, match="there is no file .*missing.keras"):
        build_architecture("cnn4", size=16, weights=tmp_path / "missing.keras")
    (tmp_path / "weights.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match=r"must be a .keras, .weights.h5 or .h5 file; got .*weights.pkl"):
        build_architecture("cnn4", size=16, weights=tmp_path / "weights.pkl")
    (tmp_path / "vgg.h5").write_bytes(b"x")
    with pytest.raises(InputError, match="weights for cnn4 must be a .keras or .weights.h5 file"):
        build_architecture("cnn4", size=16, weights=tmp_path / "vgg.h5")


def test_without_a_network_it_says_which_file_goes_where(tmp_path):
    code = (
        "from histcxr.exceptions import InputError\n"
        "from histcxr.reference.architectures import build_architecture\n"
        "try:\n"
        "    build_architecture('mobilenet', size=96, weights='imagenet')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    closed = "http://127.0.0.1:9"  # nothing listens at the port that throws away
    environment = {name: value for name, value in os.environ.items() if name != "HISTCXR_WEIGHTS"}
    environment |= {"KERAS_HOME": str(tmp_path), "https_proxy": closed, "HTTPS_PROXY": closed}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    message = done.stdout.splitlines()[-1]
    assert message.startswith("weights='imagenet' for MobileNet are not on this computer")
    assert "mobilenet_1_0_224_tf_no_top.h5 elsewhere" in message
    assert f"put it into {tmp_path / 'models'}" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "alexnet"}, "architecture must be one of cnn4, .*efficientnetb7; got 'alexnet'"),
        ({"name": "xception", "size": 70}, "size must be at least 71 pixels for xception; got 70"),
        ({"name": "cnn4", "size": 15}, "size must be at least 16 pixels for cnn4"),
        ({"name": "cnn4", "size": 31, "options": ConvOptions((2,) * 5)}, "size must be at least 32 pixels"),
        ({"name": "cnn4", "size": 64.5}, "size must be a whole number"),
        ({"name": "cnn4", "n_classes": 1}, "n_classes must be a whole number of at least 2"),
        (
            {"name": "cnn4", "options": LeNetOptions()},
            "options for cnn4 must be ConvOptions; got LeNetOptions",
        ),
        ({"name": "vgg16", "options": ConvOptions()}, "options for vgg16 must be None"),
        ({"name": "cnn3", "head": HeadOptions(dense=(8,))}, "cnn3 has dense layers of its own"),
        ({"name": "vgg16", "head": (128, 32)}, "head must be HeadOptions; got tuple"),
        ({"name": "cnn3", "weights": "imagenet"}, "no weights 'imagenet' for cnn3; there are for vgg16"),
        ({"name": "cnn3", "weights": 7}, "weights must be None, 'imagenet' or a file; got 7"),
        ({"name": "cnn3", "unfrozen": 3}, "unfrozen must be 0 or 'all' for cnn3"),
        (
            {"name": "vgg16", "size": 32, "unfrozen": 99},
            "unfrozen must be 'all' or a whole number from 0 to 19",
        ),
    ],
)
def test_wrong_arguments_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        build_architecture(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeadOptions(dense=128), "dense must be a tuple of whole numbers of at least 0"),
        (lambda: HeadOptions(dropout=1.0), "dropout must be at least 0 and below 1"),
        (lambda: HeadOptions(activation="gelu"), "activation must be one of relu, tanh"),
        (lambda: ConvOptions(filters=()), "filters must name at least one"),
        (lambda: LeNetOptions(kernel_size=0), "kernel_size must be a whole number"),
        (lambda: LeNetOptions(pooling="min"), "pooling must be one of max, average"),
        (lambda: RecurrentOptions(units=0), "units must be a whole number"),
        (lambda: ResidualOptions(blocks=(1, 1)), "blocks must be 4 numbers"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_registry_is_complete_and_cannot_be_changed():
    small = {"cnn4", "cnn4-raw", "cnn3", "lenet5", "lenet5-tuned", "cnn-lstm", "resnet-small", "resnet-fine"}
    assert set(ARCHITECTURES) == small | set(PREPROCESS)
    assert {name for name, a in ARCHITECTURES.items() if a.transfer} == set(BACKBONES)
    assert all(a.name == name and a.description and a.min_size <= a.size for name, a in ARCHITECTURES.items())
    with pytest.raises(TypeError):
        ARCHITECTURES["cnn3"] = None
    assert ARCHITECTURES["cnn3"].augmentation == {
        "translation": 0,
        "rotation": 20,
        "zoom": 0.1,
        "intensity": 0,
    }
