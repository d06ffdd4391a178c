"""Training on phantoms and using the file: lungs are found, each image for itself, and refusals have reasons."""

import os
from importlib import resources

import numpy as np
import pytest

from histcxr.exceptions import ModelError, Reason, UnjudgeableError
from histcxr.lungs.segmenter import Found, Segmenter, load_segmenter, shrunk, standardised
from histcxr.lungs.training import dice
from histcxr.lungs.unet import WIDTHS, write_onnx
from histcxr.phantoms.not_chests import TRANSFORMS

FIRST, SIZE = 10_000, (200, 180)  # seeds that the network has not seen


def test_lungs_of_new_phantoms_are_found(segmenter, phantoms):
    drawn = phantoms.several(20, FIRST, size=SIZE)
    found = segmenter.segment([phantom.image for phantom in drawn])
    scores = [
        dice(one.mask, phantom.mask)
        for one, phantom in zip(found, drawn, strict=True)
        if isinstance(one, Found)
    ]
    assert len(scores) == 20
    assert np.mean(scores) > 0.93


def test_an_image_alone_gives_the_same(segmenter, phantoms):
    images = [phantom.image for phantom in phantoms.several(40, FIRST, size=(144, 160))]
    together = segmenter.segment(images)
    for image, one in zip(images, together, strict=True):
        (alone,) = segmenter.segment([image])
        assert type(alone) is type(one)
        if isinstance(one, Found):
            np.testing.assert_array_equal(alone.mask, one.mask)
            assert alone.distance == one.distance


def test_inverted_phantoms_are_told(segmenter, phantoms):
    found = segmenter.segment([255 - phantom.image for phantom in phantoms.several(10, FIRST, size=SIZE)])
    assert [one.reason for one in found] == [Reason.POLARITY] * 10


@pytest.mark.parametrize("change", ["turned90", "turned180", "turned270", "upside_down", "two_images"])
def test_turned_phantoms_are_refused(segmenter, phantoms, change):
    found = segmenter.segment(
        [TRANSFORMS[change](phantom.image) for phantom in phantoms.several(10, FIRST, size=SIZE)]
    )
    assert sum(isinstance(one, UnjudgeableError) for one in found) >= 9


def test_outline_is_the_mask_unchecked(segmenter, phantoms):
    phantom = phantoms(FIRST, size=SIZE)
    (found,), (outline,) = segmenter.segment([phantom.image]), segmenter.outline([phantom.image])
    np.testing.assert_array_equal(found.mask, outline)
    (upside_down,) = segmenter.outline([phantom.image[::-1].copy()])
    assert upside_down.shape == phantom.image.shape


@pytest.mark.parametrize("kind", ["even", "noise", "narrow"])
def test_no_chest_is_refused(segmenter, phantoms, kind, rng):
    pixels = {
        "even": np.full((200, 200), 90, np.uint8),
        "noise": rng.integers(0, 256, (200, 200)).astype(np.uint8),
        "narrow": phantoms(1).image[:, 80:150],
    }[kind]
    (found,) = segmenter.segment([pixels], ["picture.png"])
    assert isinstance(found, UnjudgeableError)
    assert found.path == "picture.png"
    assert found.reason in (
        Reason.NOT_A_CHEST,
        Reason.LUNGS_NOT_FOUND,
        Reason.LUNGS_IMPLAUSIBLE,
        Reason.POLARITY,
    )


def test_packaged_network_is_loaded_once_and_says_what_it_is(segmenter, phantoms):
    assert segmenter is load_segmenter()
    assert segmenter.contexts([phantoms(0).image]).shape == (1, 4 * WIDTHS[-1])
    assert all(0 <= share <= 0.01 for share in segmenter.about["false_alarms"])
    assert "research" in segmenter.about["use"]
    assert all(figures["dice"] > 0.9 for figures in segmenter.about["test"].values())


def test_packaged_network_fits_its_size():
    content = resources.files("histcxr.lungs").joinpath("lungs.onnx").read_bytes()
    assert len(content) <= 2_000_000
    assert Segmenter(content).digest == load_segmenter().digest


def test_other_files_are_refused(random_weights, tmp_path):
    with pytest.raises(ModelError, match="ONNX"):
        Segmenter(b"no model")
    foreign = write_onnx(random_weights((4, 6, 8), np.random.default_rng(0)), properties={"about": "{}"})
    with pytest.raises(ModelError, match="segment-train"):
        Segmenter(foreign)
    nothing = tmp_path / "lungs.onnx"
    with pytest.raises(UnjudgeableError, match="does not exist"):
        load_segmenter(nothing)


# ---- files from strangers


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/passwd")


def loop(model):
    node = model.graph.node[1]
    node.op_type = "Loop"
    node.attribute.add(name="body", type=5).g.name = "again"


def strides(model):
    next(node for node in model.graph.node if node.op_type == "ConvTranspose").attribute[1].ints[:] = [
        4096,
        4096,
    ]


def second(model):
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])


def function(model):
    model.functions.add(name="Relu", domain="own")


@pytest.mark.parametrize("change", [external, loop, strides, second, function])
def test_an_onnx_file_of_anything_else_is_refused(change):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(resources.files("histcxr.lungs").joinpath("lungs.onnx").read_bytes())
    Segmenter(model.SerializeToString())
    change(model)
    with pytest.raises(ModelError, match="as histcxr segment-train writes it"):
        Segmenter(model.SerializeToString())


def test_an_onnx_file_that_is_too_large_or_no_file_is_refused(tmp_path):
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(1 << 28)
    with pytest.raises(ModelError, match="more than 64 MiB"):
        load_segmenter(large)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(UnjudgeableError) as caught:
            load_segmenter(path)
        assert caught.value.reason == Reason.NOT_A_FILE


# ---- what the network sees


@pytest.mark.parametrize("shape", [(128, 128), (300, 200), (64, 90), (1, 500)])
def test_input_is_standardised(shape, rng):
    picture = standardised(shrunk(rng.integers(0, 256, shape).astype(np.uint8)))
    assert picture.shape == (128, 128)
    assert picture.dtype == np.float32
    assert abs(picture.mean()) < 1e-3
    assert abs(picture.std() - 1) < 1e-3


def test_input_does_not_depend_on_exposure(phantoms):
    pixels = phantoms(1).image // 3
    difference = standardised(shrunk(pixels)) - standardised(shrunk(2 * pixels + 40))
    assert np.abs(difference).max() < 0.1
    assert np.abs(difference).mean() < 0.02


def test_even_picture_becomes_zeros():
    np.testing.assert_array_equal(standardised(shrunk(np.full((200, 200), 77, np.uint8))), 0)
