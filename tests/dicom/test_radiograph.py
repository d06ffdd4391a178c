"""What contradictory, missing and unusual tags lead to."""

import numpy as np
import pytest

from histcxr.data.masks import decode_mask
from histcxr.data.radiograph import decode_radiograph
from histcxr.data.radiograph import read_any_header as read_header
from histcxr.exceptions import MaskError, Reason
from histcxr.phantoms.anatomy import make_phantom

from .conftest import refused

pytest.importorskip("pydicom")

IMAGE = make_phantom(7).image
DEEP = IMAGE.astype(np.uint16)


def test_polarity_is_turned_once(make_dicom):
    white = 255 - IMAGE
    for photometric, shape, stored in (
        ("MONOCHROME1", "INVERSE", white),
        ("MONOCHROME1", None, white),
        ("MONOCHROME2", "IDENTITY", IMAGE),
        ("MONOCHROME2", "INVERSE", white),
    ):
        tags = {"PresentationLUTShape": shape} if shape else {}
        data = make_dicom(stored, PhotometricInterpretation=photometric, **tags)
        assert (decode_radiograph(data).pixels == IMAGE).all(), (photometric, shape)
    for shape, stored in (("IDENTITY", IMAGE), ("INVERSE", white)):
        data = make_dicom(stored, drop=["PhotometricInterpretation"], PresentationLUTShape=shape)
        assert (decode_radiograph(data).pixels == IMAGE).all()
    refused(
        make_dicom(IMAGE, drop=["PhotometricInterpretation"]), Reason.DAMAGED, "black and white are not known"
    )
    torn = make_dicom(IMAGE, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    refused(
        torn, Reason.DAMAGED, "MONOCHROME1 makes 0 white, the presentation LUT shape IDENTITY makes it black"
    )


def test_missing_and_contradictory_tags(make_dicom):
    for tags in (
        {"drop": ["HighBit"]},
        {"drop": ["BitsStored", "HighBit"]},
        {"drop": ["PixelRepresentation"]},
        {"drop": ["SamplesPerPixel"]},
        {"WindowWidth": 0, "WindowCenter": 100},
        {"WindowWidth": -5, "WindowCenter": 100},
        {"WindowCenter": 100},
        {"WindowWidth": 100},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"NumberOfFrames": 1},
    ):
        assert (decode_radiograph(make_dicom(IMAGE, **tags)).pixels == IMAGE).all(), tags
    steps = decode_radiograph(make_dicom(IMAGE, WindowWidth=0, WindowCenter=9)).metadata["steps"]
    assert steps == ("declared range, for the window is incomplete or has no width",)
    for tags, reason, match in (
        ({"RescaleSlope": 0}, Reason.DAMAGED, "RescaleSlope is 0"),
        ({"Rows": 225}, Reason.DAMAGED, "50,176 bytes of pixel data, where 224 x 225 pixels take 50,400"),
        ({"Columns": 223}, Reason.DAMAGED, "50,176 bytes of pixel data, where 223 x 224 pixels take 49,952"),
        ({"Rows": 0}, Reason.DAMAGED, "declares 224 x 0"),
        ({"Rows": 60_000, "Columns": 60_000}, Reason.TOO_LARGE, "60000 x 60000"),
        ({"drop": ["Rows"]}, Reason.DAMAGED, "Rows is missing"),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED, "32 bits allocated"),
        ({"BitsStored": 12}, Reason.DAMAGED, "12 bits stored"),
        ({"HighBit": 3}, Reason.DAMAGED, "stored up to bit 3"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED, "photometric"),
        ({"SamplesPerPixel": 3}, Reason.DAMAGED, "3 samples a pixel for MONOCHROME2"),
        (
            {"VOILUTFunction": "CUBIC", "WindowCenter": 1, "WindowWidth": 9},
            Reason.UNSUPPORTED,
            "VOI LUT function",
        ),
        ({"NumberOfFrames": 3}, Reason.SEVERAL_FRAMES, "3 frames"),
        ({"drop": ["PixelData"]}, Reason.TRUNCATED, "no pixel data"),
    ):
        assert match in str(refused(make_dicom(IMAGE, **tags), reason))


def test_a_dicom_file_is_no_mask(make_dicom):
    with pytest.raises(MaskError, match="a DICOM file") as caught:
        decode_mask(make_dicom(IMAGE), IMAGE.shape)
    assert caught.value.reason is Reason.MASK_UNREADABLE


def test_headers_cost_no_decoding(make_dicom):
    header = read_header(make_dicom(DEEP * 16, bits=12, syntax="jpeg 2000"))
    assert (header.format, header.width, header.height, header.bits) == ("DICOM", 224, 224, 12)
    assert "frame" not in repr(header)
