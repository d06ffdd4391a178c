"""The way into a DICOM file: any beginning, bounded memory, and no value of the patient on any way out."""

import io
import subprocess
import sys
import traceback
import warnings

import numpy as np
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.data.radiograph import decode_radiograph, read_radiograph
from histcxr.data.radiograph import read_any_header as read_header
from histcxr.dicom.radiograph import read_tags
from histcxr.exceptions import RadiographError, Reason
from histcxr.files.reading import dicom_start, sniff
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

from .conftest import code_item, refused

pydicom = pytest.importorskip("pydicom")

IMAGE = make_phantom(7, size=(64, 64)).image
SECRET = "SENTINEL"
LEAKS = (SECRET, SECRET.lower(), "1937", "087", "1.2.3.1937")


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_files_without_preamble_prefix_or_meta_information(make_dicom, syntax, tmp_path):
    bare = make_dicom(IMAGE, syntax=syntax, file_meta=False)
    whole = make_dicom(IMAGE, syntax=syntax)
    for data in (bare, whole[132:], whole[128:], bytes(128) + bare, bytes(128) + b"DICM" + bare):
        assert sniff(data) == "DICOM"
        assert (decode_radiograph(data).pixels == IMAGE).all()
    (tmp_path / "1.2.840.113619").write_bytes(bare)
    assert (read_radiograph(tmp_path / "1.2.840.113619").pixels == IMAGE).all()


def test_a_preamble_may_be_the_head_of_another_file(make_dicom):
    whole = make_dicom(IMAGE)
    for head in (b"II*\0", b"\xff\xd8\xff\xe0"):
        assert (decode_radiograph(head.ljust(128, b"\0") + whole[128:]).pixels == IMAGE).all()
    for other in (
        b"",
        b"DIC",
        bytes(140),
        b"\x08\0\x05",
        encode_image(IMAGE),
        b"\x08\0\xff\xff" + bytes(200),
    ):
        assert dicom_start(other) is None


@pytest.mark.parametrize(
    "syntax", ["explicit", "implicit", "deflated", "rle", "jpeg", "jpeg lossless", "jpeg-ls", "jpeg 2000"]
)
def test_files_that_end_too_early(make_dicom, syntax):
    data = make_dicom(IMAGE, syntax=syntax)
    for share in (0.2, 0.5, 0.9, 0.99):
        error = refused(data[: int(share * len(data))], Reason.TRUNCATED)
        assert "missing" in str(error)


def test_an_inflating_file_is_stopped(make_dicom, monkeypatch):
    data = make_dicom(IMAGE, syntax="deflated")
    monkeypatch.setattr("histcxr.dicom.dataset.MAX_INFLATED", 4_000)
    refused(data, Reason.TOO_LARGE, "unpacks to more than 4,000 bytes")


def test_nothing_is_printed_and_no_warning_is_given(make_dicom, capfd):
    odd = make_dicom(
        IMAGE, PatientID="x" * 80, PatientAge="old", WindowCenter="1.00000000000000000009", syntax="rle"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_radiograph(odd)
        for cut in (700, 400, 300):
            with pytest.raises(RadiographError):
                decode_radiograph(make_dicom(IMAGE, syntax="jpeg 2000")[:cut])
    assert [str(one.message) for one in caught] == []
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_the_reason_says_what_to_install(make_dicom, tmp_path):
    (tmp_path / "a.dcm").write_bytes(make_dicom(IMAGE))
    (tmp_path / "b.dcm").write_bytes(make_dicom(IMAGE, syntax="jpeg lossless"))
    code = (
        "import sys\n"
        "sys.modules[sys.argv[2]] = None\n"
        "from histcxr.data.radiograph import read_radiograph\n"
        "from histcxr.exceptions import RadiographError\n"
        "try:\n    read_radiograph(sys.argv[1])\n"
        "except RadiographError as error:\n    print(error.reason, error.detail)\n"
    )
    for name, package in (("a.dcm", "pydicom"), ("b.dcm", "imagecodecs")):
        command = [sys.executable, "-c", code, str(tmp_path / name), package]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("unsupported ")
        assert "pip install '.[dicom]'" in done.stdout
        assert done.stderr == ""


def test_pydicom_is_imported_for_dicom_files_only():
    code = (
        "import sys\n"
        "import histcxr.data.manifest, histcxr.data.radiograph as r\n"
        "from histcxr.files.writing import encode_image\n"
        "import numpy as np\n"
        "r.decode_radiograph(encode_image(np.zeros((64, 64), np.uint8)))\n"
        "print([name for name in ('pydicom', 'imagecodecs', 'openjpeg', 'jpeg_ls') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def full_of_secrets(make_dicom, **tags):
    """A file in which every text, name, date and number that the standard knows holds the sentinel."""
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(IMAGE, **tags)))
    kept = {*tags, "SOPClassUID", "Modality", "PhotometricInterpretation", "SpecificCharacterSet"}
    texts = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
    others = {"DA": "19371231", "AS": "087Y", "UI": "1.2.3.19371231.9", "TM": "193712", "DT": "19371231"}
    item = pydicom.Dataset()
    item.PatientName = item.PatientID = item.CodeValue = item.CodeMeaning = SECRET
    for tag, (vr, _, _, retired, keyword) in pydicom.datadict.DicomDictionary.items():
        group = tag >> 16
        if (
            retired
            or not keyword
            or keyword in kept
            or group not in (0x08, 0x10, 0x18, 0x20, 0x32, 0x38, 0x40)
        ):
            continue
        value = SECRET if vr in texts else others.get(vr) if vr != "SQ" else [item]
        if value is not None:
            dataset.add_new(tag, vr, value)
    dataset.add_new(0x00091001, "LO", SECRET)
    stream = io.BytesIO()
    dataset.file_meta.SourceApplicationEntityTitle = SECRET
    dataset.save_as(stream)
    assert stream.getvalue().count(SECRET.encode()) > 300
    return stream.getvalue()


