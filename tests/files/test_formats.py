"""What the readers of formats accept, refuse and leave out, and the pixels that come of it."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from histcxr.exceptions import RadiographError, Reason
from histcxr.files.budget import BUDGET
from histcxr.files.decoding import decode_grey
from histcxr.files.formats import read_header
from histcxr.files.reading import exif_orientation, sniff
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import exif_jpeg, huge_png, palette_png, png_chunk

IMAGE = make_phantom(3).image[40:140, 30:150].copy()  # 100 x 120


def encoded(extension=".png", options=(), pixels=IMAGE):
    return cv2.imencode(extension, pixels, list(options))[1].tobytes()


def png(width=120, height=100, bits=8, colour=0, packed=None, before=b"", interlace=0):
    if packed is None:
        rows = np.zeros((100, 121), np.uint8)
        rows[:, 1:] = IMAGE
        packed = zlib.compress(rows.tobytes())
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def tiff(pixels=IMAGE, photometric=1, order="<", tags=(), pages=1, data=None):
    """A plain uncompressed TIFF of one strip; ``tags`` replace or add (tag, type, count, value)."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes() if data is None else data
    height, width = pixels.shape[:2]
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, pixels.dtype.itemsize * 8),
        259: (3, 1, 1),
        262: (3, 1, photometric),
        273: (4, 1, 8),
        277: (3, 1, 1 if pixels.ndim == 2 else pixels.shape[2]),
        278: (4, 1, height),
        279: (4, 1, len(data)),
    }
    entries.update({tag: rest for tag, *rest in tags})
    start = 8 + len(data) + len(data) % 2
    mark, padding = (b"II*\0" if order == "<" else b"MM\0*"), b"\0" * (len(data) % 2)
    out = mark + struct.pack(order + "I", start) + data + padding
    for page in range(pages):
        size = 2 + 12 * len(entries) + 4
        out += struct.pack(order + "H", len(entries))
        for tag, (kind, count, value) in sorted(entries.items()):
            short = kind == 3 and count == 1
            out += struct.pack(
                order + ("HHIHH" if short else "HHII"), tag, kind, count, *((value, 0) if short else (value,))
            )
        out += struct.pack(order + "I", start + size * (page + 1) if page + 1 < pages else 0)
    return out


def reason(data):
    with pytest.raises(RadiographError) as caught:
        read_header(data, "name")
    assert caught.value.path == "name"
    return caught.value.reason


def grey(data):
    return decode_grey(data, read_header(data))[0]


