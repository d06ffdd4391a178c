import os
import sys
import tracemalloc
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest

from histcxr.data.discovery import find_inputs
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError, OutputError
from histcxr.features.extraction import Features, extract_features, feature_frame, write_features
from histcxr.features.histograms import ZONES, zone_names
from histcxr.features.measuring import count_lungs, measure_image
from histcxr.features.recipe import Recipe
from histcxr.files.writing import write_image, write_mask
from histcxr.phantoms.studies import make_phantom, write_broken_files, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study with a few broken files among the sound ones."""
    folder = tmp_path_factory.mktemp("study")
    sound = read_manifest(
        write_study(folder / "sound", n_patients=12, size=(96, 96), mask_size=(80, 80), seed=1)
    )
    expected = write_broken_files(folder / "broken")
    rows = [
        {"image": item.path, "mask": item.mask, "label": "", "expected": expected[item.relative].value}
        for item in find_inputs(folder / "broken")
        if item.problem is None and item.mask
    ]
    table = pd.concat([sound.assign(expected=""), pd.DataFrame(rows)], ignore_index=True)
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.mark.parametrize("zones", ZONES)
def test_every_row_is_its_image(study, zones):
    features = extract_features(study, zones)
    assert len(features) == len(study)
    assert features.counts.dtype == np.int64
    assert features.counts.shape == (len(study), len(zone_names(zones)), 256)
    assert features.recipe == Recipe(zones)
    for row, counts, usable in zip(study.itertuples(), features.counts, features.usable, strict=True):
        if usable:
            alone, _ = measure_image(row.image, row.mask, partial(count_lungs, recipe=Recipe(zones)))
            np.testing.assert_array_equal(counts, alone)
        else:
            assert not counts.any()


def test_failing_rows_stay_with_their_reason(study):
    features = extract_features(study)
    assert list(features.table["reason"]) == list(study["expected"])
    np.testing.assert_array_equal(features.usable, study["expected"] == "")
    assert 10 <= (~features.usable).sum() < len(study) - 10
    assert (features.table.loc[features.usable, "detail"] == "").all()
    assert (features.table.loc[~features.usable, "detail"] != "").sum() >= 8


def test_manifest_is_kept_and_not_changed(study):
    manifest = study.set_axis(np.arange(len(study)) * 3 + 7).assign(age=np.arange(len(study)))
    before = manifest.copy()
    features = extract_features(manifest)
    pd.testing.assert_frame_equal(manifest, before)
    pd.testing.assert_frame_equal(features.table[manifest.columns], manifest)
    assert list(features.table.columns) == [*manifest.columns, "reason", "detail"]


@pytest.mark.parametrize("n_jobs", [2, 5, -1])
def test_jobs_do_not_matter(study, n_jobs):
    alone, together = extract_features(study, 6), extract_features(study, 6, n_jobs)
    np.testing.assert_array_equal(together.counts, alone.counts)
    pd.testing.assert_frame_equal(together.table, alone.table)


def test_rows_may_repeat_and_share_an_index(study):
    twice = pd.concat([study, study])
    features = extract_features(twice, 2, 2)
    half = len(study)
    np.testing.assert_array_equal(features.counts[:half], features.counts[half:])
    assert list(features.table.index) == list(twice.index)


def test_missing_paths_are_reasons(study):
    sound = study.loc[study["expected"] == "", "image"].iloc[0]
    manifest = pd.DataFrame({"image": [sound, None, ""], "mask": [np.nan, "", None]})
    assert list(extract_features(manifest).table["reason"]) == ["mask_missing", "not_found", "not_found"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_file_names_need_not_be_text(tmp_path):
    phantom = make_phantom(1)
    write_image(tmp_path / "image.png", phantom.image)
    write_mask(tmp_path / "mask.png", phantom.mask)
    name = os.path.join(os.fspath(tmp_path), os.fsdecode(b"\xff, \n=1.png"))
    os.rename(tmp_path / "image.png", name)
    manifest = pd.DataFrame({"image": pd.Series([name], dtype=object), "mask": [str(tmp_path / "mask.png")]})
    assert extract_features(manifest).usable.all()
    assert extract_features(manifest, cache=tmp_path / "cache").usable.all()


def test_no_images():
    features = extract_features(pd.DataFrame({"image": [], "mask": []}), 6)
    assert features.counts.shape == (0, 6, 256)
    assert features.usable.shape == (0,)
    assert list(features.table.columns) == ["image", "mask", "reason", "detail"]


def test_columns_are_needed(study):
    with pytest.raises(InputError, match="manifest must have the columns image and mask; missing: mask"):
        extract_features(study[["image"]])
    with pytest.raises(InputError, match="zones must be one of"):
        extract_features(study, 5)


def test_progress_is_shown_only_when_asked(study, capfd):
    extract_features(study)
    assert capfd.readouterr() == ("", "")
    extract_features(study, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{len(study)}/{len(study)}" in err


def test_memory_does_not_grow_with_the_number_of_images(study, monkeypatch):
    """Beyond the result itself, that is: pixels, masks and counts of images done are given back."""
    monkeypatch.setattr("histcxr.features.extraction._CHUNK", 4)
    sound = study[study["expected"] == ""]

    def peak(n):
        manifest = sound.iloc[np.arange(n) % len(sound)]
        tracemalloc.start()
        try:
            features = extract_features(manifest, 1, 2)
            return tracemalloc.get_traced_memory()[1] - features.counts.nbytes
        finally:
            tracemalloc.stop()

    peak(20)
    # Kept counts would take 2 KB an image, kept pixels 9 KB and kept masks as much.
    assert peak(400) - peak(60) < 340 * 1000


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_interruption_ends_it_at_once_and_in_silence(study, monkeypatch, n_jobs):
    """As by Ctrl-C, which reaches the thread that collects."""
    monkeypatch.setattr("histcxr.features.extraction._CHUNK", 1)
    taken = []

    def interrupted(done, total):
        taken.append(done)
        if len(taken) == 3:
            raise KeyboardInterrupt

    with warnings.catch_warnings(action="error"), pytest.raises(KeyboardInterrupt):
        extract_features(study, 1, n_jobs, progress=interrupted)
    assert taken == [1, 2, 3]


def test_selection(study):
    features = extract_features(study, 2)
    usable = features.select(features.usable)
    assert usable.usable.all()
    np.testing.assert_array_equal(usable.counts, features.counts[features.usable])
    assert list(usable.table["image"]) == list(features.table.loc[features.usable, "image"])
    assert usable.recipe == features.recipe
    order = features.select([3, 0])
    assert list(order.table["image"]) == list(study["image"].iloc[[3, 0]])
    with pytest.raises(InputError, match=f"rows must be {len(study)} booleans"):
        features.select([True, False])


def test_features_must_fit_together(study):
    features = extract_features(study, 2)
    with pytest.raises(InputError, match=r"counts must have the shape \(\d+, 6, 256\); got \(\d+, 2, 256\)"):
        Features(features.counts, features.table, Recipe(6))


@pytest.fixture
def histograms() -> Features:
    rng = np.random.default_rng(0)
    names = ["a.png", "b,\n=c.png", "odd\udcff.png"]
    table = pd.DataFrame(
        {"image": pd.Series(names, dtype=object), "label": ["Normal", "COVID", ""], "age": [1, 2, 3]}
    )
    table["reason"], table["detail"] = ["", "", "truncated"], ""
    counts = rng.integers(0, 50, (3, 2, 256))
    return Features(counts, table, Recipe(2))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_hold_every_count_and_row(histograms, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write_features(histograms, path)
    read = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    bins = [column for column in read if str(column)[-3:].isdigit()]
    np.testing.assert_array_equal(read[bins].to_numpy().reshape(3, 2, 256), histograms.counts)
    assert read["image"].tolist() == ["a.png", "b,\n=c.png", "odd\\udcff.png"]
    assert read["age"].tolist() == [1, 2, 3]
    assert read["reason"].tolist() == ["", "", "truncated"]


def test_npz_needs_no_pickle(histograms, tmp_path):
    write_features(histograms, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as read:
        np.testing.assert_array_equal(read["counts"], histograms.counts)
        assert read["label"].tolist() == ["Normal", "COVID", ""]


def test_frame_names_zones(histograms):
    assert "right_000" in feature_frame(histograms)
    assert "left_255" in feature_frame(histograms)


def test_unknown_suffix(histograms, tmp_path):
    with pytest.raises(InputError, match=r"must end in .parquet, .csv, .npz"):
        write_features(histograms, tmp_path / "t.xls")


def test_missing_folder(histograms, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_features(histograms, tmp_path / "nowhere" / "t.csv")
