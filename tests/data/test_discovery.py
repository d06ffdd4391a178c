import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from histcxr.data.discovery import find_inputs
from histcxr.exceptions import InputError, Reason


def touch(folder, *names):
    for name in names:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder, masks=None):
    """relative name -> relative mask or problem."""
    entries = list(find_inputs(folder, masks))
    base = folder if os.path.isdir(folder) else os.path.dirname(folder)
    result = {e.relative: e.problem or (os.path.relpath(e.mask, base) if e.mask else "") for e in entries}
    assert len(result) == len(entries)
    return result


def test_what_is_an_image_and_what_is_counted(tmp_path):
    touch(tmp_path, "a.png", "b.JPEG", "c.TIF", "d.dcm", "e", "1.2.840.113", "f.bmp")
    touch(tmp_path, "notes.txt", "more.TXT", "table.xlsx", ".hidden.png", ".git/x.png", "Thumbs.db")
    inputs = find_inputs(tmp_path)
    assert inputs.skipped == {}
    assert [e.relative for e in inputs] == ["1.2.840.113", "a.png", "b.JPEG", "c.TIF", "d.dcm", "e", "f.bmp"]
    assert inputs.skipped == {".txt": 2, ".xlsx": 1, ".db": 1, "hidden": 2}
    assert all(
        os.path.isabs(e.path) and e.problem is None and e.explanation == "" for e in find_inputs(tmp_path)
    )


