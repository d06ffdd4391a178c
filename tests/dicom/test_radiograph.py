"""DICOM files to grey levels: every encoding, every depth, the grey-scale steps, and what is refused."""

import io
import itertools
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from histcxr.data.masks import decode_mask
from histcxr.data.radiograph import decode_radiograph, read_radiograph
from histcxr.data.radiograph import read_any_header as read_header
from histcxr.dicom.grey import LINEAR_EXACT, SIGMOID, Lut, Rescale, Window, level_table
from histcxr.exceptions import MaskError, RadiographError, Reason
from histcxr.features.histograms import masked_histogram
from histcxr.files.headers import dicom_start, sniff
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

pydicom = pytest.importorskip("pydicom")

PHANTOM = make_phantom(7)
IMAGE = PHANTOM.image
DEEP = IMAGE.astype(np.uint16)


def refused(data, reason, match=None):
    with pytest.raises(RadiographError, match=match) as caught:
        decode_radiograph(data)
    assert caught.value.reason is reason, caught.value
    return caught.value


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
        data = make_dicom(stored, bits=12, HighBit=high)
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


def test_polarity_is_turned_once(make_dicom):
    white = 255 - IMAGE
    for photometric, shape, stored in (
        ("MONOCHROME1", "INVERSE", white),
        ("MONOCHROME1", None, white),
        ("MONOCHROME1", "IDENTITY", white),
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


def test_several_frames_are_used_where_one_is_named(make_dicom):
    other = make_phantom(8).image
    both = np.concatenate([other, IMAGE])
    for syntax in ("explicit", "jpeg 2000", "rle"):
        dataset = pydicom.dcmread(io.BytesIO(make_dicom(both, Rows=224, NumberOfFrames=2)))
        if syntax != "explicit":
            dataset.compress("1.2.840.10008.1.2.5" if syntax == "rle" else "1.2.840.10008.1.2.4.90")
        for frame, expected in ((1, other), (2, IMAGE)):
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
    jpeg = decode_radiograph(make_dicom(grey, syntax="jpeg", **capture)).pixels
    assert np.abs(jpeg.astype(int) - IMAGE).mean() < 1.5
    ybr = np.dstack([IMAGE, np.full_like(IMAGE, 128), np.full_like(IMAGE, 128)])
    data = make_dicom(ybr, PhotometricInterpretation="YBR_FULL", **capture)
    assert (decode_radiograph(data).pixels == IMAGE).all()
    red = np.dstack([IMAGE, IMAGE // 2, IMAGE // 3])
    refused(make_dicom(red, **capture), Reason.COLOUR, "coloured")


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
        "50,176 bytes in a part of the image, 44,800",
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
    monkeypatch.setattr("histcxr.dicom.dataset.MAX_INFLATED", 50_000)
    refused(data, Reason.TOO_LARGE, "unpacks to more than 50,000 bytes")


def test_a_dicom_file_is_no_mask(make_dicom):
    with pytest.raises(MaskError, match="a DICOM file") as caught:
        decode_mask(make_dicom(IMAGE), IMAGE.shape)
    assert caught.value.reason is Reason.MASK_UNREADABLE


def test_headers_cost_no_decoding(make_dicom):
    header = read_header(make_dicom(DEEP * 16, bits=12, syntax="jpeg 2000"))
    assert (header.format, header.width, header.height, header.bits) == ("DICOM", 224, 224, 12)
    assert "frame" not in repr(header)


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
        assert "pip install 'histcxr[dicom]'" in done.stdout
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


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_lossless_jpeg_whose_end_was_put_back(make_dicom, bits):
    """Decoders go on with the last value where data is missing, and say nothing."""
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
        refused(broken + data[-8:], Reason.TRUNCATED, "lower part of the image is missing")
