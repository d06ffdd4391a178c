"""The deletion test on maps that are known to be right or wrong, and the script as a whole."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import where_it_looks
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.reference.images import InputSettings
from histcxr.store import save_model
from histcxr.study.explain import Explanation
from histcxr.study.network_train import ReferenceSettings, train_reference

SIDE = 40


class Corner:
    """It calls sick what is bright in the upper left corner."""

    classes = ("normal", "sick")

    def __init__(self, region):
        self.inputs = InputSettings(SIDE, region)

    def probabilities(self, images):
        sick = images[:, :12, :12].mean(axis=(1, 2)) / 255
        return np.column_stack([1 - sick, sick])


def corner_maps(rng, where, outside):
    pixels = np.full((30, SIDE, SIDE), outside, np.uint8)
    pixels[:, :30, :30] = rng.integers(60, 90, (30, 30, 30))
    pixels[:, :12, :12] = 250
    maps = np.zeros((30, SIDE, SIDE), np.float32)
    maps[:, where, where] = 1
    return Explanation(pixels, maps, pd.DataFrame({"explained": ["sick"] * 30}), "layer")


@pytest.mark.parametrize(("region", "outside"), [("full", 40), ("lungs", 0)])
def test_blanking_what_a_right_map_names_costs_more_than_chance(region, outside):
    rng = np.random.default_rng(0)
    hot, drawn = where_it_looks.falls(Corner(region), corner_maps(rng, slice(0, 12), outside))
    assert hot.min() > drawn.mean() + 0.2
    hot, drawn = where_it_looks.falls(Corner(region), corner_maps(rng, slice(15, 29), outside))
    assert np.abs(hot).max() < 0.01  # a wrong map: its places do not matter
    assert drawn.max() > 0.01


def test_a_tenth_of_what_is_seen_is_blanked():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10) + 1
    seen = np.zeros((10, 10), bool)
    seen[:5] = True
    changed = where_it_looks.blanked(image, image.astype(float), seen)
    assert (changed != image).sum() == 5
    assert set(changed[changed != image]) == {23}  # the mean of 1 to 45
    np.testing.assert_array_equal(changed[5:], image[5:])


def test_the_script_as_a_whole(tmp_path, capsys):
    data = write_study(tmp_path / "study", n_patients=50, size=(64, 64), mask_size=(64, 64), seed=1)
    settings = ReferenceSettings("cnn4", region="full", size=32, epochs=1, held_out=0.0)
    result = train_reference(data, settings)
    save_model(result.model, tmp_path / "net.histcxr")
    command = ["--data", str(data), "-m", str(tmp_path / "net.histcxr"), "--images", "5"]
    where_it_looks.main([*command, "--json", str(tmp_path / "found.json")])
    (row,) = json.loads((tmp_path / "found.json").read_text())["networks"]
    assert row["hidden"] == pytest.approx(result.report["lungs_hidden"])
    assert row["auc"] != row["hidden"]
    assert row["images"] == 10
    assert "| cnn4, 32 px | full " in capsys.readouterr().out
    with pytest.raises(InputError, match="model must be a network"):
        where_it_looks.main(["--data", str(data), "-m", "boxed"])
