"""Training the network: two short runs on phantoms, to see that it learns, repeats itself and writes its file."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.exceptions import InputError
from histcxr.lungs.pairs import read_pairs, with_masks
from histcxr.lungs.segmenter import Segmenter
from histcxr.lungs.training import SegmenterOptions, dice, train_segmenter

pytest.importorskip("keras")

SHORT = SegmenterOptions(epochs=1, finishing=1, batch_size=8, learning_rate=1e-2, widths=(4, 6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, phantoms_on_disk):
    return phantoms_on_disk(tmp_path_factory.mktemp("phantoms"), 170)


@pytest.fixture(scope="module")
def pairs(folder):
    return read_pairs(with_masks([folder]))


def test_equal_seeds_give_equal_weights(pairs):
    few = pairs.part("val")
    first, again = (train_segmenter(few, validation, SHORT) for validation in (few, few.part("none")))
    assert all(0 <= entry["dice"] <= 1 for entry in first.history)
    assert [entry["dice"] for entry in again.history] == [None, None]
    first, again = first.weights, again.weights
    assert first.keys() == again.keys()
    for name, values in first.items():
        np.testing.assert_allclose(values, again[name], atol=1e-5)


def test_nothing_to_train_on_is_said(pairs):
    with pytest.raises(InputError, match="got none"):
        train_segmenter(pairs.part("none"), pairs, SHORT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"epochs": 0, "finishing": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"widths": (8,)},
    ],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(InputError, match=list(wrong)[-1]):
        SegmenterOptions(**wrong)


def test_dice_is_twice_the_common_area():
    first = np.zeros((4, 4), bool)
    second = first.copy()
    assert dice(first, second) == 1
    first[:2], second[1:3] = True, True
    assert dice(first, second) == 0.5


def test_command_trains_and_writes_a_file_that_says_what_it_is(folder, tmp_path):
    out, figures = tmp_path / "lungs.onnx", tmp_path / "about.json"
    options = ["--epochs", "1", "--finishing", "1", "-o", str(out), "--json", str(figures)]
    run = CliRunner().invoke(main, ["segment-train", str(folder), *options])
    assert run.exit_code == 0, run.output
    assert "Dice coefficient" in run.output
    about = json.loads(figures.read_text())
    assert Segmenter(out.read_bytes()).about == about
    assert [entry["epoch"] for entry in about["history"]] == [1, 2]
    assert about["history"][1]["loss"] < about["history"][0]["loss"]
    tested = sum(group["images"] for group in about["test"].values())
    assert about["images"]["train"] + about["images"]["val"] + tested == 170
    assert all(0 <= share <= 0.01 for share in about["false_alarms"])
    image = str(folder / "images" / "003.png")
    run = CliRunner().invoke(main, ["segment", image, "-o", str(tmp_path / "seg"), "--segmenter", str(out)])
    assert run.exit_code in (0, 3), run.output  # it has learnt little
    assert "of 1 radiograph segmented" in run.output
