"""DICOM pixels to grey levels: every encoding, every depth, rescales, windows and LUTs."""

import io
import itertools
import threading

import cv2
import numpy as np
import pytest

from histcxr.data.radiograph import decode_radiograph
from histcxr.dicom.pixels import LINEAR_EXACT, SIGMOID, Lut, Rescale, Window, level_table
from histcxr.exceptions import RadiographError, Reason
from histcxr.features.histograms import masked_histogram
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

from .conftest import refused

pydicom = pytest.importorskip("pydicom")

PHANTOM = make_phantom(7)
IMAGE = PHANTOM.image
DEEP = IMAGE.astype(np.uint16)


@pytest.mark.parametrize(
    "syntax",
    ["implicit", "explicit", "deflated", "big endian", "rle", "jpeg lossless", "jpeg-ls", "jpeg 2000"],
)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_one_phantom_gives_one_histogram_however_it_is_stored(make_dicom, syntax, inverse, bits):
    """Equal tissue, equal bins: PNG of 8 and 16 bits, and DICOM in every lossless dress."""
    expected = masked_histogram(IMAGE, PHANTOM.mask, 6)
    for png in (encode_image(IMAGE), encode_image(DEEP * 257)):
        assert (decode_radiograph(png).pixels == IMAGE).all()
    spread = (DEEP * 257) >> (16 - bits)
    stored = spread.astype(np.uint8) if bits == 8 else spread
    if inverse:
        stored = ((2**bits - 1) - stored.astype(int)).astype(stored.dtype)
    photometric = "MONOCHROME1" if inverse else "MONOCHROME2"
    data = make_dicom(stored, bits=bits, syntax=syntax, PhotometricInterpretation=photometric)
    radiograph = decode_radiograph(data)
    assert radiograph.pixels.dtype == np.uint8
    assert (radiograph.pixels == IMAGE).all()
    assert (masked_histogram(radiograph.pixels, PHANTOM.mask, 6) == expected).all()
    assert ("inverted" in radiograph.metadata["steps"]) == inverse
    assert radiograph.metadata["bits"] == bits


@pytest.mark.parametrize("signed", [False, True])
def test_damage_that_averaging_would_hide(make_dicom, signed):
    large = cv2.resize(DEEP * 16, (1000, 1000), interpolation=cv2.INTER_CUBIC)
    large.ravel()[700 * 1000 + 400 :] = 4095
    stored = large.astype(np.int16) - 2048 if signed else large
    with pytest.raises(RadiographError, match="row 700 of 1000"):
        decode_radiograph(make_dicom(stored, bits=12, signed=signed), side=224)


