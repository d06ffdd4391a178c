"""DICOM files made of phantoms: what scanners and archives write, and what they should not."""

import io
import warnings

import cv2
import numpy as np
import pytest

CR = "1.2.840.10008.5.1.4.1.1.1"
SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg extended": "1.2.840.10008.1.2.4.51",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
}


def make_dicom(pixels, *, bits=None, syntax="explicit", signed=False, drop=(), file_meta=True, **tags):
    """Encode pixels (uint8, or uint16 with ``bits`` stored; the pattern, where signed) as a DICOM file.

    ``tags`` are set last, by keyword, and ``drop`` takes some away: contradictions are welcome.
    """
    pytest.importorskip("pydicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom rightly complains of what is asked of it here
        return _encode(pixels, bits, syntax, signed, drop, file_meta, tags)


def _encode(pixels, bits, syntax, signed, drop, file_meta, tags):
    import pydicom
    from pydicom.encaps import encapsulate

    allocated = 8 * pixels.itemsize
    bits = bits or allocated
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CR, "1.2.3.4", "CR"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    big = syntax == "big endian"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = SYNTAXES["explicit"]
    if syntax in ("rle", "jpeg-ls", "jpeg 2000"):
        dataset.compress(SYNTAXES[syntax], generate_instance_uid=False)
    elif syntax.startswith("jpeg"):
        dataset.PixelData = encapsulate([as_jpeg(pixels, bits, syntax)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    for keyword in drop:
        delattr(dataset, keyword)
    stream = io.BytesIO()
    if file_meta:
        dataset.file_meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CR)
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        dataset.save_as(stream, enforce_file_format=True)
        return stream.getvalue()
    pydicom.filewriter.dcmwrite(
        stream, strip_meta(dataset), implicit_vr=syntax == "implicit", little_endian=not big
    )
    return stream.getvalue()


def strip_meta(dataset):
    """Only the data set itself: no preamble, no prefix, no meta information."""
    del dataset.file_meta
    return dataset


def as_jpeg(pixels, bits, syntax):
    if syntax == "jpeg":
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    encode = pytest.importorskip("imagecodecs").jpeg8_encode
    if syntax == "jpeg extended":
        return encode(pixels, level=98, bitspersample=bits)
    return encode(pixels, lossless=True, bitspersample=bits)


def lut_item(values, first, bits, as_words=True):
    """A LUT as it stands in a modality or VOI LUT sequence."""
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    count = len(values) % 2**16
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [count, first, bits])
    if as_words:
        item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(value) for value in values])
    return item


@pytest.fixture(name="make_dicom", scope="session")
def _make_dicom():
    return make_dicom


@pytest.fixture(name="lut_item", scope="session")
def _lut_item():
    return lut_item