def test_order_is_fixed_whatever_the_disk_says(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{a}/{b}.png" for a in "bca" for b in "321"), "a.png", "z.png")
    expected = ["a/1.png", "a/2.png", "a/3.png", "a.png", "b/1.png", "b/2.png", "b/3.png"]
    expected += ["c/1.png", "c/2.png", "c/3.png", "z.png"]
    assert list(found(tmp_path)) == expected
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

        def close(self):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert list(found(tmp_path)) == expected


def test_masks_where_they_are_looked_for(tmp_path):
    touch(tmp_path, "A/images/1.png", "A/masks/1.png", "B/1.jpg", "B/masks/1.PNG", "C/1.png", "masks/C/1.tif")
    touch(tmp_path, "1.png", "masks/1.png", "D/images/1.png", "masks/D/1.png", "2.png")
    assert found(tmp_path) == {
        "1.png": "masks/1.png",
        "2.png": "",
        "A/images/1.png": "A/masks/1.png",
        "B/1.jpg": "B/masks/1.PNG",
        "C/1.png": "masks/C/1.tif",
        "D/images/1.png": "masks/D/1.png",
    }


def test_masks_in_a_folder_of_their_own(tmp_path):
    touch(tmp_path, "in/A/1.png", "in/A/images/2.png", "in/3.png", "in/A/masks/1.png")
    touch(tmp_path, "mirror/A/1.png", "mirror/A/2.png", "mirror/3.bmp")
    assert found(tmp_path / "in", tmp_path / "mirror") == {
        "3.png": "../mirror/3.bmp",
        "A/1.png": "../mirror/A/1.png",
        "A/images/2.png": "../mirror/A/2.png",
    }
    touch(tmp_path, "flat/1.png", "flat/2.tif")
    assert found(tmp_path / "in", tmp_path / "flat") == {
        "3.png": "",
        "A/1.png": "../flat/1.png",
        "A/images/2.png": "../flat/2.tif",
    }


def test_a_mask_never_serves_two_images(tmp_path):
    """Side by side, the mask of A/1 could be that of B/1: neither may have it."""
    touch(tmp_path, "in/A/1.png", "in/B/1.png", "in/B/2.png", "flat/1.png", "flat/2.png")
    assert found(tmp_path / "in", tmp_path / "flat") == {
        "A/1.png": Reason.MASK_MISSING,
        "B/1.png": Reason.MASK_MISSING,
        "B/2.png": "../flat/2.png",
    }
    entry = next(find_inputs(tmp_path / "in", tmp_path / "flat"))
    assert "several images are called '1'" in entry.explanation


def test_masks_inside_the_folder_are_no_inputs(tmp_path):
    touch(tmp_path, "1.png", "segmentations/1.png")
    assert found(tmp_path, tmp_path / "segmentations") == {"1.png": "segmentations/1.png"}


def test_links_and_other_beings(tmp_path):
    touch(tmp_path, "in/a/1.png", "elsewhere/2.png")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "gone.png").symlink_to("missing")
    (tmp_path / "in" / "file link.png").symlink_to("a/1.png")
    (tmp_path / "in" / "folder link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "a" / "up").symlink_to("..")
    (tmp_path / "in" / "a" / "far up").symlink_to(tmp_path.parent)
    (tmp_path / "in" / "a" / "here").symlink_to(".")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe")
    assert found(tmp_path / "in") == {
        "a/1.png": "",
        "a/far up": Reason.LINK_LOOP,
        "a/here": Reason.LINK_LOOP,
        "a/up": Reason.LINK_LOOP,
        "file link.png": "",
        "folder link/2.png": "",
        "folder link/back": Reason.LINK_LOOP,
        "gone.png": Reason.NOT_FOUND,
        "pipe": Reason.NOT_A_FILE,
        "self": Reason.LINK_LOOP,
    }


def test_files_in_mask_folders_are_counted(tmp_path):
    touch(tmp_path, "1.png", "MASK/2.png", "a/masks_2020/b/3.png", "a/masks_2020/4.png")
    inputs = find_inputs(tmp_path)
    assert [entry.relative for entry in inputs] == ["1.png"]
    assert inputs.skipped == {"files in folders of masks": 3}


def test_links_that_double_a_folder_give_each_file_once(tmp_path):
    touch(tmp_path, *(f"in/{level}/{level}.png" for level in range(20)), "elsewhere/deep/x.png")
    for level in range(19):
        for name in "ab":
            (tmp_path / "in" / str(level) / name).symlink_to(f"../{level + 1}")
    for name in ("l1", "l2"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "deep").symlink_to(tmp_path / "elsewhere" / "deep")
    inputs = find_inputs(tmp_path / "in")
    names = sorted(os.path.basename(entry.path) for entry in inputs)
    assert names == sorted([*(f"{level}.png" for level in range(20)), "x.png"])
    assert inputs.skipped == {"links to folders": 40}


def test_closed_folder(tmp_path):
    touch(tmp_path, "in/1.png", "in/closed/2.png")
    (tmp_path / "in" / "closed").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(0o755)
    code = (
        "import os, sys\n"
        "from histcxr.data.discovery import find_inputs\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for e in find_inputs(sys.argv[1]): print(e.relative, e.problem, e.detail)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")], capture_output=True, text=True, check=True
    )
    (tmp_path / "in" / "closed").chmod(0o755)
    assert done.stdout.splitlines() == ["1.png None ", "closed permission a folder"]