def silent(said):
    return not any(word in said for word in LEAKS)


def test_nothing_of_the_patient_leaves_the_file(make_dicom, tmp_path, caplog, recwarn):
    decisive = {
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
        "PresentationIntentType": "FOR PRESENTATION",
        "PresentationLUTShape": "IDENTITY",
        "VOILUTFunction": "LINEAR",
        "AnatomicRegionSequence": [code_item("51185008", "SCT", "chest")],
        "ViewCodeSequence": [code_item("272479007", "SCT", "postero-anterior")],
    }
    data = full_of_secrets(make_dicom, **decisive)
    caplog.clear()
    recwarn.clear()
    radiograph = decode_radiograph(data)
    assert (radiograph.pixels == IMAGE).all()
    assert radiograph.metadata["age_group"] == "80-89"
    (tmp_path / "1.dcm").write_bytes(data)
    table = read_manifest(tmp_path, dicom_tags=True, salt="secret").drop(columns="image")
    assert table["patient_id"][0]
    said = [repr(radiograph), repr(radiograph.metadata), repr(read_header(data)), table.to_csv(), caplog.text]
    said += [str(read_tags(tmp_path / "1.dcm")), *(str(one.message) for one in recwarn)]
    assert all(silent(one) for one in said)
    uids = read_tags(tmp_path / "1.dcm", uids=True)  # on request only
    assert uids["study_uid"] == uids["series_uid"] == "1.2.3.19371231.9"


def test_errors_say_nothing_of_the_patient(make_dicom, caplog, recwarn):
    """Every kind of refusal, and damage wherever a value stands, with the whole traceback."""
    files = [full_of_secrets(make_dicom), full_of_secrets(make_dicom, Modality=SECRET)]
    sound = full_of_secrets(make_dicom, ViewPosition="PA", PresentationLUTShape="IDENTITY")
    rng = np.random.default_rng(0)
    for cut in rng.integers(140, len(sound), 20):
        files.append(sound[:cut])
    for keyword in (
        b"\x28\x00\x10\x00US",
        b"\x28\x00\x02\x00US",
        b"\x28\x00\x00\x01US",
        b"\x28\x00\x04\x00CS",
    ):
        place = sound.index(keyword) + 8
        files.append(sound[:place] + SECRET.encode()[:2] + sound[place + 2 :])
    for keyword in ("WindowWidth", "RescaleSlope", "NumberOfFrames"):
        data = make_dicom(IMAGE, **{"WindowCenter": 1, keyword: 9})
        tag = pydicom.tag.Tag(keyword)
        place = data.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"))
        files.append(
            data[:place] + data[place : place + 6] + b"\x08\0" + SECRET.encode() + data[place + 10 :]
        )
    caplog.clear()
    recwarn.clear()
    errors = []
    for data in files:
        try:
            decode_radiograph(data)
        except RadiographError as error:
            errors.append(error)
    assert len(errors) >= len(files) - 2
    for error in errors:
        assert silent(str(error) + repr(error) + error.explanation)
        assert silent("".join(traceback.format_exception(error)))
        assert error.__context__ is None
    assert silent(caplog.text)
    assert all(silent(str(one.message)) for one in recwarn)


@pytest.mark.parametrize("kind", ["BytesLengthException", "InvalidDicomError"])
def test_what_pydicom_quotes_goes_no_further(make_dicom, monkeypatch, kind):
    def quote(*_, **__):
        raise getattr(pydicom.errors, kind)(SECRET)

    data = make_dicom(IMAGE)
    monkeypatch.setattr("pydicom.filereader.data_element_generator", quote)
    with pytest.raises(RadiographError, match="cannot be told apart") as caught:
        decode_radiograph(data)
    assert silent("".join(traceback.format_exception(caught.value)))
    assert caught.value.__context__ is None
