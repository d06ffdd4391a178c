"""Damage that decodes without a word is found in the pixels; what scanners and readers do to a film is not damage."""

import cv2
import numpy as np
import pytest

from histcxr.data.radiograph import decode_radiograph
from histcxr.exceptions import RadiographError, Reason
from histcxr.files.damage import check_pixels, check_waves
from histcxr.phantoms.anatomy import make_phantom

IMAGE = make_phantom(0).image
HEIGHT, WIDTH = IMAGE.shape


def refused(pixels, match):
    with pytest.raises(RadiographError, match=match) as caught:
        check_pixels(pixels, "a")
    assert caught.value.reason is Reason.DAMAGED


def moved(first, last, by):
    """A piece of the rows in another's place, as pixels lie in a file."""
    flat = IMAGE.ravel().copy()
    flat[first:last] = IMAGE.ravel()[first + by : last + by]
    return flat.reshape(IMAGE.shape)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_sound_films_pass(seed, depth):
    image = make_phantom(seed, sick=seed % 2 == 0).image
    square = cv2.copyMakeBorder(image, 0, 0, 30, 30, cv2.BORDER_CONSTANT, value=0)
    letterbox = cv2.copyMakeBorder(image, 40, 40, 0, 0, cv2.BORDER_CONSTANT, value=0)
    barred, labelled = image.copy(), image.copy()
    barred[:25], barred[-30:], barred[:, :20] = 0, 0, 255
    labelled[5:25, 10:60] = 255
    large = cv2.resize(image, (1200, 1500), interpolation=cv2.INTER_CUBIC)
    for sound in (image, square, letterbox, barred, labelled, large, image[::-1], 255 - image):
        check_pixels(np.ascontiguousarray(sound).astype(depth) * (257 if depth == np.uint16 else 1), "a")


@pytest.mark.parametrize("turned", [1, -1])  # bitmaps are stored from the bottom to the top
def test_pieces_in_the_wrong_place(turned):
    start = 90 * WIDTH + WIDTH // 2
    refused(moved(start, start + 40 * WIDTH, 37 * WIDTH + 70)[::turned], "the image is torn at row")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_parts_of_one_level(level):
    lost = IMAGE.copy().ravel()
    lost[120 * WIDTH + WIDTH // 2 :] = level
    refused(
        lost.reshape(IMAGE.shape),
        "torn at row 12.|one grey level stands for a part of the image, from row 12.",
    )


@pytest.mark.parametrize("size", [8, 16])
def test_jumps_of_brightness_from_a_block_on(size):
    lighter = IMAGE.astype(int)
    row, column = 96, WIDTH // 2 // size * size
    lighter[row : row + size, column:] += 45
    lighter[row + size :] += 45
    refused(np.clip(lighter, 0, 255).astype(np.uint8), "the brightness jumps within row 97 of 224")


def test_noise():
    noisy = IMAGE.copy()
    noisy[100:, :120] = np.random.default_rng(0).integers(0, 256, (HEIGHT - 100, 120))
    refused(noisy, "noise|torn")
    check_pixels(IMAGE, "a", noise=False)


def test_noise_of_a_large_image_is_found_in_a_few_rows():
    large = cv2.resize(IMAGE, (1000, 1000))
    check_pixels(large, "a")
    large[500:, :500] = np.random.default_rng(0).integers(0, 256, (500, 500))
    refused(large, "parts of the image are noise")


@pytest.mark.parametrize("row", [700, 702])  # averaged, both seams lie within a row
@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff"])
def test_damage_that_averaging_would_hide(row, extension):
    """A white end of a large film, which no longer begins within a row once its pixels are averaged."""
    large = cv2.resize(IMAGE, (1000, 1000), interpolation=cv2.INTER_CUBIC)
    large.ravel()[row * 1000 + 400 :] = 255
    with pytest.raises(RadiographError, match=f"row {row} of 1000"):
        decode_radiograph(cv2.imencode(extension, large)[1].tobytes(), side=224)


@pytest.mark.parametrize("across", [0, 1])
def test_a_wavelet_that_covers_the_image(across):
    """Stripes of two pixels and little else of that size, as of a spoilt part of a JPEG 2000 file."""
    stripes = np.kron(np.random.default_rng(0).normal(0, 40, (56, 1)), [[1], [1], [-1], [-1]])
    spoilt = IMAGE + (stripes.T if across else stripes)
    with pytest.raises(RadiographError, match="one size of detail covers the image"):
        check_waves(np.clip(spoilt, 0, 255).astype(np.uint8), "a")


@pytest.mark.parametrize("seed", range(4))
def test_details_of_sound_films_pass(seed):
    image = make_phantom(seed).image
    noise = np.random.default_rng(seed).normal(0, 4, (900, 900))
    noisy = np.clip(cv2.resize(image, (900, 900), interpolation=cv2.INTER_CUBIC) + noise, 0, 255)
    for sound in (image, 255 - image, cv2.GaussianBlur(image, (0, 0), 2), noisy.astype(np.uint8)):
        check_waves(sound, "a")
