"""Writing: whole or not at all, and disk errors in plain words."""

import os
import stat

import numpy as np
import pytest

from histcxr.exceptions import InputError, OutputError
from histcxr.files.writing import encode_image, replacing, write_error, write_image, write_mask


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_when_the_block_ends(tmp_path, before):
    path = tmp_path / "result.json"
    if before:
        path.write_text(before)
        path.chmod(0o600)
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert (unfinished.parent, unfinished.suffix) == (tmp_path, ".json")
        assert path.exists() == bool(before)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.json"]
    if before:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, folder, error):
    path = tmp_path / "result"
    inside = path / "part" if folder else path
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("old")

    def write_half():
        with replacing(path, folder=folder) as unfinished:
            (unfinished / "part" if folder else unfinished).write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert inside.read_text() == "old"
    assert os.listdir(tmp_path) == ["result"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for number in range(2):
        with replacing(path, folder=True) as unfinished:
            (unfinished / "deep").mkdir()
            (unfinished / "deep" / f"{number}.txt").write_text("text")
        assert os.listdir(path / "deep") == [f"{number}.txt"]
        assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_cannot_move_in_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    real = os.rename

    def refuse(self, target):
        if str(target) == str(path) and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        real(self, target)

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(OutputError, match="model: cannot be written"), replacing(path, folder=True):
        pass
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_and_a_file_do_not_replace_each_other(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"), replacing(tmp_path / "file", folder=True):
        pass
    with pytest.raises(OutputError, match="is a folder"), replacing(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_links_are_followed_and_pipes_are_written_directly(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    with replacing(os.devnull) as unfinished:
        unfinished.write_text("gone")
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("name", ["missing/result", "x" * 255])
def test_a_place_that_cannot_be_written(tmp_path, name):
    if name == "x" * 255:  # the longest name that there may be
        with replacing(tmp_path / name):
            pass
        assert os.listdir(tmp_path) == [name]
        return
    with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (28, "the disk is full .*goes on where it stopped"),
        (13, "may not be written"),
        (5, "cannot be written"),
    ],
)
def test_errors_of_the_disk_in_plain_words(tmp_path, number, words):
    with pytest.raises(OutputError, match=rf"w\.csv: {words}"):
        raise write_error("w.csv", OSError(number, os.strerror(number)))
    with pytest.raises(OutputError, match=rf"w\.csv: {words}"), replacing(tmp_path / "w.csv"):
        raise OSError(number, os.strerror(number))


def test_images_that_cannot_be_written(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    with pytest.raises(InputError, match="must name an image format"):
        encode_image(pixels, ".nothing")
    (tmp_path / "file").touch()
    for write, name in ((write_image, "a.png"), (write_mask, "m.png")):
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / "file" / name, pixels)
