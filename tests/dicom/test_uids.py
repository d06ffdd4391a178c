"""Identifiers are read from the first bytes of any DICOM file, and never make trouble."""

import random

import numpy as np
import pytest

from histcxr.dicom import tags as dicom_uids
from histcxr.dicom.tags import BEGINNING, ImageUids, read_uids
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import SYNTAXES
from histcxr.phantoms.mutations import MUTATIONS

pytest.importorskip("pydicom")

IMAGE = make_phantom(3, size=(300, 280)).image
UIDS = ImageUids("1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.10008.5.1.4.1.1.1")
TAGS = {
    "StudyInstanceUID": UIDS.study_uid,
    "SeriesInstanceUID": UIDS.series_uid,
    "SOPInstanceUID": UIDS.sop_uid,
}


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax(make_dicom, tmp_path, syntax):
    path = write(tmp_path / "image", make_dicom(IMAGE, syntax=syntax, **TAGS))
    assert read_uids(path) == UIDS


def test_without_meta_information(make_dicom, tmp_path):
    assert read_uids(write(tmp_path / "image", make_dicom(IMAGE, file_meta=False, **TAGS))) == UIDS


def test_pixels_are_not_read(make_dicom, tmp_path, monkeypatch):
    data = make_dicom(IMAGE, **TAGS)
    path = write(tmp_path / "image", data)
    read = []

    def counted(*arguments):
        read.append(len(found := original(*arguments)))
        return found

    original = dicom_uids.read_file
    monkeypatch.setattr(dicom_uids, "read_file", counted)
    assert read_uids(path) == UIDS
    assert read == [BEGINNING]
    assert len(data) > 2 * BEGINNING


def test_identifiers_behind_much_else(make_dicom, tmp_path):
    data = make_dicom(IMAGE, **TAGS)
    place = data.index(b"\x20\x00\x0d\x00UI")
    private = b"\x09\x00\x01\x10OB\0\0" + (2**17).to_bytes(4, "little") + bytes(2**17)
    assert read_uids(write(tmp_path / "image", data[:place] + private + data[place:])) == UIDS


def test_what_is_missing_or_invalid_is_empty(make_dicom, tmp_path):
    data = make_dicom(IMAGE, StudyInstanceUID="1.2.840.1")
    assert read_uids(write(tmp_path / "a", data)) == ImageUids("1.2.840.1", "", "1.2.3.4", UIDS.sop_class)
    data = make_dicom(IMAGE, **TAGS).replace(b"1.2.840.2", b"=1+2.8.02")
    assert read_uids(write(tmp_path / "b", data)) == UIDS._replace(series_uid="")
    data = make_dicom(IMAGE, **TAGS).replace(b"1.2.840.2", b"1.2.040.2")  # no leading zeros
    assert read_uids(write(tmp_path / "c", data)).series_uid == ""


def test_other_files_have_none(tmp_path):
    assert read_uids(write(tmp_path / "a.png", encode_image(IMAGE))) == ImageUids()
    assert read_uids(write(tmp_path / "empty", b"")) == ImageUids()
    assert read_uids(tmp_path / "missing") == ImageUids()
    assert read_uids(tmp_path) == ImageUids()


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_gives_valid_identifiers_or_none(make_dicom, tmp_path, name):
    rng = random.Random(name)
    sound = [
        make_dicom(IMAGE.astype(np.uint16), syntax=syntax, **TAGS) for syntax in ("explicit", "deflated")
    ]
    for _ in range(40):
        path = write(tmp_path / "image", MUTATIONS[name](rng.choice(sound), rng, sound))
        for value in read_uids(path):
            assert value == "" or set(value) <= set("0123456789.")
            assert len(value) <= 64
