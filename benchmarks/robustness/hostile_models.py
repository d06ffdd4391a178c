"""Attacks on whom to believe: model folders from strangers, all with right hashes; signatures; trails and worklists.

As :mod:`benchmarks.robustness.hostile_places`; :mod:`benchmarks.robustness.fuzzed_models` goes on at random.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.robustness.hostile_places import ATTACKS, TRAIL, Place, add, finished
from benchmarks.robustness.model_attacks import Files, change_booster, many_lists, sealed

__all__ = ["ATTACKS"]  # with these among them

# ---- 5: model folders from strangers; all with right hashes


def _model(name: str, expected: str, kind: str = "svm", part: int = 5) -> Callable[..., Any]:
    """Add an attack that changes the files of a sound model."""

    def added(change: Callable[[Files], Any]) -> Callable[[Files], Any]:
        def run(place: Place) -> str:
            sound = place.models / kind
            files = {path.name: path.read_bytes() for path in sound.iterdir() if path.suffix != ".sha256"}
            change(files)
            for file, content in sealed(files).items():
                place.write(f"bad.histcxr/{file}", content)
            place.image("in/a.png")
            return place.call("triage in -m bad.histcxr -o w.csv")

        add(part, name, f"exit 1: .*({expected})")(run)
        return change

    return added


def _manifest(*path: str, value: Any) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        manifest = json.loads(files["manifest.json"])
        place = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        files["manifest.json"] = json.dumps(manifest).encode()

    return change


def _booster(*path: str, value: int) -> Callable[[Files], None]:
    """Set every number of a list in the first tree."""

    def change(document: Any) -> None:
        tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
        tree[path[0]] = [value] * len(tree[path[0]])

    return lambda files: change_booster(files, change)


for _value in (2.0, -1.0, "0.5"):
    _model(f"a threshold of {_value!r}", "is not complete")(
        _manifest("thresholds", "rule_out", "threshold", value=_value)
    )
_model("a list for a table in the manifest", "is not complete|does not describe")(
    _manifest("thresholds", value=[])
)
_model("a text for the versions", "does not describe|is not complete")(_manifest("versions", value="x"))
_model("trees whose nodes have no parents", "booster", "xgboost")(_booster("parents", value=2**31 - 2))
_model("trees that lead outside", "booster", "xgboost")(_booster("left_children", value=10**6))
_model("trees of features that are not there", "booster", "xgboost")(_booster("split_indices", value=10**9))
_model("10 million lists in the schema", "estimator.skops")(
    lambda files: many_lists(files, random.Random(0), "estimator.skops")
)
_model("10 million lists in a booster", "booster", "xgboost")(
    lambda files: many_lists(files, random.Random(0), "booster-0.json.gz")
)
_model("10 million lists in the manifest", "manifest.json")(
    lambda files: many_lists(files, random.Random(0), "manifest.json")
)


def _special(make: Callable[[Path], Any], name: str, file: str = "manifest.json") -> None:
    """Add attacks by what is no plain file, in a model folder and in one of an earlier version."""

    def in_model(place: Place) -> str:
        place.image("in/a.png")
        for one in (place.models / "svm").iterdir():
            place.write(f"bad.histcxr/{one.name}", one.read_bytes())
        (place.folder / "bad.histcxr" / file).unlink()
        make(place.folder / "bad.histcxr" / file)
        return place.call("triage in -m bad.histcxr -o w.csv")

    def in_reference(place: Place) -> str:
        place.image("in/a.png")
        (place.folder / "bad.reference").mkdir()
        make(place.folder / "bad.reference" / "network.json")
        return place.call("triage in -m bad.reference -o w.csv")

    add(5, f"{name} for a model's {file}", "exit 1: .*is no plain file")(in_model)
    add(5, f"{name} for a network.json", "exit 2: .*is missing")(in_reference)


_special(os.mkfifo, "a pipe")
_special(lambda path: path.symlink_to("/dev/zero"), "a link to zeros")


@add(5, "a network.json that names a file to read and 1e9 views", "exit 2: .*is missing")
def _reference(place: Place) -> str:
    place.image("in/a.png")
    settings = {"weights": "/dev/zero", "views": 10**9, "architecture": "imagenet"}
    place.write("bad.reference/network.json", json.dumps(settings))
    return place.call("triage in -m bad.reference -o w.csv")


def _onnx(change: Callable[[Any], Any]) -> Callable[[Place], str]:
    def run(place: Place) -> str:
        import onnx

        model = onnx.load_from_string(resources.files("histcxr.lungs").joinpath("lungs.onnx").read_bytes())
        change(model)
        place.write("lungs.onnx", model.SerializeToString())
        place.image("in/a.png")
        return place.triage("--segmenter lungs.onnx")

    return run


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/passwd")


def _loop(model: Any) -> None:
    model.graph.node[1].op_type = "Loop"
    model.graph.node[1].attribute.add(name="body", type=5).g.name = "again"


add(5, "a segmenter that reads another file", "exit 1: .*as histcxr segment-train writes it")(
    _onnx(_external)
)
add(5, "a segmenter that never ends", "exit 1: .*as histcxr segment-train writes it")(_onnx(_loop))


@add(5, "a pipe for a segmenter", "exit [12]: .*not a regular file")
def _pipe(place: Place) -> str:
    place.image("in/a.png")
    os.mkfifo(place.folder / "lungs.onnx")
    return place.triage("--segmenter lungs.onnx")


# ---- 6: the trust boundary


@add(6, "a model without the signature that is asked for", "exit 1: .*sign")
def _unsigned(place: Place) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.generate().public_key()
    kind = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    place.write("key.pem", public.public_bytes(*kind))
    place.image("in/a.png")
    return place.triage("--require-signature key.pem")


def _both(place: Place) -> str:
    """Go on from a trail, and report it; return how both ended."""
    return f"{place.call('report w.csv -o reports')} | {place.triage()}"


#: What a line may become, by name; ``None`` takes it away.
_DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "edited": lambda line: line.replace(b'"patient":""', b'"patient":"x"'),
    "taken out": lambda line: None,
    "twice": lambda line: line + line,
    "empty": lambda line: b"\n",
    "no UTF-8": lambda line: b"\xff\xfe\n",
    "100,000 brackets": lambda line: b"[" * 100_000 + b"\n",
    "5,000 digits": lambda line: b"9" * 5000 + b"\n",
    "no number": lambda line: b'{"record":NaN}\n',
    "beyond all numbers": lambda line: b'{"record":"image","score":1e999}\n',
    "a list": lambda line: b"[1]\n",
    "null": lambda line: b"null\n",
    "a field twice": lambda line: b'{"record":"image","record":"image"}\n',
    "a megabyte": lambda line: b'"' + b"x" * (1 << 20) + b'"\n',
}


def _damaged_trail(change: Callable[[bytes], bytes | None]) -> Callable[[Place], str]:
    def run(place: Place) -> str:
        lines = finished(place)
        changed = [change(line) if number == 3 else line for number, line in enumerate(lines)]
        place.write(TRAIL, b"".join(line for line in changed if line is not None))
        return _both(place)

    return run


for _name, _change in _DAMAGE.items():
    add(8, f"a trail's line: {_name}", "exit [12]: .*line [45].* \\| exit [12]: .*line [45]")(
        _damaged_trail(_change)
    )


@add(6, "a drawer of a worklist edited", "exit 2: .*is not what")
def _edited_row(place: Place) -> str:
    finished(place)
    text = (place.folder / "w.csv").read_text()
    place.write("w.csv", re.sub(",(review|rule_in),", ",rule_out,", text, count=1))
    return place.call("report w.csv -o reports")
