import csv
import os

import numpy as np
import pandas as pd
import pytest

from histcxr.data.discovery import find_inputs
from histcxr.data.manifest import COLUMNS, is_sick, read_manifest
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.phantoms.studies import write_study, write_unusual_files


@pytest.fixture
def listed(tmp_path):
    """Write a manifest.csv and read it."""

    def write(text, **options):
        (tmp_path / "manifest.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
        return read_manifest(tmp_path, **options)

    return write


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def rows(folder, table):
    """(image, mask, label, split), the paths relative."""
    short = [[os.path.relpath(p, folder) if p else "" for p in table[c]] for c in ("image", "mask")]
    return list(zip(*short, table["label"], table["split"], strict=True))


def test_classes_with_masks_beside(tmp_path):
    touch(tmp_path, "A/images/1.png", "A/images/2.JPG", "A/masks/1.png", "A/masks/2.png", "B/images/1.png")
    assert rows(tmp_path, read_manifest(tmp_path)) == [
        ("A/images/1.png", "A/masks/1.png", "A", ""),
        ("A/images/2.JPG", "A/masks/2.png", "A", ""),
        ("B/images/1.png", "", "B", ""),
    ]


def test_classes_with_masks_mirrored(tmp_path):
    touch(tmp_path, "A/1.png", "B/1.png", "masks/A/1.png", "masks/B/1.bmp", "masks_published/A/1.png")
    assert rows(tmp_path, read_manifest(tmp_path)) == [
        ("A/1.png", "masks/A/1.png", "A", ""),
        ("B/1.png", "masks/B/1.bmp", "B", ""),
    ]


def test_splits_and_classes(tmp_path):
    touch(
        tmp_path,
        "train/A/1.png",
        "Valid/B/2.png",
        "test/A/images/3.png",
        "test/A/masks/3.png",
        "masks/train/A/1.png",
    )
    assert rows(tmp_path, read_manifest(tmp_path)) == [
        ("Valid/B/2.png", "", "B", "val"),
        ("test/A/images/3.png", "test/A/masks/3.png", "A", "test"),
        ("train/A/1.png", "masks/train/A/1.png", "A", "train"),
    ]


def test_no_classes(tmp_path):
    touch(tmp_path, "1.png", "2.dcm", "masks/1.png", "notes.txt")
    assert rows(tmp_path, read_manifest(tmp_path)) == [
        ("1.png", "masks/1.png", "", ""),
        ("2.dcm", "", "", ""),
    ]
    touch(tmp_path / "other", "images/1.png", "masks/1.png")
    assert rows(tmp_path / "other", read_manifest(tmp_path / "other")) == [
        ("images/1.png", "masks/1.png", "", "")
    ]


@pytest.mark.parametrize("layout", ["classes-masks", "classes", "split-classes"])
@pytest.mark.parametrize("manifest", [True, False])
def test_studies_read_alike_with_and_without_a_list(tmp_path, layout, manifest):
    write_study(tmp_path, n_patients=12, layout=layout, size=(64, 64), mask_size=(64, 64))
    if not manifest:
        (tmp_path / "manifest.csv").unlink()
    table = read_manifest(tmp_path, require_labels=True)
    assert list(table.columns[:6]) == list(COLUMNS)
    assert len(table) == 14
    assert set(table["label"]) == {"Normal", "Lung_Opacity"}
    assert all(os.path.isabs(p) and os.path.isfile(p) for p in [*table["image"], *table["mask"]])
    assert (table["patient_id"] != "").all() == manifest
    if layout == "split-classes":
        assert set(table["split"]) == {"train", "val", "test"}


def test_a_list_wins_over_the_layout(tmp_path, listed):
    touch(tmp_path, "A/1.png", "A/2.png")
    table = listed("image,label\nA/2.png,B\n")
    assert rows(tmp_path, table) == [("A/2.png", "", "B", "")]
    (tmp_path / "manifest.csv").rename(tmp_path / "other.csv")
    assert rows(tmp_path, read_manifest(tmp_path / "other.csv")) == [("A/2.png", "", "B", "")]
    assert len(read_manifest(tmp_path)) == 2


def test_values_keep_their_kind(listed):
    table = listed(
        "\ufeffimage, label ,patient_id,age,number,code,flag,note,empty\n"
        "a.png,Normal,007,40,1.5,007,True,NA,\n"
        "b.png, 1 ,8,,2,08,False,x,\n"
        "\n"
    )
    assert list(table["patient_id"]) == ["007", "8"]
    assert list(table["label"]) == ["Normal", "1"]
    assert table["age"].tolist()[0] == 40
    assert np.isnan(table["age"][1])
    assert table["number"].tolist() == [1.5, 2.0]
    assert table["code"].tolist() == ["007", "08"]
    assert table["flag"].dtype == bool
    assert table["note"].tolist() == ["NA", "x"]
    assert table["empty"].tolist() == ["", ""]
    assert list(table.columns[6:]) == ["age", "number", "code", "flag", "note", "empty"]


def test_paths_are_relative_to_the_list_and_files_may_be_missing(tmp_path, listed):
    text = "image,mask\nx/a.png,x/m.png\n/abs/b.png,\n../c.png,\n"
    with pytest.raises(InputError, match="leads out of its folder"):
        listed(text)
    (tmp_path / "list.csv").write_text(text)
    table = read_manifest(tmp_path / "list.csv")
    assert table["image"].tolist() == [f"{tmp_path}/x/a.png", "/abs/b.png", f"{tmp_path.parent}/c.png"]
    assert table["mask"].tolist() == [f"{tmp_path}/x/m.png", "", ""]


def test_names_of_every_kind(tmp_path):
    names = write_unusual_files(tmp_path)
    with open(os.fsencode(tmp_path / "latin-") + b"\xe9.png", "wb"):
        pass
    table = read_manifest(tmp_path)
    assert {os.path.basename(path) for path in table["image"]} == {*names, os.fsdecode(b"latin-\xe9.png")}
    with open(tmp_path / "manifest.csv", "w", errors="surrogateescape", newline="") as stream:
        csv.writer(stream).writerows([["image"], *([os.path.basename(path)] for path in table["image"])])
    assert read_manifest(tmp_path)["image"].tolist() == table["image"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must have a column 'image'; it has \[\]"),
        ("file,label\na,b\n", r"must have a column 'image'; it has \['file', 'label'\]"),
        ("image;label\na;b\n", r"separated by commas"),
        ("image,label,label\na,b,c\n", r"must not have a column twice; it repeats \['label'\]"),
        ("image,label\n", "lists no image"),
        ("image,label\na.png,x\n,y\n", "line 3: the column 'image' is empty"),
        ("image,label\na.png\n", "line 2: 1 values for 2 columns"),
        ("image\na.png\n./a.png\n", "must be listed once"),
        ("image,split\na.png,holdout\n", "must hold train, val or test; it holds 'holdout'"),
        ('image\n"' + "x" * 200_000 + '"\n', "field larger than field limit"),
    ],
)
def test_lists_that_cannot_be_used(listed, text, message):
    with pytest.raises(InputError, match=message):
        listed(text)


