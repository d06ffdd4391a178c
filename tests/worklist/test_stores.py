"""A triage of objects is that of files: the same rows, also where the store fails; what is lost comes later."""

import json
import shutil

import pytest

from histcxr.data.discovery import find_inputs
from histcxr.exceptions import InputError
from histcxr.files import remote
from histcxr.worklist.engine import triage


def rows(path):
    return path.read_bytes()


@pytest.fixture
def incoming(study, tmp_path):
    """The study, and what lies about in folders."""
    folder = tmp_path / "incoming"
    shutil.copytree(study, folder)
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "a" / "empty.png").write_bytes(b"")
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "DICOMDIR").write_bytes(b"x")
    (folder / "masks" / "of nobody.png").write_bytes(b"x")
    return folder


@pytest.fixture
def local(incoming, model, tmp_path):
    result = triage(incoming, model, tmp_path / "local.csv", segment=False)
    return result, tmp_path / "local.csv"


def test_a_bucket_gives_the_rows_of_its_folder(s3, incoming, local, model, tmp_path):
    url = s3.fill("whole", incoming, "in")
    found = triage(url, model, tmp_path / "s3.csv", segment=False)
    assert rows(tmp_path / "s3.csv") == rows(local[1])
    assert (found.skipped, found.reasons, found.exit_code) == (local[0].skipped, local[0].reasons, 3)
    again = triage(url, model, tmp_path / "s3.csv", segment=False)
    assert again.resumed == found.total - found.reasons.get("unreachable", 0)
    trail = (tmp_path / "s3.csv.audit.jsonl").read_text()
    assert json.loads(trail.splitlines()[0])["input"] == url


def test_masks_and_images_may_be_in_different_places(s3, study, model, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(study, images, ignore=shutil.ignore_patterns("masks"))
    url, masks = s3.fill("images", images), s3.fill("masks", study / "masks")
    wanted = [(one.relative, bool(one.mask)) for one in find_inputs(images, study / "masks")]
    assert all(mask for _, mask in wanted)
    for where, whose in ((url, study / "masks"), (images, masks), (url, masks)):
        assert [(one.relative, bool(one.mask)) for one in find_inputs(where, whose)] == wanted


def test_a_list_in_a_store_and_a_list_of_objects(s3, study, model, tmp_path):
    names = sorted(path.relative_to(study).as_posix() for path in study.glob("[ab]/*.png"))
    (tmp_path / "lists").mkdir()
    inside = "image,mask\n" + "".join(f"{name},masks/{name}\n" for name in names)
    (study / "list.csv").write_text(inside)
    url = s3.fill("listed", study)
    (study / "list.csv").unlink()
    triage(f"{url}/list.csv", model, tmp_path / "theirs.csv", segment=False)
    outside = "image,mask\n" + "".join(f"{url}/{name},{url}/masks/{name}\n" for name in names)
    (tmp_path / "ours.csv").write_text(outside)
    triage(tmp_path / "ours.csv", model, tmp_path / "out.csv", segment=False)
    triage(study, model, tmp_path / "local.csv", segment=False)
    assert rows(tmp_path / "theirs.csv") == rows(tmp_path / "local.csv")
    assert rows(tmp_path / "out.csv").replace(f"{url}/".encode(), b"") == rows(tmp_path / "local.csv")
    (tmp_path / "manifest.csv").write_text(outside)
    with pytest.raises(InputError, match="leads out of its folder"):  # nobody asked for the network
        find_inputs(tmp_path)


@pytest.mark.parametrize("faults", [("error", "reset", "truncated"), ("stalled",)])
def test_a_store_that_fails_one_request_in_ten_loses_nothing(
    faults, s3, incoming, local, model, tmp_path, monkeypatch
):
    url = s3.fill("faulty", incoming, "in")
    if faults == ("stalled",):
        monkeypatch.setattr(remote, "SECONDS", 0.5)
    proxy = s3.failing(every=10, faults=faults, stall=3)
    triage(url, model, tmp_path / "s3.csv", segment=False)
    assert rows(tmp_path / "s3.csv") == rows(local[1])
    assert proxy.failed.total() >= 5


def test_what_cannot_be_fetched_is_a_row_and_comes_with_the_next_run(
    s3, incoming, local, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "TRIES", 2)
    url = s3.fill("lost", incoming, "in")
    s3.failing(
        faults=("error",), refused=("in/a/image%2002.png", "in/masks/b/image%2003.png"), methods=("GET",)
    )
    found = triage(url, model, tmp_path / "s3.csv", segment=False)
    assert found.total == local[0].total
    assert found.reasons["unreachable"] == 2
    assert found.exit_code == 3
    assert "2 tries: 2 x" in (tmp_path / "s3.csv").read_text()
    s3.failing()
    again = triage(url, model, tmp_path / "s3.csv", segment=False)
    assert again.resumed == found.total - 2
    assert rows(tmp_path / "s3.csv") == rows(local[1])


def test_a_folder_that_cannot_be_listed_is_a_row(s3, incoming, local, model, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "TRIES", 2)
    url = s3.fill("closed", incoming, "in")
    s3.failing(faults=("error",), refused=("prefix=in%2Fb%2F",))
    found = triage(url, model, tmp_path / "s3.csv", segment=False)
    assert found.reasons["unreachable"] == 1
    assert found.total == local[0].total - 11 + 1
