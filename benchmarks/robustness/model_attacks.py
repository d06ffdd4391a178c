"""What may be done to a saved model's files by somebody who knows the format: changes at random, and attacks.

Models are changed as files by name (:data:`Files`); :func:`sealed` makes their hashes right again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.mutations import MUTATIONS

Rng = random.Random
Files = dict[str, bytes]

HOSTILE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        255,
        2**20,
        10**9,
        2**31 - 1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.5,
        2.0,
        1e308,
    ),
    *(
        float("nan"),
        float("inf"),
        "",
        "x" * 300,
        "imagenet",
        "/dev/zero",
        "../../etc/passwd",
        "\u0000\u202e\x1b[2J",
    ),
    *([], {}, [[]], [None], [0] * 1000, ["a", "b"], {"a": {"b": []}}, {"__loader__": "ListNode"}),
)


def change_json(document: Any, rng: Rng) -> Any:
    """Change one place of a JSON document: another value, none, twice, or what stands elsewhere in it."""
    holder, key = None, None
    place = document
    while isinstance(place, dict | list) and place and (holder is None or rng.random() < 0.85):
        holder = place
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        place = place[key]
    if holder is None:
        return rng.choice(HOSTILE)
    way = rng.random()
    if isinstance(place, str) and key == "content":  # JSON within JSON, as skops writes it
        holder[key] = json.dumps(rng.choice(HOSTILE))
    elif way < 0.6:
        holder[key] = rng.choice(HOSTILE)
    elif way < 0.7:
        del holder[key]
    elif way < 0.8 and isinstance(holder, list):
        holder.extend(json.loads(json.dumps([place])) * rng.choice((1, 3, 500)))
    elif way < 0.9 and isinstance(place, int | float):
        holder[key] = place + rng.choice((-1, 1, 0.5, 10**6))
    else:
        holder[key] = json.loads(json.dumps(rng.choice(_parts(document))))
    return document


def _parts(document: Any) -> list[Any]:
    found, waiting = [], [document]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    return found[1:] or [None]


def change_array(content: bytes, rng: Rng) -> bytes:
    """Change a number, the shape or the type of an array."""
    array = np.load(io.BytesIO(content)).copy()
    way = rng.randrange(6)
    flat = array.reshape(-1)
    if way < 3 and array.size:
        fields = [flat] if array.dtype.names is None else [flat[rng.choice(array.dtype.names)]]
        if fields[0].dtype.kind in "iufb":
            with np.errstate(all="ignore"):
                bad = rng.choice((-1, 0, 1, 2, 255, 10**9, -(10**9), 2**62, np.nan, np.inf, 1e38))
                if fields[0].dtype.kind != "f" and not np.isfinite(bad):
                    bad = 7
                places = rng.sample(range(array.size), min(array.size, rng.choice((1, 5, 10**6))))
                fields[0][places] = np.asarray(bad).astype(fields[0].dtype)
    elif way == 3 and array.dtype.names is None:
        with contextlib.suppress(ValueError, RuntimeError):  # a number that the other type cannot hold
            array = array.astype(
                rng.choice(("<f4", "<f8", "<i4", "<i8", "?", "<c16", "<U3", ">f8", "<M8[s]"))
            )
    elif way == 4:
        array = rng.choice(
            (flat, flat[:0], flat[: len(flat) // 2], array[None], array[:-1] if array.ndim else flat)
        )
    else:
        array = np.concatenate([flat] * rng.choice((2, 50)))
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _unzipped(content: bytes) -> tuple[Any, Files]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
        return json.loads(archive.read("schema.json")), arrays


def _zipped(schema: Any, arrays: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, bytes) else json.dumps(schema))
        for name, content in arrays.items():
            archive.writestr(name, content)
    return out.getvalue()


def mutate_model(files: Files, rng: Rng) -> Files:
    """Return the files of a model, changed in one to three places, or by an attack."""
    files = dict(files)
    if rng.random() < 0.15:
        rng.choice(ATTACKS)(files, rng)
        return files
    boosters = [name for name in files if name.startswith("booster")]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        way = rng.choice(("manifest", "schema", "array", "array", "booster", "booster", "bytes"))
        if way == "booster" and boosters:
            name = rng.choice(boosters)
            files[name] = gzip.compress(_json(change_json(json.loads(gzip.decompress(files[name])), rng)), 1)
        elif way == "manifest":
            files["manifest.json"] = _json(change_json(json.loads(files["manifest.json"]), rng))
        elif way == "bytes":
            name = rng.choice(list(files))
            files[name] = (
                MUTATIONS[rng.choice(list(MUTATIONS))](files[name], rng, list(files.values())) or b"x"
            )
            if way == "bytes":
                break
        else:
            schema, arrays = _unzipped(files["estimator.skops"])
            if way == "schema" or not arrays:
                schema = change_json(schema, rng)
            else:
                name = rng.choice(list(arrays))
                arrays[name] = change_array(arrays[name], rng)
            files["estimator.skops"] = _zipped(schema, arrays)
    return files


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def change_booster(files: Files, change: Callable[[Any], Any], name: str = "booster-0.json.gz") -> None:
    """Do something to the document of a booster."""
    document = json.loads(gzip.decompress(files[name]))
    change(document)
    files[name] = gzip.compress(_json(document), 1)


def many_lists(files: Files, rng: Rng, where: str = "") -> None:
    """Small lists by the million: bytes that Python's objects make thirty times larger."""
    bomb = b"[" + b"[]," * (10 * 10**6) + b"[]]"
    where = where or rng.choice(list(files))
    if where.startswith("booster"):
        files[where] = gzip.compress(bomb, 1)
    elif where == "estimator.skops":
        files[where] = _zipped(bomb, _unzipped(files[where])[1])
    else:
        files["manifest.json"] = (
            files["manifest.json"].rstrip()[:-1] + b',"more":' + bomb[: 15 << 20 | 1] + b"[]]}"
        )