@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".bmp"])
def test_declared_size(extension):
    header = read_header(encoded(extension))
    assert (header.width, header.height, header.bits, header.channels) == (120, 100, 8, 1)
    assert header.format in ("PNG", "JPEG", "TIFF", "BMP")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a", "GIF"),
        (b"RIFF\0\0\0\0WEBP", "WebP"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x1cftypheic", "HEIF"),
        (b"BM is how this letter begins, and it goes on", ""),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_formats_are_told_by_content(data, name):
    assert sniff(data) == name


def test_foreign_content():
    assert reason(b"") is Reason.FILE_EMPTY
    assert reason(b"hello" * 100) is Reason.NOT_AN_IMAGE
    assert reason(b"\x89PNG") is Reason.TRUNCATED
    with pytest.raises(RadiographError, match="DICOM file"):
        read_header(bytes(128) + b"DICM" + bytes(50))
    with pytest.raises(RadiographError, match="a GIF file"):
        read_header(b"GIF89a" + bytes(50))


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp"])
def test_every_truncation_is_noticed(extension):
    data = encoded(extension)
    for length in [*range(1, 200), *range(200, len(data), 97), len(data) - 1]:
        assert reason(data[:length]) in (Reason.TRUNCATED, Reason.NOT_AN_IMAGE), length


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_every_truncation_of_a_tiff_is_noticed(compression):
    data = encoded(".tif", (cv2.IMWRITE_TIFF_COMPRESSION, compression))
    assert (grey(data) == IMAGE).all()
    for length in [*range(4, len(data), 53), len(data) - 4]:
        assert reason(data[:length]) in (Reason.TRUNCATED, Reason.DAMAGED), length


def test_every_flipped_byte_of_a_png_is_noticed():
    data = encoded(".png")
    rng = np.random.default_rng(0)
    for position in [*range(8, 60), *rng.integers(60, len(data), 200)]:
        broken = bytearray(data)
        broken[position] ^= rng.integers(1, 256)
        assert reason(bytes(broken)) in (Reason.DAMAGED, Reason.TRUNCATED, Reason.UNSUPPORTED)


def test_sizes_are_refused_before_memory_is_asked_for():
    for data in (huge_png(), png(20_000, 20_000), png(1, 2**31 - 1)):
        assert reason(data) is Reason.TOO_LARGE
    side = int(BUDGET.pixels**0.5)
    assert read_header(png(side, side, packed=bytes(side * side // 1000))).width == side
    assert reason(png(side + 1, side, packed=bytes(10**6))) is Reason.TOO_LARGE
    assert reason(tiff(tags=[(256, 4, 1, 2**20)])) is Reason.TOO_LARGE
    bmp = bytearray(encoded(".bmp"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    assert reason(bytes(bmp)) is Reason.TOO_LARGE
    jpeg = bytearray(encoded(".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_535, 65_535)
    assert reason(bytes(jpeg)) is Reason.TOO_LARGE


def test_png_that_promises_more_than_it_holds():
    assert reason(png(8000, 8000)) is Reason.TRUNCATED


@pytest.mark.parametrize(
    "data",
    [
        png(bits=3),
        png(colour=5),
        png(colour=3),  # without a palette
        png(before=png_chunk(b"PLTE", b"four"), colour=3),
        png(width=0),
        png()[:33] + png_chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b"x" * 40) + png()[8:],
    ],
)
def test_impossible_png(data):
    assert reason(data) in (Reason.DAMAGED, Reason.TRUNCATED)


def test_png_with_an_unknown_critical_chunk():
    assert reason(png(before=png_chunk(b"ABCD", b"x"))) is Reason.UNSUPPORTED


def test_png_annexes_are_left_out(capfd):
    annexes = png_chunk(b"iCCP", b"bad\0\0") + png_chunk(b"gAMA", b"x") + png_chunk(b"tEXt", b"\0\0\0")
    data = png(before=annexes) + b"trailing bytes"
    assert read_header(data).stream == png()
    assert (grey(data) == IMAGE).all()
    assert capfd.readouterr() == ("", "")


def test_jpeg_annexes_are_left_out(capfd):
    jpeg = encoded(".jpg")
    odd = (
        jpeg[:2]
        + b"\xff\xe1\x00\x12Exif\0\0II*\0\xff\xff\xff\xff\0\0"
        + b"\xff\xfe\x00\x06note"
        + jpeg[2:]
        + b"more"
    )
    assert read_header(odd).stream == jpeg
    strange = bytearray(jpeg)
    strange[11] = 9  # a version of JFIF that libjpeg complains about
    assert (grey(bytes(strange)) == grey(jpeg)).all()
    assert (grey(odd) == grey(jpeg)).all()
    assert capfd.readouterr() == ("", "")


def test_thumbnail_is_not_the_image():
    thumbnail = encoded(".jpg", pixels=IMAGE[:40, :40])
    jpeg = encoded(".jpg")
    with_thumbnail = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    assert read_header(with_thumbnail).width == 120
    assert reason(with_thumbnail[: len(thumbnail) + 1500]) is Reason.TRUNCATED  # though the thumbnail ended


def test_jpeg_kinds_that_are_not_read():
    jpeg = bytearray(encoded(".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    for position, value in ((1, 0xC3), (4, 12), (9, 4)):  # lossless; 12 bits; four channels
        changed = jpeg.copy()
        changed[frame + position] = value
        assert reason(bytes(changed)) is Reason.UNSUPPORTED
    assert reason(bytes(jpeg[:frame]) + b"\xff\xd9") is Reason.DAMAGED
    assert reason(bytes(jpeg[:20]) + b"abc" + bytes(jpeg[20:])) is Reason.DAMAGED


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_cut_and_closed_again(options, channels):
    jpeg = encoded(".jpg", options, IMAGE if channels == 1 else np.dstack([IMAGE] * 3))
    cut = jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9"
    with pytest.raises(RadiographError, match="premature end of data segment"):
        grey(cut)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_jpeg_that_really_ends_in_mid_grey(options):
    pixels = IMAGE.copy()
    pixels[60:] = 128
    assert (grey(encoded(".jpg", options, pixels))[72:] == 128).all()


def test_progressive_jpeg_cut_and_closed_again():
    jpeg = encoded(".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    scans = [k for k in range(len(jpeg)) if jpeg[k : k + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for scan in scans[1:]:
        assert reason(jpeg[:scan] + b"\xff\xd9") in (Reason.TRUNCATED, Reason.DAMAGED)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_polarity(order, photometric, dtype):
    pixels = IMAGE.astype(dtype) * (257 if dtype == np.uint16 else 1)
    expected = pixels if photometric else np.iinfo(dtype).max - pixels
    assert (grey(tiff(pixels, photometric, order)) == expected).all()


def test_tiff_turned_by_the_decoder():
    data = tiff(tags=[(274, 3, 1, 3)])
    assert (grey(data) == IMAGE[::-1, ::-1]).all()
    assert read_header(data).turned == 3


def test_tiff_kinds_that_are_not_read():
    assert reason(tiff(pages=2)) is Reason.UNSUPPORTED
    assert reason(tiff(IMAGE.astype(np.float32), tags=[(339, 3, 1, 3)])) is Reason.UNSUPPORTED
    assert reason(tiff(IMAGE.astype(np.uint16), tags=[(339, 3, 1, 2)])) is Reason.UNSUPPORTED
    assert reason(tiff(tags=[(259, 3, 1, 7)])) is Reason.UNSUPPORTED
    assert reason(tiff(tags=[(254, 4, 1, 1)])) is Reason.UNSUPPORTED
    assert reason(tiff(tags=[(262, 3, 1, 5)])) is Reason.UNSUPPORTED
    deep = np.dstack([IMAGE.astype(np.uint16)] * 3)
    assert reason(tiff(deep, 2, tags=[(284, 3, 1, 2)])) is Reason.UNSUPPORTED


def test_tiff_that_lacks_data():
    assert reason(tiff(tags=[(279, 4, 1, 100)])) is Reason.DAMAGED
    assert reason(tiff(tags=[(279, 4, 1, 10**6)])) is Reason.TRUNCATED
    assert reason(tiff(tags=[(278, 4, 1, 10)])) is Reason.DAMAGED  # ten strips announced, one there
    packed = zlib.compress(IMAGE.tobytes())
    assert (grey(tiff(tags=[(259, 3, 1, 8)], data=packed)) == IMAGE).all()
    for broken in (packed[:-4] + b"abcd", packed[: len(packed) // 2], zlib.compress(IMAGE.tobytes()[:500])):
        assert reason(tiff(tags=[(259, 3, 1, 8)], data=broken)) is Reason.DAMAGED


def test_damage_that_only_a_second_decoder_notices():
    data = bytearray(encoded(".tif", (cv2.IMWRITE_TIFF_COMPRESSION, 5)))
    middle = len(data) // 2
    data[middle : middle + 500] = b"\x7f" * 500
    header = read_header(bytes(data))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape == IMAGE.shape
    with pytest.raises(RadiographError, match="damaged"):
        decode_grey(bytes(data), header)


def test_kinds_that_the_second_decoder_does_not_know_are_read():
    deep = IMAGE.astype(np.uint16) << 8  # big-endian, from white to black, each pixel a run of two bytes
    runs = b"".join(b"\x01" + pixel.tobytes() for pixel in deep.astype(">u2").view(np.uint8).reshape(-1, 2))
    assert (grey(tiff(deep, 0, ">", tags=[(259, 3, 1, 32773)], data=runs)) == 65535 - deep).all()


TILES = ((322, 4, 1, 1), (323, 4, 1, 1), (324, 4, 1, 8), (325, 4, 1, 1))  # of one pixel


@pytest.mark.parametrize(
    ("tags", "data", "expected"),
    [
        ([(40_000 + k, 7, 10_000, 8) for k in range(1000)], None, Reason.DAMAGED),  # on top of each other
        ([(273, 4, 2**31, 8)], None, Reason.TRUNCATED),
        ([(273, 4, 2**21, 8)], bytes(2**23), Reason.TRUNCATED),
        ([*TILES, *((tag, 4, 1, 8000) for tag in (256, 257))], None, Reason.DAMAGED),
    ],
    ids=["tags", "values", "more values", "tiles"],
)
def test_tiff_of_countless_things_costs_nothing(tags, data, expected):
    assert reason(tiff(tags=tags, data=data)) is expected


@pytest.mark.parametrize("bits", [8, 24])
def test_bitmap(bits):
    data = encoded(".bmp", pixels=IMAGE if bits == 8 else np.dstack([IMAGE] * 3))
    assert (grey(data) == IMAGE).all()
    upside_down = bytearray(data)
    upside_down[22:26] = struct.pack("<i", -100)
    assert (grey(bytes(upside_down)) == IMAGE[::-1]).all()
    coded = bytearray(data)
    coded[30] = 1
    assert reason(bytes(coded)) is Reason.UNSUPPORTED


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation(order):
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for value in range(10):
        entry = struct.pack(order + "HHHIHHI", 1, 274, 3, 1, value, 0, 0)
        assert exif_orientation(block + entry) == (value if 1 <= value <= 8 else 1)
    for broken in (b"", b"II*\0", block, block + b"\xff\xff", b"XX" + block):
        assert exif_orientation(broken) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_opencv_turns_them(orientation):
    jpeg = exif_jpeg(IMAGE, orientation)
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (grey(jpeg) == expected).all()
    exif = jpeg[jpeg.index(b"II*\0") : jpeg.index(b"II*\0") + 26]
    turned_png = png(before=png_chunk(b"eXIf", exif))
    expected = cv2.imdecode(np.frombuffer(exif_jpeg(IMAGE, orientation), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert grey(turned_png).shape == expected.shape
    assert np.abs(grey(turned_png).astype(int) - expected).mean() < 3  # JPEG is lossy, PNG is not


def test_palette_png():
    header = read_header(palette_png(IMAGE))
    assert header.palette
    assert (grey(palette_png(IMAGE)) == IMAGE).all()


def test_interlaced_png_and_chunks_in_pieces():
    whole = encode_image(IMAGE)
    start = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    packed = whole[start + 8 : start + 8 + length]
    pieces = b"".join(png_chunk(b"IDAT", packed[k : k + 1000]) for k in range(0, length, 1000))
    data = whole[:start] + pieces + whole[start + 12 + length :]
    assert (grey(data) == IMAGE).all()


def test_mutated_files_never_raise_anything_else(capfd):
    """Random damage to every format ends in pixels or in a reason."""
    rng = np.random.default_rng(1)
    sources = [encoded(e, o) for e, o in ((".png", ()), (".jpg", ()), (".bmp", ()), (".tif", ()))]
    sources += [
        encoded(".tif", (cv2.IMWRITE_TIFF_COMPRESSION, 8)),
        palette_png(IMAGE),
        exif_jpeg(IMAGE, 6),
        tiff(),
    ]
    for data in sources:
        for round_ in range(60):
            broken = bytearray(data)
            reach = 400 if round_ % 2 else len(data)
            for position in rng.integers(0, min(reach, len(data)), rng.integers(1, 4)):
                broken[position] = rng.integers(256)
            del broken[rng.integers(len(data) // 2, 2 * len(data)) :]
            try:
                pixels = grey(bytes(broken))
            except RadiographError:
                continue
            assert pixels.ndim == 2
    capfd.readouterr()


def test_runs_that_do_not_end_with_the_rows():
    whole = bytearray(encoded(".tif", (cv2.IMWRITE_TIFF_COMPRESSION, 32773)))
    assert (grey(bytes(whole)) == IMAGE).all()
    assert whole[8] < 127  # a run of literals begins the first row
    whole[8] += 1
    with pytest.raises(RadiographError, match="runs of pixels that do not end with the rows"):
        grey(bytes(whole))


def test_a_bitmap_with_a_piece_too_many():
    bitmap = encoded(".bmp")
    with pytest.raises(RadiographError, match="where its own header counts"):
        grey(bitmap[:2000] + bitmap[1500:])
