"""Radiographs with masks: one split a patient, no unreadable masks; and what disturbs picture and mask together."""

import numpy as np
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.data.splits import split_patients
from histcxr.exceptions import InputError
from histcxr.lungs.pairs import DISTURBANCES, Pair, disturb, move, read_pairs, with_masks


def list_rows(folder, rows):
    """Write a manifest of (image, mask or None, patient, split)."""
    lines = [
        f"images/{image:03d}.png,{'' if mask is None else f'masks/{mask:03d}.png'},{patient},{split}"
        for image, mask, patient, split in rows
    ]
    (folder / "manifest.csv").write_text("\n".join(["image,mask,patient_id,split", *lines]) + "\n")


def test_patients_have_one_split_over_all_data(tmp_path, phantoms_on_disk):
    first, second = (phantoms_on_disk(tmp_path / name, 6) for name in ("first", "second"))
    for folder, splits in (
        (first, "train train val test test train"),
        (second, "test train train train train val"),
    ):
        list_rows(folder, [(i, i, f"p{i}", split) for i, split in enumerate(splits.split())])
    table = with_masks([first, second])
    assert table.groupby("patient_id")["split"].nunique().eq(1).all()
    assert dict(zip(table["patient_id"], table["split"], strict=True)) == {
        "p0": "test", "p1": "train", "p2": "val", "p3": "test", "p4": "test", "p5": "val",
    }  # fmt: skip
    pairs = read_pairs(table)
    assert len(pairs) == 12
    assert len(pairs.part("val")) == 4
    with pytest.raises(InputError, match="published"):
        with_masks([first], "published")


def test_masks_that_cannot_be_read_are_named(tmp_path, phantoms_on_disk):
    folder = phantoms_on_disk(tmp_path / "data", 4)
    (folder / "masks" / "001.png").write_bytes(b"nothing")
    pairs = read_pairs(with_masks([folder]))
    assert len(pairs) == 3
    (name,) = pairs.unusable
    assert name.endswith("001.png")


def test_a_test_patient_is_never_trained_on_though_that_row_has_no_mask(tmp_path, phantoms_on_disk):
    first, second = (phantoms_on_disk(tmp_path / name, 6) for name in ("first", "second"))
    list_rows(
        first,
        [
            (0, None, "tested", "test"),
            (1, 1, "tested", "train"),
            (2, None, "held out", "val"),
            (3, 3, "held out", "train"),
            (4, 4, "free", "train"),
            (5, 5, "also free", "val"),
        ],
    )
    list_rows(second, [(0, 0, "tested", "train"), (1, 1, "other", "train"), (2, 2, "another", "val")])
    table = with_masks([first, second])
    assert (table["mask"] != "").all()
    assert dict(zip(table["patient_id"], table["split"], strict=True)) == {
        "tested": "test", "held out": "val", "free": "train", "also free": "val", "other": "train",
        "another": "val",
    }  # fmt: skip


def test_splits_are_drawn_as_for_the_classifiers_though_masks_are_missing(phantoms, tmp_path):
    manifest = read_manifest(phantoms.study(n_patients=30, layout="flat", repeats=0))
    parts = dict(zip(manifest["image"], split_patients(manifest, seed=4), strict=True))
    lacking = manifest["image"].iloc[::3]
    rows = manifest.assign(mask=manifest["mask"].where(~manifest["image"].isin(lacking), ""))
    rows.to_csv(tmp_path / "some_masks.csv", index=False)
    table = with_masks([tmp_path / "some_masks.csv"], seed=4)
    assert len(table) == 20
    assert dict(zip(table["image"], table["split"], strict=True)) == {
        image: parts[image] for image in table["image"]
    }


def test_where_validation_is_missing_a_fifth_of_the_patients_with_masks_become_it(phantoms_on_disk, tmp_path):
    folder = phantoms_on_disk(tmp_path / "data", 10)
    list_rows(folder, [(i, i, f"p{i}", "train") for i in range(10)])
    assert with_masks([folder])["split"].value_counts().to_dict() == {"train": 8, "val": 2}
    list_rows(folder, [(i, None, f"p{i}", "train") for i in range(10)])
    with pytest.raises(InputError, match="no image has a mask"):
        with_masks([folder])


@pytest.fixture(scope="module")
def pair(phantoms):
    phantom = phantoms(3, size=(256, 256))
    return Pair(phantom.image, phantom.mask.astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize("name", DISTURBANCES)
def test_keeps_size_and_type_and_changes_something(name, pair):
    before = pair.pixels.copy(), pair.mask.copy()
    found = DISTURBANCES[name](pair, np.random.default_rng(1))
    for array in found:
        assert array.shape == (256, 256)
        assert array.dtype == np.uint8
    assert (found.pixels != pair.pixels).any()
    np.testing.assert_array_equal(pair.pixels, before[0])
    np.testing.assert_array_equal(pair.mask, before[1])


@pytest.mark.parametrize("name", ["inverted", "brightened", "faint", "marked", "noisy", "blurred"])
def test_grey_levels_alone_leave_the_mask(name, pair):
    np.testing.assert_array_equal(DISTURBANCES[name](pair, np.random.default_rng(2)).mask, pair.mask)


def test_inverted_twice_is_the_same(pair):
    rng = np.random.default_rng(0)
    twice = DISTURBANCES["inverted"](DISTURBANCES["inverted"](pair, rng), rng)
    np.testing.assert_array_equal(twice.pixels, pair.pixels)


def test_no_lung_behind_the_blades(pair):
    found = DISTURBANCES["collimated"](pair, np.random.default_rng(4))
    hidden = found.pixels != pair.pixels
    assert hidden.any()
    assert not found.mask[hidden].any()


def test_picture_and_mask_move_together(pair):
    both = Pair(pair.mask, pair.mask)
    for seed in range(5):
        found = DISTURBANCES["rotated"](both, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.pixels, found.mask)


def test_flip_alone_is_a_mirror_image(pair):
    found = move(pair, 0, flip=True)
    np.testing.assert_array_equal(found.pixels, pair.pixels[:, ::-1])
    np.testing.assert_array_equal(found.mask, pair.mask[:, ::-1])


def test_quarter_turn_is_numpys(pair):
    np.testing.assert_array_equal(move(pair, 90).mask, np.rot90(pair.mask))


def test_disturb_is_a_function_of_its_generator(pair):
    first, again, other = (disturb(pair, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.pixels != other.pixels).any()
