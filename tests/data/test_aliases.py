"""Keyed names instead of file names: stable, leading back by the key alone, and every input keeps its row."""

import csv
import os
import stat

import numpy as np
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.data.aliases import NAMES, alias_files
from histcxr.data.discovery import find_inputs
from histcxr.files.cells import unguarded
from histcxr.files.writing import encode_image, write_mask
from histcxr.phantoms.anatomy import make_phantom

SECRET = "Doe^Jane"


@pytest.fixture
def archive(tmp_path):
    """Radiographs called after a patient, with masks; a broken one, a pipe, a link that leads nowhere, a list."""
    top = tmp_path / f"{SECRET}-archive"
    for number in range(4):
        phantom = make_phantom(number, sick=number % 2 == 1, size=(128, 128))
        place = top / f"{SECRET}{number % 2}" / f"{SECRET}{number}.PNG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_image(phantom.image))
        write_mask(place.parent / "masks" / f"{SECRET}{number}.png", phantom.mask)
    (top / f"{SECRET}.dcm").write_bytes(b"cut off")
    os.mkfifo(top / f"{SECRET}.png")
    (top / f"{SECRET}.jpg").symlink_to("nowhere")
    (top / f"={SECRET}.{SECRET}").write_text("no image")
    os.symlink(top, top / SECRET)
    return top


def histcxr(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def rows(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [{key: unguarded(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_names_are_stable_and_lead_back(archive, tmp_path):
    first = alias_files(archive, tmp_path / "keys", salt="one")
    before = (tmp_path / "keys" / NAMES).read_bytes()
    again = alias_files(archive, tmp_path / "keys", salt="one")
    assert first == again
    assert (tmp_path / "keys" / NAMES).read_bytes() == before
    assert first.files == len(list(find_inputs(archive))) == 8
    key = {row["image"]: row["path"] for row in rows(tmp_path / "keys" / NAMES)}
    listed = rows(first.listed)
    assert {key[row["image"]] for row in listed} == {entry.path for entry in find_inputs(archive)}
    assert {key[row["mask"]] for row in listed if row["mask"]} == {
        e.mask for e in find_inputs(archive) if e.mask
    }
    for name, path in key.items():
        assert os.readlink(tmp_path / "keys" / name) == path
        assert SECRET not in name
    assert alias_files(archive, tmp_path / "more", salt="one").listed.endswith(os.path.basename(first.listed))
    other = alias_files(archive, tmp_path / "other", salt="two")
    assert not {row["image"] for row in rows(other.listed)} & set(key)


def test_only_the_owner_reads_the_key(archive, tmp_path):
    old = os.umask(0)
    try:
        first = alias_files(archive, tmp_path / "keys")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for name in (NAMES, "secret"):
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600
    assert alias_files(archive, tmp_path / "keys") == first  # the folder keeps its own secret
    random = alias_files(archive, tmp_path / "again")
    assert os.path.basename(random.listed) != os.path.basename(first.listed)


def test_a_triage_is_the_same_under_other_names(archive, tmp_path):
    """Decisions and scores as without; it goes on; nothing written or said holds a name."""
    histcxr("triage", archive, "-o", tmp_path / "plain.csv")
    call = ["triage", archive, "-o", tmp_path / "w.csv", "--anonymous-names", tmp_path / "keys"]
    call += ["--json", tmp_path / "w.json", "--report", tmp_path / "w.html"]
    said = [histcxr(*call), histcxr(*call)]
    assert [one.exit_code for one in said] == [3, 3], said[0].output
    assert f'"resumed": {8}' in (tmp_path / "w.json").read_text()
    key = {row["image"]: row["path"] for row in rows(tmp_path / "keys" / NAMES)}
    plain = {os.path.join(archive, row["file"]): row for row in rows(tmp_path / "plain.csv")}
    found = {key[row["file"]]: row for row in rows(tmp_path / "w.csv")}
    assert set(found) == set(plain)
    for path, row in found.items():
        assert [row[name] for name in ("decision", "score")] == [
            plain[path][name] for name in ("decision", "score")
        ]
        assert bool(row["reason_code"]) == bool(plain[path]["reason_code"])
    for path in tmp_path.glob("w.*"):
        assert SECRET.encode() not in path.read_bytes()
    after = [line for one in said for line in one.output.splitlines()]
    assert not [line for line in after if SECRET in line]


def test_a_mask_that_nobody_can_tell_stays_so(tmp_path):
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "1.png").write_bytes(encode_image(make_phantom(1).image))
    write_mask(tmp_path / "masks" / "1.png", np.ones((8, 8), bool))
    more = ["--masks", tmp_path / "masks"]
    histcxr("triage", tmp_path / "in", "-o", tmp_path / "plain.csv", *more)
    histcxr(
        "triage", tmp_path / "in", "-o", tmp_path / "w.csv", "--anonymous-names", tmp_path / "keys", *more
    )
    codes = [[row["reason_code"] for row in rows(tmp_path / name)] for name in ("plain.csv", "w.csv")]
    assert codes == [["mask_missing"] * 2] * 2


def test_keys_lie_apart(archive, tmp_path):
    inside = histcxr("triage", archive, "-o", tmp_path / "w.csv", "--anonymous-names", archive / "keys")
    assert inside.exit_code == 2
    nameless = histcxr("triage", archive, "--anonymous-names", tmp_path / "keys")
    assert nameless.exit_code == 2
    assert "needs --output" in nameless.output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    full = histcxr("triage", archive, "-o", tmp_path / "w.csv", "--anonymous-names", tmp_path / "mine")
    assert full.exit_code == 2
    assert not (tmp_path / "w.csv").exists()


def test_a_list_keeps_its_columns(archive, tmp_path):
    (archive / "list.csv").write_text(f"label,image,patient_id\nNormal,{SECRET}0/{SECRET}0.PNG,=p1\n")
    (row,) = rows(alias_files(archive / "list.csv", tmp_path / "keys").listed)
    assert (row["label"], row["patient_id"], row["mask"]) == ("Normal", "=p1", "")