@pytest.mark.parametrize(("syntax", "bits"), [("jpeg", 8), ("jpeg extended", 12)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_lossy_jpeg_stays_near(make_dicom, syntax, bits, photometric):
    stored = IMAGE if bits == 8 else (DEEP * 257) >> 4
    if photometric == "MONOCHROME1":
        stored = (2**bits - 1 - stored).astype(stored.dtype)
    data = make_dicom(stored, bits=bits, syntax=syntax, PhotometricInterpretation=photometric)
    difference = np.abs(decode_radiograph(data).pixels.astype(int) - IMAGE)
    assert difference.mean() < 1.5
    assert difference.max() <= 12
    sound, found = (
        np.cumsum(masked_histogram(pixels, PHANTOM.mask, 1)[0]) / PHANTOM.mask.sum()
        for pixels in (IMAGE, decode_radiograph(data).pixels)
    )
    assert np.abs(sound - found).max() < 0.05  # Kolmogorov's distance


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian", "rle", "jpeg 2000"])
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_values(make_dicom, syntax, bits):
    """The lowest value that can be stored is black, the highest white."""
    values = (((DEEP * 257) >> (16 - bits)).astype(int) - 2 ** (bits - 1)).astype(np.int16)
    data = make_dicom(values.view(np.uint16), bits=bits, syntax=syntax, signed=True)
    assert (decode_radiograph(data).pixels == IMAGE).all()


def test_junk_around_the_stored_bits_is_dropped(make_dicom):
    twelve = (DEEP * 257) >> 4
    junk = np.random.default_rng(0).integers(0, 16, IMAGE.shape).astype(np.uint16)
    for stored, high in ((twelve | junk << 12, 11), (twelve << 4 | junk, 15), (twelve << 2 | junk & 3, 13)):
        for syntax in ("explicit", "big endian", "rle"):
            data = make_dicom(stored, bits=12, HighBit=high, syntax=syntax)
            assert (decode_radiograph(data).pixels == IMAGE).all()
    data = make_dicom(DEEP << 4, bits=12, BitsStored=8, HighBit=11, syntax="rle")
    assert (decode_radiograph(data).pixels == IMAGE).all()


def test_the_image_itself_never_sets_the_range(make_dicom):
    """A quarter of the range stays a quarter, with and without a rescale."""
    quarter = DEEP * 4  # of 12 bits
    for tags in ({}, {"RescaleSlope": 2, "RescaleIntercept": -1024}):
        pixels = decode_radiograph(make_dicom(quarter, bits=12, **tags)).pixels
        assert (pixels == quarter >> 4).all()
    pixels = decode_radiograph(make_dicom(quarter, bits=12, RescaleSlope=-1, RescaleIntercept=4095)).pixels
    assert (pixels == 255 - (quarter >> 4)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("center", "width"), [(2048, 4096), (1500.5, 800), (3000, 1), (-50, 300), (9000, 20000)]
)
@pytest.mark.parametrize("rescale", [None, (2.5, -700)])
def test_windows_are_those_of_pydicom(make_dicom, function, photometric, center, width, rescale):
    """PS3.3, C.11.2.1.2 and C.11.2.1.3, against pydicom's reading of them, cut into 256 bins."""
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tags = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    if rescale:
        tags |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    data = make_dicom(stored, bits=12, PhotometricInterpretation=photometric, **tags)
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = pydicom.pixels.apply_modality_lut(stored, dataset)
    with np.errstate(over="ignore"):
        shown = pydicom.pixels.apply_voi_lut(values, dataset).astype(float)
    low, high = (0, 4095) if rescale is None else (rescale[1], 4095 * rescale[0] + rescale[1])
    exact = (shown - low) * 256 / (high - low)
    found = decode_radiograph(data).pixels.astype(int)
    if photometric == "MONOCHROME1":
        found = 255 - found
    assert (found <= exact + 1e-4).all()
    assert ((exact - found < 1 + 1e-4) | (found == 255)).all()


def test_the_first_window_counts_and_a_lut_before_it(make_dicom, lut_item):
    twelve = (DEEP * 257) >> 4
    first = make_dicom(twelve, bits=12, WindowCenter=1000, WindowWidth=500)
    several = make_dicom(twelve, bits=12, WindowCenter=[1000, 3000], WindowWidth=[500, 60])
    assert (decode_radiograph(first).pixels == decode_radiograph(several).pixels).all()
    assert decode_radiograph(several).metadata["steps"][0] == "window 1000, 500 LINEAR"
    lut = lut_item(np.arange(4095, -1, -1), 0, 12)
    both = make_dicom(twelve, bits=12, VOILUTSequence=[lut], WindowCenter=1000, WindowWidth=500)
    assert (decode_radiograph(both).pixels == 255 - IMAGE).all()


@pytest.mark.parametrize("where", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated"])
@pytest.mark.parametrize("as_words", [True, False])
@pytest.mark.parametrize("first", [0, 300])
def test_luts_are_those_of_pydicom(make_dicom, lut_item, where, syntax, as_words, first):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    depth = (
        16 if where.startswith("Modality") else 10
    )  # pydicom knows no modality LUT of another depth than 8 and 16
    values = np.round(np.linspace(0, 1, 3500) ** 1.7 * (2**depth - 1)).astype(int)
    item = lut_item(values, first, depth, as_words or syntax == "implicit")
    data = make_dicom(stored, bits=12, syntax=syntax, **{where: [item]})
    expected = values[np.clip(stored.astype(int) - first, 0, 3499)] >> (depth - 8)
    assert (decode_radiograph(data).pixels == expected).all()
    dataset = pydicom.dcmread(io.BytesIO(data))
    apply = pydicom.pixels.apply_modality_lut if "Modality" in where else pydicom.pixels.apply_voi_lut
    assert (decode_radiograph(data).pixels == apply(stored, dataset) >> (depth - 8)).all()


def test_luts_of_full_length_of_bytes_and_for_negative_values(make_dicom, lut_item):
    full = make_dicom(DEEP * 257, VOILUTSequence=[lut_item(np.arange(2**16), 0, 16)])
    assert (decode_radiograph(full).pixels == IMAGE).all()
    item = lut_item(np.zeros(256), 0, 8)
    item.LUTData = np.arange(256, dtype=np.uint8).tobytes()
    assert (decode_radiograph(make_dicom(IMAGE, VOILUTSequence=[item])).pixels == IMAGE).all()
    signed = (DEEP.astype(np.int16) - 128).view(np.uint16)
    item = lut_item(np.arange(256), -128, 8)
    data = make_dicom(signed, bits=16, signed=True, VOILUTSequence=[item])
    assert (decode_radiograph(data).pixels == IMAGE).all()


def test_level_tables_rise_and_reach_both_ends():
    for bits, signed in itertools.product(range(2, 17), (False, True)):
        for voi in (None, Window(2.0**bits / 3, 2.0**bits / 2), Window(2.0**bits / 2, 9.0, SIGMOID)):
            table = level_table(bits, signed=signed, voi=voi)
            order = np.argsort(np.arange(2**bits).astype(f"i{4}") ^ (2 ** (bits - 1) if signed else 0))
            assert (np.diff(table[order].astype(int)) >= 0).all()
            assert table.max() == 255 or voi is not None
            assert (level_table(bits, signed=signed, voi=voi, inverted=True) == 255 - table).all()
    assert (level_table(16) == np.arange(2**16) >> 8).all()
    assert (
        level_table(8, voi=Window(127.5, 255.0, LINEAR_EXACT)) == np.arange(256) * 256 // 255
    ).sum() >= 255
    for bad in ({"modality": Rescale(0.0)}, {"voi": Window(np.nan, 5.0)}, {"voi": Lut(0, np.zeros(1), 0)}):
        with pytest.raises(ValueError, match="no range"):
            level_table(8, **bad)


def test_several_frames_are_used_where_one_is_named(make_dicom):
    images = [make_phantom(8).image, IMAGE]
    for syntax in ("explicit", "jpeg 2000", "rle"):
        singles = [pydicom.dcmread(io.BytesIO(make_dicom(image, syntax=syntax))) for image in images]
        dataset, stored = singles[0], [single.PixelData for single in singles]
        if syntax == "explicit":
            dataset.PixelData = b"".join(stored)
        else:
            frames = [pydicom.encaps.get_frame(one, 0, number_of_frames=1) for one in stored]
            dataset.PixelData = pydicom.encaps.encapsulate(frames)
        dataset.NumberOfFrames = 2
        for frame, expected in enumerate(images, start=1):
            dataset.RepresentativeFrameNumber = frame
            stream = io.BytesIO()
            dataset.save_as(stream)
            assert (decode_radiograph(stream.getvalue()).pixels == expected).all()


def test_colour_captures_of_grey_images(make_dicom):
    grey = np.dstack([IMAGE] * 3)
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "BodyPartExamined": "CHEST", "Modality": "OT"}
    for syntax in ("explicit", "implicit", "rle", "jpeg 2000", "jpeg-ls"):
        assert (decode_radiograph(make_dicom(grey, syntax=syntax, **capture)).pixels == IMAGE).all(), syntax
    planar = make_dicom(grey.transpose(2, 0, 1).reshape(224, 224, 3).copy(), PlanarConfiguration=1, **capture)
    assert (decode_radiograph(planar).pixels == IMAGE).all()
    for syntax in ("rle", "jpeg 2000", "jpeg-ls"):  # the tag speaks of what is not compressed
        data = make_dicom(grey, syntax=syntax, PlanarConfiguration=1, **capture)
        assert (decode_radiograph(data).pixels == IMAGE).all(), syntax
    jpeg = decode_radiograph(make_dicom(grey, syntax="jpeg", **capture)).pixels
    assert np.abs(jpeg.astype(int) - IMAGE).mean() < 1.5
    ybr = np.dstack([IMAGE, np.full_like(IMAGE, 128), np.full_like(IMAGE, 128)])
    data = make_dicom(ybr, PhotometricInterpretation="YBR_FULL", **capture)
    assert (decode_radiograph(data).pixels == IMAGE).all()
    red = np.dstack([IMAGE, IMAGE // 2, IMAGE // 3])
    refused(make_dicom(red, **capture), Reason.COLOUR, "coloured")


def test_threads_do_not_disturb_each_other(make_dicom):
    files = [make_dicom(IMAGE, syntax=syntax) for syntax in ("rle", "jpeg 2000", "jpeg-ls", "jpeg lossless")]
    wrong = []

    def work(data):
        for _ in range(5):
            if not (decode_radiograph(data).pixels == IMAGE).all():
                wrong.append(data)

    threads = [threading.Thread(target=work, args=(data,)) for data in files * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
