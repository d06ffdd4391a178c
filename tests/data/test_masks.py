import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histcxr.data.masks import MAX_AREA, MAX_BORDER, MIN_AREA, _one_bit, check_mask, decode_mask, read_mask
from histcxr.exceptions import MaskError, Reason
from histcxr.files.formats import read_header
from histcxr.files.writing import encode_image, write_mask
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import exif_jpeg, png_chunk

PHANTOM = make_phantom(11)
MASK = PHANTOM.mask
LEVELS = MASK.view(np.uint8) * np.uint8(255)
SHAPE = MASK.shape


def reason(data, shape=SHAPE):
    with pytest.raises(MaskError) as caught:
        decode_mask(data, shape, "mask")
    assert caught.value.path == "mask"
    return caught.value.reason


def nearest(mask, shape):
    """Nearest neighbour between pixel centres, from its definition; also which pixels lie on a tie."""
    places, ties = [], []
    for old, new in zip(mask.shape, shape, strict=True):
        centres = (np.arange(new) * 2 + 1) * old  # over 2 * new: exact in whole numbers
        places.append(centres // (2 * new))
        ties.append(centres % (2 * new) == 0)
    return mask[np.ix_(*places)], ties[0][:, None] | ties[1][None, :]


@pytest.mark.parametrize("highest", [1, 2, 100, 255])
def test_any_two_levels_make_a_mask(highest):
    assert (decode_mask(encode_image(MASK.astype(np.uint8) * highest), SHAPE) == MASK).all()
    assert (decode_mask(encode_image(MASK.astype(np.uint16) * highest), SHAPE) == MASK).all()


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".jpg"])
def test_formats(extension, tmp_path):
    path = tmp_path / f"mask{extension}"
    path.write_bytes(encode_image(LEVELS, extension))
    mask = read_mask(path, SHAPE)
    assert mask.dtype == np.bool_
    assert (mask != MASK).mean() < (0.002 if extension == ".jpg" else 1e-9)


def test_colours():
    zero = np.zeros_like(LEVELS)
    for channels in ([LEVELS] * 3, [zero, zero, LEVELS], [zero, LEVELS, zero], [LEVELS] * 3 + [255 - zero]):
        assert (decode_mask(encode_image(np.dstack(channels)), SHAPE) == MASK).all()


def test_one_bit_is_unpacked_as_opencv_does(tmp_path):
    write_mask(tmp_path / "mask.png", MASK)
    data = (tmp_path / "mask.png").read_bytes()
    assert read_header(data).bits == 1
    assert (_one_bit(data, read_header(data)) == MASK).all()
    assert (read_mask(tmp_path / "mask.png", SHAPE) == MASK).all()


@pytest.mark.parametrize("width", [32, 33, 39, 40, 63])
def test_one_bit_of_any_width(width):
    mask = np.random.default_rng(width).random((50, width)) < 0.3
    mask[[0, -1]] = mask[:, [0, -1]] = False
    assert (decode_mask(encode_image(mask.astype(np.uint8) * 255, bilevel=True), mask.shape) == mask).all()


