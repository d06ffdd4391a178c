"""Damaged DICOM files: each is either read or refused with a reason, in good time, and nothing else ever happens."""

import random
import struct
import time
import zlib

import numpy as np
import pytest

from histcxr.data.anatomy import make_phantom
from histcxr.data.radiograph import Radiograph, decode_radiograph
from histcxr.exceptions import Reason, UnjudgeableError

pytest.importorskip("pydicom")

IMAGE = make_phantom(3, size=(96, 80)).image
SYNTAXES = (
    *("implicit", "explicit", "deflated", "big endian", "rle", "jpeg", "jpeg extended", "jpeg lossless"),
    *("jpeg-ls", "jpeg 2000"),
)
SECONDS = 5


@pytest.fixture(scope="module")
def sound(make_dicom, lut_item):
    """One file of each syntax, with everything that is ever read."""
    tags = {
        "ViewPosition": "PA",
        "WindowCenter": [2048, 100],
        "WindowWidth": [4096, 50],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PatientOrientation": ["L", "F"],
        "ViewCodeSequence": [],
        "PatientName": "Doe^Jane",
    }
    deep = IMAGE.astype(np.uint16) << 4
    files = {name: make_dicom(deep, bits=12, syntax=name, **tags) for name in SYNTAXES if name != "jpeg"}
    files["jpeg"] = make_dicom(IMAGE, syntax="jpeg", **tags)
    files["lut"] = make_dicom(deep, bits=12, VOILUTSequence=[lut_item(np.arange(4096), 0, 12)])
    files["implicit lut"] = make_dicom(
        deep, bits=12, syntax="implicit", ModalityLUTSequence=[lut_item(np.arange(4096), 0, 12)]
    )
    return files


def flipped(data, rng, files):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_head(data, rng, files):
    """In the tags and in the head of the compressed image, where every bit steers something."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        changed[rng.randrange(128, min(len(data), 1100))] = rng.randrange(256)
    return bytes(changed)


def cut(data, rng, files):
    return data[: rng.randrange(len(data))]


def with_a_hole(data, rng, files):
    first, last = sorted(rng.randrange(132, len(data)) for _ in range(2))
    return data[:first] + rng.randbytes(rng.choice((0, 0, 7, 100))) + data[last:]


def spliced(data, rng, files):
    """The head of one file and the tail of another."""
    other = rng.choice(list(files.values()))
    return data[: rng.randrange(132, len(data))] + other[rng.randrange(132, len(other)) :]


def absurd(data, rng, files):
    """Numbers that ask for very much, or for nothing, wherever a number stands."""
    changed = bytearray(data)
    tags = (
        b"\x28\x00\x10\x00",
        b"\x28\x00\x11\x00",
        b"\x28\x00\x00\x01",
        b"\x28\x00\x01\x01",
        b"\x28\x00\x02\x00",
    )
    for tag in rng.sample(tags, rng.choice((1, 2))):
        value = rng.choice((0, 1, 7, 8, 64, 8191, 65535))
        for order in "<>":
            place = data.find(tag if order == "<" else struct.pack(">2H", *struct.unpack("<2H", tag)))
            if place > 0:
                changed[place + 8 : place + 10] = struct.pack(f"{order}H", value)
    return bytes(changed)


def long(data, rng, files):
    """A length of a data element, an item or a segment that runs far out of the file."""
    changed = bytearray(data)
    place = rng.randrange(132, min(len(data), 1500) - 4)
    changed[place : place + 4] = rng.choice(
        (b"\xff\xff\xff\xff", b"\xfe\xff\xff\x7f", b"\0\0\0\0", b"SQ\0\0")
    )
    return bytes(changed)


def outcome(data):
    """What became of a file: a radiograph's shape or a reason. Anything else comes through and fails the test."""
    start = time.perf_counter()
    result: Radiograph | UnjudgeableError
    try:
        result = decode_radiograph(data)
    except UnjudgeableError as error:
        result = error
    assert time.perf_counter() - start < SECONDS
    assert "Doe" not in repr(result)
    if isinstance(result, UnjudgeableError):
        assert result.reason in set(Reason) - {Reason.UNEXPECTED}
        return str(result.reason)
    assert result.pixels.dtype == np.uint8
    assert result.pixels.ndim == 2
    return "radiograph"


@pytest.mark.parametrize("syntax", [*SYNTAXES, "lut", "implicit lut"])
@pytest.mark.parametrize("mutate", [flipped, flipped_head, cut, with_a_hole, spliced, absurd, long])
def test_damage_never_does_more_than_a_reason(sound, syntax, mutate):
    if mutate is absurd and syntax == "deflated":
        pytest.skip("its numbers cannot be found")
    rng = random.Random(f"{syntax} {mutate.__name__}")
    data = sound[syntax]
    assert outcome(data) == "radiograph"
    seen = {outcome(mutate(data, rng, sound)) for _ in range(30)}
    assert seen - {"radiograph"}, "no damage was noticed"


@pytest.mark.parametrize("depth", [100, 20_000])
def test_sequences_within_sequences(make_dicom, depth):
    data = make_dicom(IMAGE)
    place = data.index(b"\x28\x00\x02\x00US")
    nested = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    assert outcome(data[:place] + nested + data[place:]) in ("damaged", "truncated", "radiograph")


def test_a_bomb_is_refused_before_it_unpacks(make_dicom):
    data = make_dicom(IMAGE, syntax="deflated")
    start = data.index(b"1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(2**20)
    bomb = b"".join(packer.compress(block) for _ in range(300)) + packer.flush()
    assert len(bomb) < 2**20
    assert outcome(data[: start + 22] + bomb) in ("too_large", "truncated", "damaged", "unsupported")