def test_words_for_splits(listed):
    table = listed("image,split\na,Training\nb,valid\nc,TEST\nd,\ne,dev\n")
    assert table["split"].tolist() == ["train", "val", "test", "", "val"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="there is nothing at"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(InputError, match="holds no image"):
        read_manifest(tmp_path)
    touch(tmp_path, "1.png", "A/2.png")
    with pytest.raises(InputError, match="1 of 2 in .* have none, the first is .*1.png"):
        read_manifest(tmp_path, require_labels=True)


def test_folders_that_are_not_read_are_told(tmp_path):
    touch(tmp_path, "A/1.png")
    (tmp_path / "A" / "up").symlink_to("..")
    with pytest.warns(HistcxrWarning, match="up' was not read: a symbolic link leads back"):
        assert len(read_manifest(tmp_path)) == 1


def test_broken_images_are_rows(tmp_path):
    touch(tmp_path, "A/1.png")
    (tmp_path / "A" / "2.png").symlink_to("missing.png")
    assert rows(tmp_path, read_manifest(tmp_path))[1] == ("A/2.png", "", "A", "")


def test_is_sick():
    labels = ["Normal", "NORMAL", " normal ", "No Finding", "0", "0.0", "COVID", "1", "abnormal"]
    assert is_sick(labels).tolist() == [False] * 6 + [True] * 3
    assert is_sick(np.array([0, 1, 2])).tolist() == [False, True, True]
    assert is_sick([False, True]).tolist() == [False, True]
    assert is_sick(pd.Series(["a", "b"]), normal="B").tolist() == [True, False]
    assert is_sick(["Normal"], normal="healthy").tolist() == [True]
    assert is_sick([]).dtype == bool
    for blank in ("", " ", None, np.nan):
        with pytest.raises(InputError, match="must not be blank; 1 of 2"):
            is_sick(["Normal", blank])


def test_radiographs_in_a_folder_of_masks_are_told(tmp_path):
    touch(
        tmp_path,
        "A/1.png",
        "A/masks/1.png",
        "MASK/radiograph.png",
        "masks_2020/other.dcm",
        "masks_2020/1.png",
    )
    with pytest.warns(HistcxrWarning, match="2 files in folders of masks have no image's name"):
        assert len(read_manifest(tmp_path)) == 1


def test_a_list_that_a_folder_holds_may_not_name_masks_elsewhere(tmp_path):
    touch(tmp_path, "in/1.png", "out/1.png")
    (tmp_path / "in" / "manifest.csv").write_text("image,mask\n1.png,../out/1.png\n")
    for read in (read_manifest, find_inputs):
        with pytest.raises(InputError, match="line 2, leads out of its folder"):
            read(tmp_path / "in")
    assert read_manifest(tmp_path / "in" / "manifest.csv")["mask"].tolist() == [str(tmp_path / "out/1.png")]
