import hashlib
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features import cache as cache_module
from histcxr.features import measuring, recipe
from histcxr.features.cache import CountsCache, content_key
from histcxr.features.extraction import extract_features
from histcxr.features.recipe import Recipe
from histcxr.phantoms.studies import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, n_patients=15, size=(80, 80), mask_size=(64, 64), repeats=0, seed=2)
    return read_manifest(folder)


@pytest.fixture
def decoded(monkeypatch):
    """The images decoded since the test began."""
    seen = []
    real = measuring.decode_radiograph

    def spy(data, path="", **options):
        seen.append(path)
        return real(data, path, **options)

    monkeypatch.setattr(measuring, "decode_radiograph", spy)
    return seen


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(cache_module, "_PART_IMAGES", 4)
    monkeypatch.setattr("histcxr.features.extraction._CHUNK", 2)


def parts_of(folder):
    return sorted(folder.glob("*/part-*.parquet"))


def assert_same(one, other):
    np.testing.assert_array_equal(one.counts, other.counts)
    pd.testing.assert_frame_equal(one.table, other.table)


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_second_time_decodes_nothing(study, tmp_path, decoded, n_jobs, small_parts):
    plain = extract_features(study, 6)
    decoded.clear()
    assert_same(extract_features(study, 6, n_jobs, cache=tmp_path), plain)
    assert len(decoded) == len(study)
    assert len(parts_of(tmp_path)) >= 3
    decoded.clear()
    assert_same(extract_features(study, 6, n_jobs, cache=tmp_path), plain)
    assert decoded == []


def test_content_counts_and_not_the_name(study, tmp_path, decoded):
    extract_features(study, cache=tmp_path / "cache")
    moved = study.copy()
    for column in ("image", "mask"):
        for number, path in enumerate(study[column]):
            target = tmp_path / f"{column}{number:03}.bin"
            shutil.copy(path, target)
            moved.loc[study.index[number], column] = str(target)
    decoded.clear()
    found = extract_features(moved.iloc[::-1], cache=tmp_path / "cache")
    assert decoded == []
    np.testing.assert_array_equal(found.counts, extract_features(study).counts[::-1])


def test_changed_image_or_mask_is_counted_again(study, tmp_path, decoded):
    copy = study.iloc[:6].copy()
    for number in range(6):
        for column in ("image", "mask"):
            target = tmp_path / f"{column}{number}.png"
            shutil.copy(copy[column].iloc[number], target)
            copy.iloc[number, copy.columns.get_loc(column)] = str(target)
    extract_features(copy, cache=tmp_path / "cache")
    shutil.copy(study["image"].iloc[8], tmp_path / "image2.png")
    shutil.copy(study["mask"].iloc[9], tmp_path / "mask4.png")
    decoded.clear()
    found = extract_features(copy, cache=tmp_path / "cache")
    assert sorted(decoded) == [str(tmp_path / "image2.png"), str(tmp_path / "image4.png")]
    assert_same(found, extract_features(copy))


def test_key_knows_image_from_mask():
    keys = {
        content_key(b"a", b"b"),
        content_key(b"b", b"a"),
        content_key(b"ab", b""),
        content_key(b"", b"ab"),
    }
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}


def test_recipes_and_versions_are_kept_apart(study, tmp_path, decoded, monkeypatch):
    few = study.iloc[:3]
    for change in (
        lambda: None,
        lambda: monkeypatch.setattr(recipe, "HISTOGRAM_VERSION", 98),
        lambda: monkeypatch.setattr(recipe, "EXTRACTION_VERSION", 99),
        lambda: monkeypatch.setattr("cv2.__version__", "9.9.9"),
        lambda: monkeypatch.setattr("histcxr.__version__", "9.9.9"),
    ):
        change()
        for zones in (1, 6):
            decoded.clear()
            extract_features(few, zones, cache=tmp_path)
            assert len(decoded) == 3
            extract_features(few, zones, cache=tmp_path)
            assert len(decoded) == 3
    assert len(list(tmp_path.iterdir())) == 10


def test_part_of_another_recipe_is_not_trusted(study, tmp_path):
    extract_features(study, "1+2", cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    CountsCache(tmp_path, Recipe("1+6"))
    (other,) = set(tmp_path.iterdir()) - {folder}
    shutil.copy(next(folder.iterdir()), other)
    with pytest.warns(HistcxrWarning, match="is damaged; it is removed"):
        found = extract_features(study, "1+6", cache=tmp_path)
    assert_same(found, extract_features(study, "1+6"))


def truncate(data):
    return data[: len(data) // 2]


def flip(data):
    place = len(data) // 3
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda data: b"", lambda data: data + b"\0"])
def test_damaged_part_is_found_and_counted_again(study, tmp_path, decoded, damage, small_parts):
    plain = extract_features(study, 2)
    extract_features(study, 2, cache=tmp_path)
    victim = parts_of(tmp_path)[1]
    lost = pq.read_table(victim).num_rows
    victim.write_bytes(damage(victim.read_bytes()))
    decoded.clear()
    with pytest.warns(HistcxrWarning, match=f"{victim.name} is damaged; it is removed") as warned:
        assert_same(extract_features(study, 2, cache=tmp_path), plain)
    assert len(warned) == 1
    assert len(decoded) == lost
    decoded.clear()
    with warnings.catch_warnings(action="error"):
        assert_same(extract_features(study, 2, cache=tmp_path), plain)
    assert decoded == []


