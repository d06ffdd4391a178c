"""Damage to the bytes of a PNG or DICOM file, at random and by name: :data:`MUTATIONS`."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

from histcxr.phantoms.broken_files import PNG_SIGNATURE, png_chunk, png_file

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
"""A file's bytes, a seeded generator, and the bytes of other files, to changed bytes."""

_SIZES = (
    b"\x28\x00\x10\x00",  # rows
    b"\x28\x00\x11\x00",  # columns
    b"\x28\x00\x00\x01",  # bits allocated
    b"\x28\x00\x01\x01",  # bits stored
    b"\x28\x00\x02\x00",  # samples per pixel
)
_PNG_SIDES = (0, 1, 63, 8191, 8192, 65535, 2**31 - 1)
_PNG_FIELDS = (_PNG_SIDES, _PNG_SIDES, (1, 2, 4, 8, 16, 32), (0, 2, 3, 4, 6, 7))  # depth, kind of colour


def flipped(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Single bits turned, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_head(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Bytes changed in the tags and in the head of the compressed image, where every bit steers something."""
    changed = bytearray(data)
    first = 128 if data[128:132] == b"DICM" else 0
    for _ in range(rng.choice((1, 2, 5))):
        changed[rng.randrange(first, min(len(data), first + 972))] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def with_a_hole(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A piece is missing, or something else stands there."""
    first, last = sorted(rng.randrange(_start(data), len(data)) for _ in range(2))
    return data[:first] + rng.randbytes(rng.choice((0, 0, 7, 100))) + data[last:]


def spliced(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The head of one file and the tail of another."""
    other = rng.choice(others)
    return data[: rng.randrange(_start(data), len(data))] + other[rng.randrange(_start(other), len(other)) :]


def absurd(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Numbers that ask for very much, or for nothing, where sizes and depths stand."""
    if data.startswith(PNG_SIGNATURE):  # another header with a checksum that agrees, so that it is believed
        fields = list(struct.unpack(">IIBBBBB", data[16:29]))
        for place in rng.sample(range(4), rng.choice((1, 2))):
            fields[place] = rng.choice(_PNG_FIELDS[place])
        return data[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)) + data[33:]
    changed = bytearray(data)
    for tag in rng.sample(_SIZES, rng.choice((1, 2))):
        value = rng.choice((0, 1, 7, 8, 64, 8191, 65535))
        for order in "<>":
            place = data.find(tag if order == "<" else struct.pack(">2H", *struct.unpack("<2H", tag)))
            if place > 0:
                changed[place + 8 : place + 10] = struct.pack(f"{order}H", value)
    return bytes(changed)


def long(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A length of an element, an item, a chunk or a segment that runs far out of the file."""
    changed = bytearray(data)
    place = rng.randrange(_start(data), min(len(data), 1500) - 4)
    lengths = (b"\xff\xff\xff\xff", b"\xfe\xff\xff\x7f", b"\0\0\0\0", b"SQ\0\0")
    changed[place : place + 4] = rng.choice(lengths)
    return bytes(changed)


def below_checksums(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Bits turned inside a chunk of a PNG, with a checksum that agrees; anything else as :func:`flipped`."""
    if not data.startswith(PNG_SIGNATURE):
        return flipped(data, rng, others)
    chunks = list(_chunks(data))
    longest = max(range(len(chunks)), key=lambda i: len(chunks[i][1]))
    place = rng.choice((longest, rng.randrange(len(chunks))))
    kind, content = chunks[place]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 30)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    if kind == b"IDAT" and rng.random() < 0.5:  # sound compression around damaged rows
        rows = bytearray(zlib.decompress(content))
        for _ in range(rng.choice((1, 10, 300))):
            rows[rng.randrange(len(rows))] = rng.randrange(256)
        changed = bytearray(zlib.compress(bytes(rows)))
    chunks[place] = (kind, bytes(changed))
    if rng.random() < 0.3:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    return png_file(chunks)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents of a sound PNG's chunks, its image data made one."""
    found: list[tuple[bytes, bytes]] = []
    place = 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        if kind == b"IDAT" and found[-1][0] == b"IDAT":
            found[-1] = (kind, found[-1][1] + content)
        else:
            found.append((kind, content))
        place += 12 + length
    return found


def _start(data: bytes) -> int:
    """The first byte behind what a file is known by."""
    return 132 if data[128:132] == b"DICM" else 8


_ALL = (flipped, flipped_head, cut, with_a_hole, spliced, absurd, long, below_checksums)

MUTATIONS: dict[str, Mutation] = {mutate.__name__.replace("_", " "): mutate for mutate in _ALL}
"""All of them by name."""
