"""What DICOM tags decide, which facts are kept, and how the identifiers are found."""

import random

import numpy as np
import pytest

from benchmarks.mutations import MUTATIONS
from histcxr.data.discovery import find_inputs
from histcxr.data.manifest import TAG_COLUMNS, read_manifest
from histcxr.data.radiograph import decode_radiograph
from histcxr.dicom import tags
from histcxr.dicom.radiograph import read_tags
from histcxr.dicom.tags import BEGINNING, ImageUids, read_uids
from histcxr.exceptions import InputError, RadiographError, Reason
from histcxr.files.reading import read_file
from histcxr.files.writing import encode_image, write_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import SYNTAXES

from .conftest import code_item

pydicom = pytest.importorskip("pydicom")

IMAGE = make_phantom(7, size=(64, 64)).image
STORAGE = "1.2.840.10008.5.1.4.1.1."
SECRET = "SENTINEL"


def verdict(data):
    """The reason for which a file is refused and the detail; nothing where it is accepted."""
    try:
        decode_radiograph(data)
    except RadiographError as error:
        return error.reason, error.detail
    return None, ""


@pytest.mark.parametrize(
    ("kind", "modality", "tags", "reason", "detail"),
    [
        ("1", "CR", {}, None, ""),
        ("1.1", "DX", {}, None, ""),
        ("1.1", "DX", {"PresentationIntentType": "FOR PRESENTATION"}, None, ""),
        ("1", "", {}, None, ""),
        ("7", "CR", {}, None, ""),
        ("7", "OT", {"BodyPartExamined": "CHEST"}, None, ""),
        ("7", "OT", {"ViewPosition": "PA"}, None, ""),
        ("7.2", "DX", {}, None, ""),
        ("7", "OT", {}, Reason.MODALITY, "a secondary capture that does not say"),
        ("7", "CT", {"BodyPartExamined": "CHEST"}, Reason.MODALITY, "modality CT"),
        ("1.1.1", "DX", {}, Reason.MODALITY, "raw data of the detector"),
        ("1.1", "DX", {"PresentationIntentType": "FOR PROCESSING"}, Reason.MODALITY, "raw data"),
        ("1", "MG", {}, Reason.MODALITY, "modality MG"),
        ("1", SECRET, {}, Reason.MODALITY, "a kind that is not known"),
        ("2", "CT", {}, Reason.MODALITY, "CT Image Storage"),
        ("4", "MR", {}, Reason.MODALITY, "MR Image Storage"),
        ("6.1", "US", {}, Reason.MODALITY, "Ultrasound Image Storage"),
        ("88.33", "SR", {"drop": ["PixelData", "Rows"]}, Reason.MODALITY, "Comprehensive SR Storage"),
        ("88.59", "KO", {"drop": ["PixelData"]}, Reason.MODALITY, "Key Object Selection"),
        ("104.1", "DOC", {"drop": ["PixelData"]}, Reason.MODALITY, "Encapsulated PDF"),
        ("12.2", "RF", {}, Reason.MODALITY, "X-Ray Radiofluoroscopic"),
        ("7.1", "OT", {"BodyPartExamined": "CHEST"}, Reason.MODALITY, "Single Bit"),
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_what_counts_as_a_radiograph(make_dicom, kind, modality, tags, reason, detail, syntax):
    data = make_dicom(IMAGE, SOPClassUID=STORAGE + kind, Modality=modality, syntax=syntax, **tags)
    found, said = verdict(data)
    assert found is reason
    assert detail in said
    assert SECRET not in said


def test_kind_from_meta_information_or_modality_alone(make_dicom):
    assert verdict(make_dicom(IMAGE, drop=["SOPClassUID"])) == (None, "")
    assert verdict(make_dicom(IMAGE, drop=["SOPClassUID"], file_meta=False)) == (None, "")
    assert (
        verdict(make_dicom(IMAGE, drop=["SOPClassUID"], file_meta=False, Modality="CT"))[0] is Reason.MODALITY
    )
    assert verdict(make_dicom(IMAGE, drop=["SOPClassUID", "Modality"], file_meta=False))[0] is Reason.MODALITY
    assert verdict(bytes(128) + b"DICM" + bytes(100)) == (Reason.UNSUPPORTED, "a DICOM file without an image")


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({}, ""),
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "AP SUPINE"}, "AP"),
        ({"ViewPosition": "POSTERO_ANTERIOR"}, "PA"),
        ({"ViewPosition": "ANTERO-POSTERIOR"}, "AP"),
        ({"ViewPosition": "LL"}, "LL"),
        ({"ViewPosition": "RL"}, "RL"),
        ({"ViewPosition": "LATERAL"}, "LATERAL"),
        ({"ViewPosition": "LEFT LATERAL"}, "LL"),
        ({"ViewPosition": "LLO"}, "OBLIQUE"),
        ({"ViewPosition": "RLD"}, "DECUBITUS"),
        ({"ViewPosition": "SWIMMERS"}, ""),
        ({"ViewCodeSequence": ("399348003", "SCT", "antero-posterior")}, "AP"),
        ({"ViewCodeSequence": ("R-10214", "SRT", "x")}, "PA"),
        ({"ViewCodeSequence": ("272479007", "SCT", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": ("399173006", "SCT", "left lateral")}, "LL"),
        ({"ViewCodeSequence": ("R-10232", "SRT", "right lateral")}, "RL"),
        ({"ViewCodeSequence": ("99", "99LOCAL", "left posterior oblique")}, "OBLIQUE"),
        ({"ViewCodeSequence": ("399067008", "SCT", "lateral"), "ViewPosition": "PA"}, "LATERAL"),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["PF", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"PatientOrientation": ["A", "F"], "ViewPosition": "PA"}, "PA"),
        ({"SeriesDescription": "Chest lateral"}, "LATERAL"),
        ({"SeriesDescription": "Thorax seitlich"}, "LATERAL"),
        ({"ProtocolName": "W033 Chest LAT"}, "LATERAL"),
        ({"SeriesDescription": "Chest PA and lateral"}, ""),
        ({"SeriesDescription": "bilateral effusion, plateau"}, ""),
        ({"SeriesDescription": "Chest lateral", "ViewPosition": "PA"}, "PA"),
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_views(make_dicom, tmp_path, tags, view, syntax):
    tags = {key: [code_item(*value)] if key == "ViewCodeSequence" else value for key, value in tags.items()}
    data = make_dicom(IMAGE, syntax=syntax, **tags)
    (tmp_path / "a").write_bytes(data)
    assert read_tags(tmp_path / "a")["view"] == view
    assert verdict(data)[0] is (None if view in ("", "PA", "AP") else Reason.VIEW)
    if view in ("", "PA", "AP"):
        assert decode_radiograph(data).metadata["view"] == view


def test_codes_are_those_of_the_standard():
    """Against the context group as pydicom has it."""
    from pydicom.sr.codedict import codes

    from histcxr.dicom.tags import _VIEW_CODES

    names = {
        "AP": "AnteroPosterior",
        "PA": "PosteroAnterior",
        "LL": "LeftLateral",
        "RL": "RightLateral",
        "LATERAL": "LateralProjection",
        "": "Frontal",
    }
    for view, name in names.items():
        assert _VIEW_CODES[getattr(codes.cid4010, name).value] == view


@pytest.mark.parametrize(
    ("tags", "sound"),
    [
        ({}, True),
        *(
            ({"BodyPartExamined": word}, True)
            for word in ("", "CHEST", "THORAX", "PORT CHEST", "CHEST_TO_ABDOMEN")
        ),
        *(({"BodyPartExamined": word}, True) for word in ("LUNG", "RIBS", "TORAX", "WHOLEBODY", SECRET)),
        *(
            ({"BodyPartExamined": word}, False)
            for word in ("ABDOMEN", "HAND", "KNEE", "SKULL", "TSPINE", "PELVIS")
        ),
        *(
            ({"BodyPartExamined": word}, False)
            for word in ("THORACIC SPINE", "L_SPINE", "LEFT FOOT", "SHOULDER")
        ),
        ({"AnatomicRegionSequence": ("51185008", "SCT", "x")}, True),
        ({"AnatomicRegionSequence": ("12738006", "SCT", "brain")}, False),
        ({"AnatomicRegionSequence": ("30021000", "SCT", "lower leg")}, False),
    ],
)
def test_parts_of_the_body(make_dicom, tags, sound):
    tags = {key: [code_item(*value)] if key.endswith("Sequence") else value for key, value in tags.items()}
    assert verdict(make_dicom(IMAGE, **tags)) == (None if sound else Reason.BODY_PART, "")


@pytest.mark.parametrize(
    ("tags", "group"),
    [
        ({"PatientAge": "045Y"}, "40-49"),
        ({"PatientAge": "009M"}, "0-9"),
        ({"PatientAge": "003D"}, "0-9"),
        ({"PatientAge": "089Y"}, "80-89"),
        ({"PatientAge": "090Y"}, "90+"),
        ({"PatientAge": "104Y"}, "90+"),
        ({"PatientAge": "999Y"}, ""),
        ({"PatientAge": "old"}, ""),
        ({"PatientBirthDate": "19500701", "StudyDate": "20200630"}, "60-69"),
        ({"PatientBirthDate": "19500701", "StudyDate": "20200701"}, "70-79"),
        ({"PatientBirthDate": "19500701"}, ""),
        ({}, ""),
    ],
)
def test_ages_are_decades(make_dicom, tags, group):
    assert decode_radiograph(make_dicom(IMAGE, **tags)).metadata["age_group"] == group


def test_facts_come_from_closed_lists(make_dicom):
    data = make_dicom(IMAGE, PatientSex="F", ImageLaterality="U", ViewPosition="PA")
    metadata = decode_radiograph(data).metadata
    assert {key: metadata[key] for key in (*TAG_COLUMNS, "photometric", "transfer_syntax")} == {
        "modality": "CR",
        "view": "PA",
        "laterality": "U",
        "sex": "F",
        "age_group": "",
        "photometric": "MONOCHROME2",
        "transfer_syntax": "uncompressed, little endian",
    }
    metadata = decode_radiograph(
        make_dicom(IMAGE, PatientSex="FEMALE", Laterality="LEFT", syntax="rle")
    ).metadata
    assert (metadata["sex"], metadata["laterality"], metadata["transfer_syntax"]) == ("", "", "RLE Lossless")


def test_pseudonyms(make_dicom, tmp_path):
    def key(salt, **tags):
        (tmp_path / "a").write_bytes(make_dicom(IMAGE, **tags))
        return read_tags(tmp_path / "a", salt=salt)["patient_id"]

    one = key("salt", PatientID="4711")
    assert len(one) == 32
    assert one == key(b"salt", PatientID=" 4711 ", syntax="implicit")
    others = [
        key("other salt", PatientID="4711"),
        key("salt", PatientID="4712"),
        key("salt", PatientID="4711", IssuerOfPatientID="B"),
        key("s" * 500, PatientID="4711"),
    ]
    assert len({one, *others}) == 5
    assert key("", PatientID="4711") == ""
    assert {key("salt", PatientID=word) for word in ("", "ANONYMOUS", "anon", "0")} == {""}
    from histcxr.dicom.dataset import parse
    from histcxr.dicom.tags import patient_key

    with pytest.raises(InputError, match="without a secret can be guessed"):
        patient_key(parse(make_dicom(IMAGE, PatientID="4711")), "")


def test_manifests_with_tags(make_dicom, tmp_path):
    for name, patient in (("1", "A"), ("2", "A"), ("3", "B")):
        tags = {"PatientID": patient, "ViewPosition": "AP", "PatientAge": "093Y", "StudyInstanceUID": "1.2.9"}
        (tmp_path / name).write_bytes(make_dicom(IMAGE, **tags))
    write_image(tmp_path / "4.png", IMAGE)
    (tmp_path / "5.dcm").write_bytes(b"no image")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    plain = read_manifest(tmp_path)
    assert list(plain.columns) == ["image", "mask", "label", "patient_id", "source", "split"]
    assert len(plain) == 5
    table = read_manifest(tmp_path, dicom_tags=True)
    assert list(table.columns[6:]) == list(TAG_COLUMNS)
    assert table["view"].tolist() == ["AP"] * 3 + ["", ""]
    assert table["age_group"].tolist() == ["90+"] * 3 + ["", ""]
    assert set(table["patient_id"]) == {""}
    salted = read_manifest(tmp_path, dicom_tags=True, salt="secret", uids=True)
    patients = salted["patient_id"].tolist()
    assert patients[0] == patients[1] != patients[2]
    assert patients[3:] == ["", ""]
    assert salted["study_uid"].tolist() == ["1.2.9"] * 3 + ["", ""]
    with pytest.raises(InputError, match="salt and uids are of use with dicom_tags=True only"):
        read_manifest(tmp_path, salt="secret")
    (tmp_path / "manifest.csv").write_text("image,patient_id,view,sex\n1,mine,PA,M\n2,,,\n")
    listed = read_manifest(tmp_path, dicom_tags=True, salt="secret")
    assert listed["patient_id"].tolist() == ["mine", patients[1]]
    assert listed["view"].tolist() == ["PA", "AP"]


def test_a_medium_with_an_index_and_names_without_extension(make_dicom, tmp_path):
    folder = tmp_path / "DICOM" / "PAT00001" / "STU00001"
    folder.mkdir(parents=True)
    for name in ("IM000001", "IM000002", "1.2.840.113619.2.5", "x.dcm", "y.DCM"):
        (folder / name).write_bytes(make_dicom(IMAGE))
    for place in (tmp_path / "DICOMDIR", folder / "dicomdir"):
        place.write_bytes(bytes(128) + b"DICM")
    inputs = find_inputs(tmp_path)
    assert [verdict(read_file(entry.path)) for entry in inputs] == [(None, "")] * 5
    assert inputs.skipped == {"DICOMDIR": 2}
    index = make_dicom(IMAGE, SOPClassUID="1.2.840.10008.1.3.10", Modality="", drop=["PixelData"])
    assert verdict(index) == (Reason.MODALITY, "an index of files (DICOMDIR)")


def test_other_files_are_no_dicom_files(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(IMAGE))
    assert read_tags(tmp_path / "a.png") == {}
    assert read_tags(tmp_path / "missing") == {}


LARGE = make_phantom(3, size=(300, 280)).image
UIDS = ImageUids("1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.10008.5.1.4.1.1.1")
UID_TAGS = {
    "StudyInstanceUID": UIDS.study_uid,
    "SeriesInstanceUID": UIDS.series_uid,
    "SOPInstanceUID": UIDS.sop_uid,
}


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax(make_dicom, tmp_path, syntax):
    path = write(tmp_path / "image", make_dicom(LARGE, syntax=syntax, **UID_TAGS))
    assert read_uids(path) == UIDS


def test_without_meta_information(make_dicom, tmp_path):
    assert read_uids(write(tmp_path / "image", make_dicom(LARGE, file_meta=False, **UID_TAGS))) == UIDS


def test_pixels_are_not_read(make_dicom, tmp_path, monkeypatch):
    data = make_dicom(LARGE, **UID_TAGS)
    path = write(tmp_path / "image", data)
    read = []

    def counted(*arguments):
        read.append(len(found := original(*arguments)))
        return found

    original = read_file
    monkeypatch.setattr(tags, "read_file", counted)
    assert read_uids(path) == UIDS
    assert read == [BEGINNING]
    assert len(data) > 2 * BEGINNING


def test_identifiers_behind_much_else(make_dicom, tmp_path):
    data = make_dicom(LARGE, **UID_TAGS)
    place = data.index(b"\x20\x00\x0d\x00UI")
    private = b"\x09\x00\x01\x10OB\0\0" + (2**17).to_bytes(4, "little") + bytes(2**17)
    assert read_uids(write(tmp_path / "image", data[:place] + private + data[place:])) == UIDS


def test_what_is_missing_or_invalid_is_empty(make_dicom, tmp_path):
    data = make_dicom(LARGE, StudyInstanceUID="1.2.840.1")
    assert read_uids(write(tmp_path / "a", data)) == ImageUids("1.2.840.1", "", "1.2.3.4", UIDS.sop_class)
    data = make_dicom(LARGE, **UID_TAGS).replace(b"1.2.840.2", b"=1+2.8.02")
    assert read_uids(write(tmp_path / "b", data)) == UIDS._replace(series_uid="")
    data = make_dicom(LARGE, **UID_TAGS).replace(b"1.2.840.2", b"1.2.040.2")  # no leading zeros
    assert read_uids(write(tmp_path / "c", data)).series_uid == ""


def test_other_files_have_none(tmp_path):
    assert read_uids(write(tmp_path / "a.png", encode_image(LARGE))) == ImageUids()
    assert read_uids(write(tmp_path / "empty", b"")) == ImageUids()
    assert read_uids(tmp_path / "missing") == ImageUids()
    assert read_uids(tmp_path) == ImageUids()


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_gives_valid_identifiers_or_none(make_dicom, tmp_path, name):
    rng = random.Random(name)
    sound = [
        make_dicom(LARGE.astype(np.uint16), syntax=syntax, **UID_TAGS) for syntax in ("explicit", "deflated")
    ]
    for _ in range(40):
        path = write(tmp_path / "image", MUTATIONS[name](rng.choice(sound), rng, sound))
        for value in read_uids(path):
            assert value == "" or set(value) <= set("0123456789.")
            assert len(value) <= 64