def test_part_that_is_no_parquet_is_not_trusted(study, tmp_path):
    """Even where its name is the hash of its bytes."""
    extract_features(study, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    junk = b"PAR1 and nothing else PAR1"
    (folder / f"part-{hashlib.sha256(junk).hexdigest()}.parquet").write_bytes(junk)
    with pytest.warns(HistcxrWarning, match="is damaged"):
        assert_same(extract_features(study, cache=tmp_path), extract_features(study))


@pytest.mark.parametrize("loss", ["removed", "damaged"])
def test_part_lost_while_extracting_is_counted_again(
    study, tmp_path, monkeypatch, decoded, small_parts, loss
):
    plain = extract_features(study)
    extract_features(study, cache=tmp_path)
    victim = parts_of(tmp_path)[0]
    real = CountsCache.fill

    def fill(self, *arguments):
        if victim.exists():
            victim.unlink() if loss == "removed" else victim.write_bytes(b"gone")
        return real(self, *arguments)

    monkeypatch.setattr(CountsCache, "fill", fill)
    decoded.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_same(extract_features(study, cache=tmp_path), plain)
    assert 0 < len(decoded) < len(study)
    assert [w.category for w in caught] == ([] if loss == "removed" else [HistcxrWarning])


def test_failures_are_not_kept(study, tmp_path):
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    sound = Path(study["image"].iloc[0]).read_bytes()
    image.write_bytes(sound[: len(sound) // 2])
    mask.write_bytes(Path(study["mask"].iloc[0]).read_bytes())
    manifest = pd.DataFrame({"image": [str(image)], "mask": [str(mask)]})
    for _ in range(2):
        features = extract_features(manifest, cache=tmp_path / "cache")
        assert list(features.table["reason"]) == ["truncated"]
    assert parts_of(tmp_path / "cache") == []
    image.write_bytes(sound)
    assert extract_features(manifest, cache=tmp_path / "cache").usable.all()
    mask.unlink()
    features = extract_features(manifest, cache=tmp_path / "cache")
    assert list(features.table["reason"]) == ["mask_missing"]


def test_interrupted_extraction_goes_on(study, tmp_path, monkeypatch, decoded, small_parts):
    """What was counted before Ctrl-C is on disk."""
    real = measuring.decode_radiograph
    seen = []

    def interrupted(data, path="", **options):
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(path)
        return real(data, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "decode_radiograph", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract_features(study, cache=tmp_path)
    decoded.clear()
    assert_same(extract_features(study, cache=tmp_path), extract_features(study))
    # The last chunk of two was lost, nothing else.
    assert not set(seen[:8]) & set(decoded[: len(study) - 8])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_extraction_goes_on(study, tmp_path, decoded, small_parts):
    """SIGKILL in the middle, at whatever moment it hits; the next run gives what an undisturbed one gives."""
    program = (
        "import sys, pandas, time\n"
        "from histcxr.features import cache, extraction, measuring\n"
        "cache._PART_IMAGES, extraction._CHUNK = 3, 1\n"
        "real = measuring.decode_radiograph\n"
        "measuring.decode_radiograph = lambda *a, **k: (time.sleep(0.05), real(*a, **k))[1]\n"
        "extraction.extract_features(pandas.read_csv(sys.argv[1]), 6, cache=sys.argv[2])\n"
    )
    study.to_csv(tmp_path / "manifest.csv", index=False)
    folder = tmp_path / "cache"
    worker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "manifest.csv"), str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not parts_of(folder) and time.monotonic() < deadline:
            assert worker.poll() is None
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    kept = sum(pq.read_table(part).num_rows for part in parts_of(folder))
    assert 3 <= kept < len(study)
    plain = extract_features(study, 6)
    decoded.clear()
    assert_same(extract_features(study, 6, cache=folder), plain)
    assert len(decoded) == len(study) - kept


def test_unfinished_files_are_ignored_and_removed_when_old(study, tmp_path):
    extract_features(study, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    young, old = folder / ".histcxr-1.parquet", folder / ".histcxr-2.parquet"
    young.write_bytes(b"PAR1")
    old.write_bytes(b"PAR1")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert extract_features(study, cache=tmp_path).usable.all()
    assert young.exists()
    assert not old.exists()


def test_two_runs_may_share_a_cache(study, tmp_path):
    half = len(study) // 2
    one, other = CountsCache(tmp_path, Recipe()), CountsCache(tmp_path, Recipe())
    plain = extract_features(study)
    keys = [
        content_key(Path(i).read_bytes(), Path(m).read_bytes())
        for i, m in zip(study["image"], study["mask"], strict=True)
    ]
    one.add(keys[: half + 3], plain.counts[: half + 3], plain.fingerprints[: half + 3])
    other.add(keys[half:], plain.counts[half:], plain.fingerprints[half:])
    one.flush()
    other.flush()
    both = CountsCache(tmp_path, Recipe())
    assert len(both) == len(study)
    found, known = np.zeros_like(plain.counts), np.zeros_like(plain.fingerprints)
    assert both.fill(list(enumerate(keys)), found, known) == []
    np.testing.assert_array_equal(found, plain.counts)
    np.testing.assert_array_equal(known, plain.fingerprints)


def test_unknown_keys_are_lost_rows(tmp_path):
    with CountsCache(tmp_path, Recipe()) as kept:
        arrays = np.zeros((2, 1, 256), np.int64), np.zeros((2, 72), np.uint8)
        assert kept.fill([(1, b"k" * 32), (0, b"l" * 32)], *arrays) == [0, 1]


def test_counts_without_a_key_are_not_kept(tmp_path):
    with CountsCache(tmp_path, Recipe()) as kept:
        kept.add([b"", b"k" * 32], np.ones((2, 1, 256), np.int64), np.ones((2, 72), np.uint8))
    assert CountsCache(tmp_path, Recipe()).keys() == {b"k" * 32}


def test_cache_must_be_a_folder(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache must be a folder that can be written; got"):
        extract_features(study, cache=tmp_path / "file")