def test_a_folder_that_vanishes_on_the_way(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    inputs = find_inputs(tmp_path)
    assert next(inputs).relative == "a/1.png"
    (tmp_path / "b" / "2.png").unlink()
    (tmp_path / "b").rmdir()
    assert [(e.relative, e.problem) for e in inputs] == [("b", Reason.NOT_FOUND)]


def test_names_of_every_kind(tmp_path):
    names = ["a b.png", "a\nb.png", "=1.png", "'\".png", "ü肺.png", os.fsdecode(b"\xff\xe9.png")]
    for name in names:
        (tmp_path / name).touch()
    assert set(found(tmp_path)) == set(names)


def test_deep_folders(tmp_path):
    here = tmp_path
    for _ in range(400):
        here = here / "d"
    here.mkdir(parents=True)
    (here / "1.png").touch()
    assert len(list(find_inputs(tmp_path))) == 1


def test_single_file(tmp_path):
    touch(tmp_path, "A/images/1.png", "A/masks/1.png", "m.png")
    (entry,) = find_inputs(tmp_path / "A" / "images" / "1.png")
    assert (entry.relative, entry.mask) == ("1.png", str(tmp_path / "A/masks/1.png"))
    (entry,) = find_inputs(tmp_path / "A" / "images" / "1.png", tmp_path / "m.png")
    assert entry.mask == str(tmp_path / "m.png")


def test_lists(tmp_path):
    touch(tmp_path, "x/1.png", "other/1.png")
    (tmp_path / "manifest.csv").write_text(
        "label,mask,image\nA,m/1.png,x/1.png\nB,,missing.png\nC,,/abs/2.png\n"
    )
    expected = {"x/1.png": "m/1.png", "missing.png": "", "/abs/2.png": ""}
    assert found(str(tmp_path / "manifest.csv")) == expected
    with pytest.raises(InputError, match="line 4, leads out of its folder.*give the list itself"):
        find_inputs(tmp_path)
    (tmp_path / "manifest.csv").write_text("image\nx/1.png\n")
    assert "manifest.csv lists" in find_inputs(tmp_path).notes[0]
    assert [e.mask for e in find_inputs(tmp_path, tmp_path / "other")] == [str(tmp_path / "other/1.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na\n", "must have a column 'image'"),
        ("image\na\nb\n./a\n", "must be listed once; .* repeats .* in line 4"),
        ("image\n", "lists no image"),
        ("image,x\na\n", "line 2: 1 values for 2 columns"),
    ],
)
def test_lists_are_checked_before_the_first_entry(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_inputs(tmp_path / "list.csv")


def test_arguments_that_lead_nowhere(tmp_path):
    touch(tmp_path, "1.png", "in/1.png")
    with pytest.raises(InputError, match="there is nothing at"):
        find_inputs(tmp_path / "missing")
    with pytest.raises(InputError, match="masks must be a folder; there is nothing at"):
        find_inputs(tmp_path, tmp_path / "missing")
    with pytest.raises(InputError, match="is a file"):
        find_inputs(tmp_path / "in", tmp_path / "1.png")
    assert list(find_inputs(tmp_path / "in", tmp_path / "in")) != []


def test_memory_does_not_grow_with_the_number_of_folders(tmp_path):
    for folder in range(60):
        touch(tmp_path, *(f"{folder:03d}/{name:03d}.png" for name in range(50)))

    def peak(folder):
        tracemalloc.start()
        count = sum(1 for _ in find_inputs(folder))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return count, size

    one, all_ = peak(tmp_path / "000"), peak(tmp_path)
    assert (one[0], all_[0]) == (50, 3000)
    assert all_[1] < 3 * one[1] + 10_000


def test_a_folder_that_links_reach_in_several_ways_is_searched_once(tmp_path):
    """Outside the folder, too: chains of doubling links, and a link into what another link led to."""
    outside = tmp_path / "outside"
    for level in range(12):
        touch(outside, f"{level}/1.png")
        if level:
            for name in ("a", "b"):
                (outside / str(level - 1) / name).symlink_to(outside / str(level))
    touch(outside, "0/deep/sub/1.png")
    top = tmp_path / "top"
    touch(top, "1.png")
    for name, target in (("l0", "0"), ("l1", "0/deep"), ("l2", "0/deep/sub"), ("l3", "5")):
        (top / name).symlink_to(outside / target)
    entries = find_inputs(top)
    real = [os.path.realpath(entry.path) for entry in entries]
    assert len(real) == len(set(real)) == 1 + 12 + 1
    assert entries.skipped["links to folders"] >= 3


def test_masks_are_known_by_another_name_of_their_folder(tmp_path):
    touch(tmp_path, "in/1.png", "in/outlines/1.png")
    (tmp_path / "other").symlink_to(tmp_path / "in" / "outlines")
    (entry,) = find_inputs(tmp_path / "in", tmp_path / "other")
    assert entry.relative == "1.png"


def test_a_closed_folder_of_masks_is_an_entry(tmp_path, monkeypatch):
    touch(tmp_path, "1.png", "MASK/radiograph.png", "MASK/closed/2.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    entries = find_inputs(tmp_path)
    assert {entry.relative: entry.problem for entry in entries} == {
        "1.png": None,
        "MASK/closed": Reason.PERMISSION,
    }
    assert entries.skipped["files in folders of masks"] == 1
