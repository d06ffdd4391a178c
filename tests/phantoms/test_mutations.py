"""Damage is damage: seeded, different each time, and beneath a PNG's checksums where it is meant to be."""

import random

import cv2
import numpy as np
import pytest

from histcxr.data.radiograph import decode_radiograph
from histcxr.exceptions import Reason, UnjudgeableError
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.mutations import MUTATIONS, absurd, below_checksums

IMAGE = make_phantom(3, size=(96, 80)).image
PNG = encode_image(IMAGE)
OTHERS = [PNG, encode_image(IMAGE.astype(np.uint16) * 257)]


def outcome(data):
    try:
        decode_radiograph(data)
    except UnjudgeableError as error:
        return error.reason
    return None


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_of_png_repeat_and_differ(name):
    mutate = MUTATIONS[name]
    changed = [mutate(PNG, random.Random(i), OTHERS) for i in range(40)]
    assert changed == [mutate(PNG, random.Random(i), OTHERS) for i in range(40)]
    assert len(set(changed)) > 20
    found = [outcome(data) for data in changed]
    assert Reason.UNEXPECTED not in found
    assert any(found)


def test_absurd_headers_are_believed_until_the_size_is_looked_at():
    found = {outcome(absurd(PNG, random.Random(i), OTHERS)) for i in range(60)}
    assert {Reason.TOO_LARGE, Reason.TOO_SMALL} <= found


def test_damage_below_the_checksums_reaches_the_pixels():
    reached = 0
    for i in range(40):
        data = below_checksums(PNG, random.Random(i), OTHERS)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        reached += pixels is not None and pixels.shape == IMAGE.shape and not np.array_equal(pixels, IMAGE)
    assert reached > 5