def many_zeros(files: Files, rng: Rng) -> None:
    """An array of zeros, a thousand times as large as its file."""
    schema, arrays = _unzipped(files["estimator.skops"])
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<f8", "fortran_order": False, "shape": (rng.choice((9, 40)) << 20,)}
    )
    shape = int(re.findall(rb"\((\d+),", out.getvalue())[0])
    arrays[rng.choice(list(arrays))] = out.getvalue() + bytes(8 * shape)
    files["estimator.skops"] = _zipped(schema, arrays)


def laughs(files: Files, rng: Rng) -> None:
    """Lists that hold one list ten times, which does the same: 10**9 parts in a few lines."""
    schema, arrays = _unzipped(files["estimator.skops"])
    text = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": "1",
        "is_json": True,
    }
    node: Any = text
    for level in range(9):
        inner = {
            "__class__": "list",
            "__module__": "builtins",
            "__loader__": "ListNode",
            "__id__": 10**6 + level,
        }
        short = {**inner, "content": []}
        node = (
            {**inner, "content": [node] + [{**node, "content": short["content"]}] * 9}
            if level
            else {
                **inner,
                "content": [node] * 10,
            }
        )
    places = [
        part for part in _parts(schema) if isinstance(part, dict) and isinstance(part.get("content"), dict)
    ]
    place = rng.choice(places)["content"]
    inside = place.get("content", place) if isinstance(place.get("content", place), dict) else place
    if inside:
        inside[rng.choice(list(inside))] = node
    files["estimator.skops"] = _zipped(schema, arrays)


def same_array(files: Files, rng: Rng) -> None:
    """One large array under many names."""
    schema, arrays = _unzipped(files["estimator.skops"])
    name = rng.choice(list(arrays))
    out = io.BytesIO()
    np.save(out, np.zeros(4 << 20))
    arrays[name] = out.getvalue()
    nodes = [one for one in _parts(schema) if isinstance(one, dict) and one.get("file") == name]
    lists = [one for one in _parts(schema) if isinstance(one, dict) and isinstance(one.get("content"), list)]
    if nodes and lists:
        rng.choice(lists)["content"].extend({**nodes[0], "__id__": 10**6 + i} for i in range(200))
    files["estimator.skops"] = _zipped(schema, arrays)


