"""Damage is damage: seeded, different each time, and beneath a PNG's checksums where it is meant to be."""

import random

import cv2
import numpy as np
import pytest

from benchmarks.mutations import MUTATIONS, absurd, below_checksums
from histcxr.data.radiograph import decode_radiograph
from histcxr.exceptions import Reason, UnjudgeableError
from histcxr.files.writing import encode_image


@pytest.fixture(scope="module")
def image(phantoms):
    return phantoms(3, size=(96, 80)).image


@pytest.fixture(scope="module")
def files(image):
    return [encode_image(image), encode_image(image.astype(np.uint16) * 257)]


def outcome(data):
    try:
        decode_radiograph(data)
    except UnjudgeableError as error:
        return error.reason
    return None


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_of_png_repeat_and_differ(name, files):
    changed, again = ([MUTATIONS[name](files[0], random.Random(i), files) for i in range(40)] for _ in "12")
    assert changed == again
    assert len(set(changed)) > 20
    found = [outcome(data) for data in changed]
    assert Reason.UNEXPECTED not in found
    assert any(found)


def test_absurd_headers_are_believed_until_the_size_is_looked_at(files):
    found = {outcome(absurd(files[0], random.Random(i), files)) for i in range(60)}
    assert {Reason.TOO_LARGE, Reason.TOO_SMALL} <= found


def test_damage_below_the_checksums_reaches_the_pixels(image, files):
    reached = 0
    for i in range(40):
        data = below_checksums(files[0], random.Random(i), files)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        reached += pixels is not None and pixels.shape == image.shape and not np.array_equal(pixels, image)
    assert reached > 5
