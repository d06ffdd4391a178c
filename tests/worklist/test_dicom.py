"""DICOM goes through the same door: the drawer of its PNG, one row each, and no name in any output."""

import csv

import cv2
import numpy as np
import pytest

from histcxr.worklist.engine import triage

pydicom = pytest.importorskip("pydicom")
CR, CT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


def write_dicom(path, pixels, *, inverted=False, sop_class=CR, **tags):
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.3"
    dataset.Modality = "CR" if sop_class == CR else "CT"
    dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-ID"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PixelData = (255 - pixels if inverted else pixels).tobytes()
    dataset["PixelData"].VR = "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(path, enforce_file_format=True)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_dicom_gets_the_drawer_of_its_png(study, saved_model, tmp_path):
    images = sorted(study.rglob("[ab]/image*.png"))
    images = [path for path in images if "masks" not in path.parts][:8]
    folder = tmp_path / "archive"
    (folder / "masks").mkdir(parents=True)
    for i, path in enumerate(images):
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        write_dicom(folder / (f"IM{i}.dcm" if i % 2 else f"IM{i}"), pixels, inverted=i % 3 == 0)
        mask = study / "masks" / path.relative_to(study)
        (folder / "masks" / f"IM{i}.png").write_bytes(mask.read_bytes())
    write_dicom(folder / "CT1", np.zeros((64, 64), np.uint8), sop_class=CT)
    write_dicom(folder / "LAT", np.zeros((64, 64), np.uint8), ViewPosition="LL")
    triage(study, saved_model, tmp_path / "png.csv")
    summary = triage(folder, saved_model, tmp_path / "dicom.csv")
    plain = {row["file"]: row for row in rows_of(tmp_path / "png.csv")}
    found = {row["file"].rpartition("/")[2]: row for row in rows_of(tmp_path / "dicom.csv")}
    assert len(found) == summary.to_dict()["total"] == len(images) + 2
    for i, path in enumerate(images):
        expected = plain[next(name for name in plain if name.endswith(f"{path.parent.name}/{path.name}"))]
        row = found[f"IM{i}.dcm" if i % 2 else f"IM{i}"]
        assert (row["decision"], row["score"]) == (expected["decision"], expected["score"])
        assert row["score"]
    assert "not a plain radiograph made for reading" in found["CT1"]["reason"]
    assert "not a frontal view" in found["LAT"]["reason"]
    assert found["CT1"]["decision"] == found["LAT"]["decision"] == "review"
    for output in tmp_path.iterdir():
        if output.is_file():
            assert "SECRET" not in output.read_text(encoding="utf-8")
