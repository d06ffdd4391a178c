import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.reference import architectures, frozen
from histcxr.reference.architectures import build_architecture
from histcxr.reference.augmentation import Augmentation
from histcxr.reference.backbones import BACKBONES, backbone_of, load_backbone
from histcxr.reference.classifier import ReferenceClassifier
from histcxr.reference.frozen import Halves
from histcxr.reference.heads import HeadClassifier, frozen_features, stays_frozen

keras = pytest.importorskip("keras")

SIDE = 32
ONLY_MIRRORS = Augmentation(0, 0, 0, 0, 0, 0, flip=True)


def tiny_backbone(_, size, *, imagenet):
    """Make a network with the parts that published ones have: convolutions, batch normalisation, a shortcut."""
    layers = keras.layers
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="stem")(inputs)
    for block in ("one", "two"):
        y = layers.Conv2D(6, 3, padding="same", name=f"{block}_conv")(x)
        y = layers.ReLU(name=f"{block}_relu")(layers.BatchNormalization(name=f"{block}_norm")(y))
        x = layers.Add(name=f"{block}_add")([x, layers.Conv2D(6, 1, name=f"{block}_last")(y)])
    return keras.Model(inputs, x, name="tiny")


@pytest.fixture(autouse=True, scope="module")
def small():
    """Let the MobileNet of these tests be tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "load_backbone", tiny_backbone)
        yield


@pytest.fixture(scope="module")
def squares():
    rng = np.random.default_rng(0)
    target = np.arange(40) % 2
    images = rng.normal(90, 25, (40, SIDE, SIDE))
    images[target == 1, 18:28, 3:14] += 60
    return images.clip(0, 255).astype(np.uint8), target


@pytest.fixture(scope="module")
def start(tmp_path_factory, small):
    """Weights of a backbone, in place of published ones."""
    file = tmp_path_factory.mktemp("weights") / "MobileNet_made_up.weights.h5"
    backbone_of(build_architecture("mobilenet", size=SIDE, seed=5)).save_weights(file)
    return file


def network(start, **settings):
    common = {"weights": start, "epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "random_state": 3}
    return ReferenceClassifier("mobilenet", **(common | settings))


@pytest.fixture
def exact(monkeypatch):
    """Keep maps as float32."""
    monkeypatch.setattr(frozen, "_TYPE", np.float32)


@pytest.mark.parametrize("augmentation", [None, ONLY_MIRRORS, Augmentation()])
def test_trains_the_tail_as_the_whole_would(squares, start, exact, monkeypatch, augmentation):
    images, target = squares
    settings = {"unfrozen": 3, "augmentation": augmentation}
    quick = network(start, **settings).fit(images, target)
    cuts = []
    monkeypatch.setattr(frozen, "MAX_BYTES", 0)  # nothing is kept
    monkeypatch.setattr(Halves, "run_front", lambda *_, **__: cuts.append(1))
    plain = network(start, **settings).fit(images, target)
    assert not cuts
    assert quick.history_["stage"] == plain.history_["stage"] == [1, 1, 2, 2]
    np.testing.assert_allclose(quick.history_["loss"], plain.history_["loss"], rtol=1e-4)
    np.testing.assert_allclose(quick.predict_proba(images), plain.predict_proba(images), atol=1e-3)


def test_nothing_before_the_cut_is_trained(squares, start):
    fitted = network(start, unfrozen=4, validation_fraction=0).fit(*squares)
    model = build_architecture("mobilenet", size=SIDE, weights=start)
    names = [weight.path for weight in backbone_of(model).weights]
    before = dict(zip(names, backbone_of(model).get_weights(), strict=True))
    after = list(fitted.weights_.values())[: len(names)]
    changed = {
        name.split("/")[-2] for name, one in zip(names, after, strict=True) if (one != before[name]).any()
    }
    assert changed == {"two_last"}  # of the last four the norm stays, and two have no weights


def test_float16_is_close_enough(squares, start, monkeypatch):
    halves = Halves(build_architecture("mobilenet", size=SIDE, weights=start, unfrozen=5))
    kept = halves.run_front(squares[0])
    monkeypatch.setattr(frozen, "_TYPE", np.float32)
    full = halves.run_front(squares[0])
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, full, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["mobilenet", *(pytest.param(f"real {name}", marks=pytest.mark.all_networks) for name in BACKBONES)],
)
def test_halves_make_the_whole_wherever_it_is_cut(name, monkeypatch):
    if name.startswith("real"):
        monkeypatch.setattr(architectures, "load_backbone", load_backbone)
    name = name.split()[-1]
    side = max(BACKBONES[name].min_size, 64)
    model = build_architecture(name, size=side, unfrozen=0)
    backbone = backbone_of(model)
    images = np.random.default_rng(1).integers(0, 256, (2, side, side, 1), np.uint8).astype(np.float32)
    whole = np.asarray(model(images))
    count, shapes = len(backbone.layers), []
    for unfrozen in (0, count // 6 + 1, count // 2):
        backbone.trainable = unfrozen > 0
        for place, layer in enumerate(backbone.layers):
            layer.trainable = place >= count - unfrozen
        halves = Halves(model)
        maps = halves.front(images)
        np.testing.assert_allclose(np.asarray(halves.back(maps)), whole, rtol=1e-4, atol=1e-6)
        fixed = {id(weight) for weight in halves.front.weights}
        assert not any(id(weight) in fixed for weight in model.trainable_weights)
        shapes.append(maps.shape[1:])
    assert len(shapes[0]) == 1
    assert all(len(shape) == 3 for shape in shapes[1:])


def test_features_are_computed_once(squares, start, tmp_path, monkeypatch):
    images = squares[0]
    found = frozen_features(network(start), images, cache=tmp_path / "cache")
    seen = []
    real = frozen.outputs
    monkeypatch.setattr(frozen, "outputs", lambda model, x: seen.append(len(x)) or real(model, x))
    np.testing.assert_array_equal(frozen_features(network(start), images, cache=tmp_path / "cache"), found)
    assert not seen
    changed = images[::-1].copy()
    changed[3, 0, 0] ^= 255
    again = frozen_features(network(start), changed, cache=tmp_path / "cache")
    assert seen == [1]
    np.testing.assert_array_equal(np.delete(again, 3, 0), np.delete(found[::-1], 3, 0))
    other = tmp_path.joinpath("other.weights.h5")
    backbone_of(build_architecture("mobilenet", size=SIDE, seed=6)).save_weights(other)
    frozen_features(network(other), images, cache=tmp_path / "cache")
    assert seen == [1, 40]


def test_a_head_by_itself_trains_as_on_its_backbone(squares, start):
    images, target = squares
    whole = network(start, validation_fraction=0.3)
    assert stays_frozen(whole)
    assert not any(
        stays_frozen(network(start, **one)) for one in ({"unfrozen": 3}, {"augmentation": ONLY_MIRRORS})
    )
    features = frozen_features(whole, images)
    head = HeadClassifier.of(whole).fit(features, target)
    whole.fit(images, target)
    assert head.history_["val_loss"] == whole.history_["val_loss"]
    np.testing.assert_allclose(head.predict_proba(features), whole.predict_proba(images), atol=1e-3)


@pytest.mark.parametrize("wrong", [np.zeros((3, 8), np.int64), np.zeros((3, 8, 8)), np.zeros((0, 8))])
def test_a_head_takes_features_alone(wrong, start):
    with pytest.raises(InputError, match="X must be what a backbone gives, "):
        HeadClassifier.of(network(start)).fit(wrong, np.zeros(len(wrong)))


def test_no_room_is_said_before_training(squares, start, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frozen.os, "posix_fallocate", full)
    with pytest.raises(InputError, match="has no room .No space left on device.: set TMPDIR"):
        network(start).fit(*squares)


def test_imagenet_weights_lie_in_the_folder_that_a_variable_names(start, monkeypatch):
    monkeypatch.setenv("HISTCXR_WEIGHTS", str(start.parent))
    (start.parent / "MobileNetV2.h5").write_bytes(b"")  # another network's
    one, other = (build_architecture("mobilenet", size=SIDE, weights=w) for w in ("imagenet", start))
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (start.parent / "mobilenet-2.h5").write_bytes(b"")
    with pytest.raises(InputError, match="HISTCXR_WEIGHTS must be a folder with one file for MobileNet; got"):
        build_architecture("mobilenet", size=SIDE, weights="imagenet")