def test_one_bit_data_that_is_broken_inside():
    """The checksum of the chunk agrees, and what it holds is no whole image."""
    data = encode_image(LEVELS, bilevel=True)
    start = data.index(b"IDAT") - 4
    packed = data[start + 8 : -16]
    rows = zlib.decompress(packed)
    for content in (packed[:-4] + b"abcd", packed[: len(packed) // 2], zlib.compress(rows[:-1])):
        broken = data[:start] + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
        assert reason(broken) is Reason.MASK_UNREADABLE


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(st.integers(33, 300), st.integers(33, 300)),
    new=st.tuples(st.integers(33, 300), st.integers(33, 300)),
    seed=st.integers(0, 2**16),
)
def test_resizing_takes_the_nearest_pixel_centre(old, new, seed):
    if old == new[::-1]:
        return
    mask = np.random.default_rng(seed).random(old) < 0.3
    expected, ties = nearest(mask, new)
    try:
        got = decode_mask(encode_image(mask.astype(np.uint8)), new)
    except MaskError:  # noise may touch the border too often
        return
    assert ((got == expected) | ties).all()


def test_resized_mask_does_not_move():
    """OpenCV's INTER_NEAREST would move the centre of the lungs by up to half a pixel."""
    larger = cv2.resize(LEVELS, (3 * SHAPE[1], 3 * SHAPE[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (decode_mask(encode_image(larger), SHAPE) == MASK).all()


def test_turned_mask():
    image_like = LEVELS[:, :200]
    assert reason(encode_image(image_like), (200, 224)) is Reason.MASK_UNREADABLE
    turned = decode_mask(exif_jpeg(np.rot90(image_like).copy(), 6), (224, 200))
    assert (turned != MASK[:, :200]).mean() < 0.002  # EXIF holds for masks as for images


def test_pictures_are_no_masks():
    assert reason(encode_image(PHANTOM.image)) is Reason.MASK_NOT_BINARY
    assert reason(encode_image(np.where(MASK, PHANTOM.image, 0))) is Reason.MASK_NOT_BINARY
    halves = np.where(np.arange(224) < 112, 1, 2) * MASK  # one lung 1, the other 2: half would be lost
    assert reason(encode_image(halves.astype(np.uint8))) is Reason.MASK_NOT_BINARY
    smooth = cv2.GaussianBlur(LEVELS, (3, 3), 0.8)
    assert (decode_mask(encode_image(smooth), SHAPE) != MASK).mean() < 0.005


def test_impossible_masks():
    assert reason(encode_image(np.zeros(SHAPE, np.uint8))) is Reason.MASK_EMPTY
    assert reason(encode_image(np.zeros(SHAPE, np.uint8), bilevel=True)) is Reason.MASK_EMPTY
    assert reason(encode_image(255 - LEVELS)) is Reason.MASK_INVERTED
    assert reason(encode_image(255 - LEVELS, bilevel=True)) is Reason.MASK_INVERTED
    assert reason(encode_image(np.full(SHAPE, 255, np.uint8))) is Reason.MASK_TOO_LARGE
    speck = np.zeros(SHAPE, np.uint8)
    speck[100:110, 100:110] = 255
    assert reason(encode_image(speck)) is Reason.MASK_TINY


def test_files_that_are_no_masks(tmp_path):
    (tmp_path / "text.png").write_bytes(b"text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to("missing.png")
    for name, expected in (
        ("", Reason.MASK_MISSING),
        (tmp_path / "missing.png", Reason.MASK_MISSING),
        (tmp_path / "link.png", Reason.MASK_MISSING),
        (tmp_path / "text.png", Reason.MASK_UNREADABLE),
        (tmp_path / "empty.png", Reason.MASK_UNREADABLE),
        (tmp_path, Reason.MASK_UNREADABLE),
    ):
        with pytest.raises(MaskError) as caught:
            read_mask(name, SHAPE)
        assert caught.value.reason is expected
    with pytest.raises(MaskError, match="the content is not an image"):
        read_mask(tmp_path / "text.png", SHAPE)


def test_bounds_of_the_area():
    mask = np.zeros((100, 100), bool)
    with pytest.raises(MaskError, match="no pixel at all"):
        check_mask(mask)
    mask[20, : int(MIN_AREA * 100 * 100) - 1] = True
    with pytest.raises(MaskError, match="1.0% of the image"):
        check_mask(mask, "name")
    mask[20, int(MIN_AREA * 100 * 100) - 1] = True
    check_mask(mask)
    mask[1:-1, 1 : 1 + int(MAX_AREA * 100)] = True
    check_mask(mask)
    mask[1:-1, 1:-1] = True
    with pytest.raises(MaskError, match="covers most of the image"):
        check_mask(mask)


def test_lungs_may_touch_the_border():
    mask = np.zeros((100, 100), bool)
    mask[:, 10:40] = mask[:, 60:90] = True  # cut off above and below: 30 % of the border
    check_mask(mask)
    assert MAX_BORDER > 0.3


@pytest.mark.parametrize("seed", range(20))
def test_every_inverted_phantom_is_noticed(seed):
    mask = make_phantom(seed).mask
    check_mask(mask)
    with pytest.raises(MaskError, match="outside of the lungs"):
        check_mask(~mask)
