import numpy as np
import pandas as pd
import pytest

from histcxr.exceptions import InputError, OutputError
from histcxr.features.extraction import Features
from histcxr.features.recipe import Recipe
from histcxr.features.tables import feature_frame, write_features


@pytest.fixture
def features() -> Features:
    rng = np.random.default_rng(0)
    names = ["a.png", "b,\n=c.png", "odd\udcff.png"]
    table = pd.DataFrame(
        {"image": pd.Series(names, dtype=object), "label": ["Normal", "COVID", ""], "age": [1, 2, 3]}
    )
    table["reason"], table["detail"] = ["", "", "truncated"], ""
    counts = rng.integers(0, 50, (3, 2, 256))
    return Features(counts, table, Recipe(2))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_hold_every_count_and_row(features, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write_features(features, path)
    read = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    bins = [column for column in read if str(column)[-3:].isdigit()]
    np.testing.assert_array_equal(read[bins].to_numpy().reshape(3, 2, 256), features.counts)
    assert read["image"].tolist() == ["a.png", "b,\n=c.png", "odd\\udcff.png"]
    assert read["age"].tolist() == [1, 2, 3]
    assert read["reason"].tolist() == ["", "", "truncated"]


def test_npz_needs_no_pickle(features, tmp_path):
    write_features(features, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as read:
        np.testing.assert_array_equal(read["counts"], features.counts)
        assert read["label"].tolist() == ["Normal", "COVID", ""]


def test_frame_names_zones(features):
    assert "right_000" in feature_frame(features)
    assert "left_255" in feature_frame(features)


def test_unknown_suffix(features, tmp_path):
    with pytest.raises(InputError, match=r"must end in .parquet, .csv, .npz"):
        write_features(features, tmp_path / "t.xls")


def test_missing_folder(features, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_features(features, tmp_path / "nowhere" / "t.csv")
