import json

import pandas as pd
import pytest

from benchmarks.speed import ratios
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    options = {"size": (64, 64), "mask_size": (64, 64), "repeats": 0}
    study = write_study(folder / "study", n_patients=12, seed=1, layout="flat", **options)
    images = sorted(study.glob("*.png"))
    rows = [{"image": place, "mask": study / "masks" / place.name} for place in images]
    return ratios.write_list(folder / "list.csv", rows)


def test_package_and_yardstick_take_turns(table):
    block = ratios.Block("extraction", "extract", "opencv", {1: 0.8}, {"zones": "6", "bands": "travel"})
    with (
        ratios.Worker(ratios.sys.executable, ratios.ROOT) as new,
        ratios.Worker(ratios.sys.executable, ratios.ROOT) as opencv,
    ):
        rows = ratios.measure(block, table, {"new": new, "opencv": opencv}, 0, 2)
    assert [row["threads"] for row in rows] == [1, 2]
    assert [row["turns"] for row in rows] == [2, 2]
    assert all(0 < row["ratio"] < 10 and 0 < row["by processor"] < 10 for row in rows)
    assert [row["wanted"] for row in rows] == [0.8, None]
    assert "| extraction" in ratios.shown(rows)


def test_what_cannot_be_measured_says_why(table):
    with (
        ratios.Worker(ratios.sys.executable, ratios.ROOT) as worker,
        pytest.raises(InputError, match="nowhere"),
    ):
        worker.do("opencv", table="nowhere.csv", threads=1)


def test_large_files_are_those_of_a_scanner(table, tmp_path):
    image = pd.read_csv(table)["image"][0]
    made = ratios.make("png", [ratios.Path(image)], tmp_path / "made", 200)
    pixels = ratios.cv2.imread(str(made[0]), ratios.cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (2000, 2000)
    assert json.dumps(ratios.links(made, tmp_path / "links", 3), default=str).count("png") == 3
