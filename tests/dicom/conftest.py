"""DICOM files made of phantoms: what scanners and archives write, and what they should not."""

import pytest

from histcxr.data.radiograph import decode_radiograph
from histcxr.exceptions import RadiographError
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.phantoms.dicom_files import lut_item as make_lut_item


def make_dicom(pixels, *, bits=None, syntax="explicit", signed=False, drop=(), file_meta=True, **tags):
    """Encode pixels as a DICOM file; ``tags`` by keyword."""
    pytest.importorskip("pydicom")
    if syntax in ("jpeg extended", "jpeg lossless"):
        pytest.importorskip("imagecodecs")
    return encode_dicom(
        pixels, bits=bits, syntax=syntax, signed=signed, drop=drop, file_meta=file_meta, tags=tags
    )


def refused(data, reason, match=None):
    with pytest.raises(RadiographError, match=match) as caught:
        decode_radiograph(data)
    assert caught.value.reason is reason, caught.value
    return caught.value


def code_item(value, scheme, meaning):
    """An item of a sequence of codes."""
    import pydicom

    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def lut_item(values, first, bits, as_words=True):
    """A LUT as it stands in a modality or VOI LUT sequence."""
    pytest.importorskip("pydicom")
    return make_lut_item(values, first, bits, as_words=as_words)


@pytest.fixture(name="make_dicom", scope="session")
def _make_dicom():
    return make_dicom


@pytest.fixture(name="lut_item", scope="session")
def _lut_item():
    return lut_item