def circle(files: Files, rng: Rng) -> None:
    """A part that holds itself."""
    schema, arrays = _unzipped(files["estimator.skops"])
    held = [part for part in _parts(schema) if isinstance(part, dict) and "__loader__" in part]
    part = rng.choice(held)
    inner = [one for one in _parts(part) if isinstance(one, dict) and "__loader__" in one]
    if inner:
        part["__id__"] = rng.choice(inner)["__id__"] = 10**6
    files["estimator.skops"] = _zipped(schema, arrays)


def large_setting(files: Files, rng: Rng) -> None:
    """A setting that is a whole number becomes one that asks for all memory or time."""
    schema, arrays = _unzipped(files["estimator.skops"])
    nodes = [
        one for one in _parts(schema) if isinstance(one, dict) and str(one.get("content", "x")).isdigit()
    ]
    for node in rng.sample(nodes, min(len(nodes), rng.choice((1, 3)))):
        node["content"] = str(rng.choice((300, 1000, 2048, 4000, 10**5, 10**7, 10**9, 2**62)))
    files["estimator.skops"] = _zipped(schema, arrays)


def to_fetch(files: Files, rng: Rng) -> None:
    """Name a file to read or weights to download among the arguments of a network, and other settings' texts."""
    schema, arrays = _unzipped(files["estimator.skops"])
    bad = rng.choice(("imagenet", "/dev/zero", "/etc/passwd", "https://example.org/x.h5"))
    node = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(bad),
        "is_json": True,
    }
    tables = [one for one in _parts(schema) if isinstance(one, dict) and one.get("__loader__") == "DictNode"]
    for part in rng.sample(tables, (len(tables) + 1) // 2):
        kinds = part["key_types"]["content"]
        if kinds:
            part["content"]["weights"] = node
            kinds.append({**kinds[0], "__id__": 10**6 + len(kinds)})
    files["estimator.skops"] = _zipped(schema, arrays)


ATTACKS: tuple[Callable[[Files, Rng], None], ...] = (
    *(many_lists, many_zeros, laughs, same_array, circle),
    *(large_setting, large_setting, large_setting, to_fetch, to_fetch),
)


def mutate_onnx(content: bytes, rng: Rng) -> bytes:
    """Change bytes of an ONNX file, or wrap in it what no network for lungs has."""
    way = rng.random()
    if way < 0.5:
        return MUTATIONS[rng.choice(list(MUTATIONS))](content, rng, [content])
    if way < 0.8:  # small bytes of the head of a node or a tensor
        changed = bytearray(content)
        for _ in range(rng.choice((1, 2, 20))):
            place = rng.choice(
                [m.start() for m in re.finditer(b"Conv|kernel_shape|strides|pads|kernel|bias", content)]
            )
            changed[max(0, place + rng.randrange(-12, 40))] = rng.randrange(256)
        return bytes(changed)
    old, new = rng.choice(
        (
            (b"Relu", b"Loop"),
            (b"Relu", b"Scan"),
            (b"pads", b"Pads"),
            (b"Sigmoid", b"Reshape"),
            (b"Concat", b"Expand"),
        )
    )
    return content.replace(old, new, rng.choice((1, 100)))


def sealed(files: Files) -> Files:
    """Make sizes and hashes right again, as somebody would who knows the format."""
    try:
        manifest = json.loads(files["manifest.json"])
        for name, facts in manifest["files"].items():
            facts.update(bytes=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
        files["manifest.json"] = _json(manifest)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # the list itself is what was changed
    digest = hashlib.sha256(files["manifest.json"]).hexdigest()
    return {**files, "manifest.sha256": f"{digest}  manifest.json\n".encode()}
