"""Compressed frames: known by their content, and held against the tags before a codec sees them."""

import numpy as np
import pytest

from histcxr.data.radiograph import decode_radiograph
from histcxr.dicom.codecs import _all_used
from histcxr.dicom.codestream import check, rle_planes
from histcxr.exceptions import RadiographError, Reason
from histcxr.phantoms.anatomy import make_phantom

from .conftest import refused

pytest.importorskip("pydicom")

IMAGE = make_phantom(7).image
DEEP = IMAGE.astype(np.uint16)


def test_the_kind_of_compression_is_taken_from_the_image_data(make_dicom):
    for syntax in ("jpeg 2000", "jpeg-ls", "rle", "jpeg lossless"):
        data = make_dicom(IMAGE, syntax=syntax)
        for wrong in (b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51"):
            place = data.index(b"\x02\x00\x10\x00UI")
            length = int.from_bytes(data[place + 6 : place + 8], "little")
            changed = (
                data[: place + 6] + len(wrong).to_bytes(2, "little") + wrong + data[place + 8 + length :]
            )
            assert (decode_radiograph(changed).pixels == IMAGE).all()


def test_compressed_frames_at_odds_with_the_tags(make_dicom):
    for syntax in ("jpeg", "jpeg lossless", "jpeg-ls", "jpeg 2000"):
        refused(
            make_dicom(IMAGE, syntax=syntax, Rows=200),
            Reason.DAMAGED,
            "224 x 224 pixels of 1 samples in the image",
        )
    refused(
        make_dicom(IMAGE, syntax="rle", Rows=200),
        Reason.DAMAGED,
        "more than 44,800 bytes in a part of the image",
    )
    refused(
        make_dicom(IMAGE, syntax="rle", Rows=230),
        Reason.TRUNCATED,
        "50,176 bytes in a part of the image, 51,520",
    )
    deep = make_dicom(IMAGE, syntax="jpeg 2000", BitsAllocated=16, BitsStored=12, HighBit=11)
    refused(deep, Reason.DAMAGED, "8 bits in the image data, 12 in the tags")
    large = make_dicom(IMAGE, syntax="jpeg 2000", Rows=8000, Columns=8000)
    refused(large, Reason.DAMAGED, "8000 x 8000 of 1 in the tags")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_lossless_jpeg_whose_end_was_put_back(make_dicom, bits):
    """Decoders go on with the last value where data is missing."""
    stored = IMAGE if bits == 8 else (DEEP * 257) >> (16 - bits)
    stored = stored.copy()
    stored[-20:] = 3  # a collimated border is sound
    data = make_dicom(stored, bits=bits, syntax="jpeg lossless")
    assert (decode_radiograph(data).pixels[:-20] == IMAGE[:-20]).all()
    start, end = data.index(b"\xff\xd8\xff"), data.rindex(b"\xff\xd9")
    for share in (0.3, 0.7):
        kept = data[start : start + int(share * (end - start))].rstrip(b"\xff")
        broken = data[:start] + kept + data[end : end + 2]
        length = len(kept) + 2
        broken = data[: start - 4] + length.to_bytes(4, "little") + broken[start:]
        refused(broken + data[-8:], Reason.DAMAGED, "the pixels do not account for all bits")


def test_a_fill_byte_before_the_end_of_a_lossless_jpeg(make_dicom):
    """As DCMTK writes it, here after a last row of one value."""
    stored = IMAGE.copy()
    stored[-1] = 3
    data = make_dicom(stored, syntax="jpeg lossless")
    start, end = data.index(b"\xff\xd8\xff"), data.rindex(b"\xff\xd9")
    stream = data[start:end] + b"\xff\xff\xd9" + b"\0" * ((end - start + 3) % 2)
    filled = data[: start - 4] + len(stream).to_bytes(4, "little") + stream + data[-8:]
    assert (decode_radiograph(filled).pixels == stored).all()


@pytest.mark.parametrize("syntax", ["jpeg", "jpeg extended", "jpeg lossless"])
def test_what_the_decoder_complains_of_is_heard(make_dicom, syntax):
    """Codes left over or missing do not stop a decoder."""
    bits = 8 if syntax == "jpeg" else 12
    data = make_dicom(IMAGE if bits == 8 else DEEP << 4, bits=bits, syntax=syntax)
    middle = len(data) // 2
    spoilt = data[:middle] + bytes(400) + data[middle + 400 :]
    refused(spoilt, Reason.DAMAGED, "Corrupt JPEG data")


@pytest.mark.parametrize("syntax", ["jpeg lossless", "jpeg-ls", "jpeg 2000"])
@pytest.mark.parametrize("value", [4096, 40000])
def test_values_beyond_the_stored_bits(make_dicom, syntax, value):
    """Seven of 50,176 are enough."""
    stored = DEEP << 4
    assert stored.max() < 4096
    stored[100, 50:57] = value
    data = make_dicom(stored, bits=16, syntax=syntax, BitsStored=12, HighBit=11)
    refused(data, Reason.DAMAGED, "values of more than 12 bits")


def test_runs_of_bytes():
    runs = bytes([129, 7, 2, 1, 2, 3, 128, 255, 9])  # 128 sevens, three literals, nothing, two nines
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + runs
    whole = bytes([7] * 128 + [1, 2, 3, 9, 9])
    assert rle_planes(frame, 1, 133) == rle_planes(frame + b"\0", 1, 133) == whole
    assert rle_planes(frame, 1, 132) == whole[:-1]
    for pixels, reason in ((134, Reason.TRUNCATED), (131, Reason.DAMAGED)):
        with pytest.raises(RadiographError, match="in a part of the image") as caught:
            rle_planes(frame, 1, pixels)
        assert caught.value.reason is reason
    with pytest.raises(RadiographError, match="more than 1,000 bytes"):  # and no more memory than that
        rle_planes(frame[:64] + b"\x81\x07" * 2**20, 1, 1000)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_bits_of_a_lossless_jpeg_are_counted(bits, predictor):
    imagecodecs = pytest.importorskip("imagecodecs")
    stored = IMAGE if bits == 8 else (DEEP * 257) >> (16 - bits)
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=predictor, bitspersample=bits)
    stream = check(frame, (*stored.shape, 1), stored.itemsize)
    if stream.kind == "JPEG deep":
        pixels = imagecodecs.jpeg8_decode(stream.data)
        assert _all_used(stream, pixels) is True
        pixels[100:110] = np.random.default_rng(0).integers(0, 2**bits, (10, len(IMAGE[0])))  # longer codes
        assert _all_used(stream, pixels) is False
