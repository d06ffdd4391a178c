"""The chain of a trail's lines: whatever is changed is named, by whoever reads it, and never a traceback."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from histcxr.decision.groups import certify_groups
from histcxr.decision.thresholds import decide
from histcxr.exceptions import HistcxrError, InputError, OutputError
from histcxr.worklist.audit_trail import AUDIT_SUFFIX
from histcxr.worklist.engine import triage
from histcxr.worklist.reading import FinishedTriage
from histcxr.worklist.trail_lines import Chain, _decide

from .test_audit_trail import HEADER, record


@pytest.fixture(scope="module")
def finished(study, model, tmp_path_factory):
    """A worklist and its trail, not to be changed; some images are broken, some patients have several."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(study, folder / "in")
    (folder / "in" / "broken.png").write_bytes(b"broken")
    triage(folder / "in", model, folder / "w.csv")
    return folder


def read(folder):
    with FinishedTriage(folder / "w.csv", folder / f"w.csv{AUDIT_SUFFIX}") as found:
        return list(found)


@pytest.fixture
def mine(finished, tmp_path):
    """A copy, and a function that writes other lines into its trail; ``chained``: with all hashes right again."""
    for name in ("w.csv", f"w.csv{AUDIT_SUFFIX}"):
        shutil.copy(finished / name, tmp_path / name)
    trail = tmp_path / f"w.csv{AUDIT_SUFFIX}"

    def write(change, *, chained=True):
        lines = change(trail.read_bytes().splitlines(keepends=True))
        if chained:
            chain = Chain()
            lines = [chain.link(json.loads(line)) for line in lines]
        trail.write_bytes(b"".join(lines))
        return tmp_path

    return write


def refused(folder, finished, model, message):
    with pytest.raises(InputError, match=message):
        read(folder)
    with pytest.raises((OutputError, InputError), match=message):
        triage(finished / "in", model, folder / "w.csv")


def test_each_line_holds_the_hash_of_the_line_before(finished):
    lines = (finished / f"w.csv{AUDIT_SUFFIX}").read_bytes().splitlines(keepends=True)
    assert "before" not in json.loads(lines[0])
    for before, line in zip(lines, lines[1:], strict=False):
        assert json.loads(line)["before"] == hashlib.sha256(before).hexdigest()
    assert len(read(finished)) == 24


def test_the_head_is_the_hash_of_the_last_line(finished, model, tmp_path):
    head = triage(finished / "in", model, tmp_path / "w.csv").audit_head
    last = (tmp_path / f"w.csv{AUDIT_SUFFIX}").read_bytes().splitlines(keepends=True)[-1]
    assert head == hashlib.sha256(last).hexdigest()


def edited(number, **fields):
    def change(lines):
        line = {**json.loads(lines[number]), **fields}
        return [
            *lines[:number],
            json.dumps(line, separators=(",", ":")).encode() + b"\n",
            *lines[number + 1 :],
        ]

    return change


def scored(lines):
    """Number of the first line with a score."""
    return next(i for i, line in enumerate(lines) if json.loads(line).get("score") is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited(3, patient="x"), "line 5 .* does not follow from line 4: one of the two was edited"),
        (edited(0, key="x"), "line 2 .* does not follow from line 1|belongs to a run with key"),
        (lambda lines: lines[:4] + lines[5:], "line 5 .* does not follow from line 4"),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "line 5 .* does not follow from line 4"),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], "line 5 .* does not follow from line 4"),
    ],
    ids=["edited", "edited run", "taken out", "other order", "put in"],
)
def test_what_was_changed_is_named(mine, finished, model, change, message):
    refused(mine(change, chained=False), finished, model, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decision": "rule_out"}, "puts a score of .* into rule_out"),
        ({"own": "rule_out"}, "puts a score of .* into rule_out"),
        ({"score": 2.0}, "has score 2.0"),
        ({"score": True}, "has score True"),
        ({"score": None}, "puts what has no score into"),
        ({"reason": "truncated"}, "puts a score of .* for the reason 'truncated'"),
        ({"reason": "other_image"}, "for the reason 'other_image'"),
        ({"reason": "made up"}, "has reason 'made up'"),
        ({"decision": []}, r"has decision \[\]"),
        ({"file": 5}, "has file 5"),
        ({"stat": [10**30, "a", None]}, "has stat"),
        ({"time": "yesterday"}, "has time 'yesterday'"),
        ({"time": "9999-12-31T23:59:59-23:00"}, "has time '9999"),
        ({"site": "AAAA"}, "other numbers for the test of the folder"),
        ({"uids": ["1", "2", "3"]}, "has identifiers"),
        ({"limits": [0.1, 0.9]}, "the model has none"),
        ({"patient_name": "x"}, "has 'patient_name', which no triage writes"),
        ({"record": "run"}, "is a record 'run', which has no place here"),
        ({"record": []}, r"is a record \[\]"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_decision_that_does_not_follow_is_refused_even_with_right_hashes(
    mine, finished, model, fields, message
):
    """The line is one in review: its score gives nothing else."""

    def change(lines):
        number = next(i for i, line in enumerate(lines) if json.loads(line).get("decision") == "review")
        while json.loads(lines[number])["score"] is None:
            number += 1
        return edited(number, **fields)(lines)

    refused(mine(change), finished, model, f"line .* is damaged or was changed: it .*{message}")


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"NaN", b'{"record":NaN}', b"[1]", b"null", b"\x00"),
        *(
            b'{"a":1e999}',
            b'{"record":"image","record":"image"}',
            b'{"record": "image"}',
            b'{"record":"image"}',
        ),
        b'{"score":' + b"9" * 400 + b"}",
        b'"' + b"x" * (1 << 20) + b'"',
    ],
    ids=lambda text: str(text[:20]),
)
@pytest.mark.parametrize("number", [0, 3, -1])
def test_no_form_of_damage_is_a_traceback(mine, finished, model, text, number):
    def change(lines):
        lines[number] = text + b"\n"
        return lines

    refused(mine(change, chained=False), finished, model, "is damaged or was changed|is another file")


def test_no_random_damage_is_a_traceback(mine, finished, model):
    rng = np.random.default_rng(4)
    content = (finished / f"w.csv{AUDIT_SUFFIX}").read_bytes()

    def change(lines):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        return [bytes(damaged)]

    for _ in range(40):
        with pytest.raises(HistcxrError):
            read(mine(change, chained=False))


def test_a_trail_of_an_earlier_version_says_to_start_anew(mine, finished, model):
    refused(mine(edited(0, format_version=2)), finished, model, "written by histcxr .* must be triaged anew")


def test_counts_that_are_not_those_of_the_rows_are_refused(mine):
    with pytest.raises(InputError, match="its last line counts 24 in rule_out, and its rows are"):
        read(mine(lambda lines: edited(len(lines) - 1, rule_out=24)(lines)))


def test_an_image_of_a_patient_who_is_not_ruled_out_cannot_be(mine):
    """With right hashes, and a worklist that agrees."""

    def change(lines):
        lone = scored(lines)
        drawers = [json.loads(line).get("decision") for line in lines]
        for number in (drawers.index("rule_out"), drawers.index("rule_in", lone)):
            lines = edited(number, patient="p")(lines)
        return lines

    folder = mine(change)
    rows = (folder / "w.csv").read_text().splitlines()
    for drawer in ("rule_out", "rule_in"):
        number = next(i for i, row in enumerate(rows) if row.split(",")[2] == drawer)
        rows[number] = rows[number].replace(",,", ",p,", 1)
    (folder / "w.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="does not follow from the other images of its patient"):
        read(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",rule_out,", ",review,"),
        (",review,", ",rule_out,"),
        (",,rule_in,", ",somebody,rule_in,"),
        (",0.", ",0.0"),
    ],
)
def test_a_worklist_that_does_not_follow_from_its_trail_is_refused(mine, old, new):
    folder = mine(lambda lines: lines)
    text = (folder / "w.csv").read_text()
    assert old in text
    (folder / "w.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"row \d+, .* is not what .* says of it"):
        read(folder)


def test_a_line_that_a_later_one_replaced_gives_no_row(finished, model, tmp_path):
    """The trail of two runs has two lines about an image: only the last one may stand in the worklist."""
    shutil.copytree(finished / "in", tmp_path / "in")
    image = next((tmp_path / "in" / "a").glob("*.png"))
    sound = image.read_bytes()
    triage(tmp_path / "in", model, tmp_path / "w.csv")
    first = (tmp_path / "w.csv").read_text()
    image.write_bytes(sound[:-100])
    triage(tmp_path / "in", model, tmp_path / "w.csv")
    read(tmp_path)
    (tmp_path / "w.csv").write_text(first)
    with pytest.raises(InputError, match="is not what"):
        read(tmp_path)


def test_pipes_are_not_waited_for(mine, tmp_path):
    folder = mine(lambda lines: lines)
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(InputError, match="cannot be read: it is no plain file|no plain file"):
        FinishedTriage(folder / "pipe.csv", folder / f"w.csv{AUDIT_SUFFIX}")
    with pytest.raises(InputError, match="cannot be read"):
        FinishedTriage(folder / "w.csv", folder / "pipe.csv")


def test_one_score_is_decided_as_many_are():
    rng = np.random.default_rng(0)
    for _ in range(300):
        score, low, high = rng.choice([0.0, 0.2, 0.5, 0.5000001, 1.0], 3)
        assert _decide(score, low, high) == decide([score], low, high)[0]
        assert _decide(score, None, high) == decide([score], -np.inf, high)[0]
        assert _decide(score, low, None) == decide([score], low, np.inf)[0]


def test_limits_of_groups_must_be_thresholds_of_the_run():
    rng = np.random.default_rng(1)
    sick = np.arange(400) % 2 == 1
    groups = certify_groups(
        rng.uniform(0, 1, 400), sick, None, {"view": np.where(np.arange(400) < 200, "AP", "PA")}
    )
    header = {
        "record": "run",
        "format": "histcxr audit trail",
        "format_version": 3,
        **HEADER,
        "started": "2026-01-01T00:00:00+00:00",
    }
    header["groups"] = groups.to_dict()
    low, high = groups.rule_out.groups["view"]["AP"].threshold, groups.rule_in.overall.threshold
    own = decide([0.5], low, high)[0]

    def take(**more):
        writer, reader = Chain(), Chain()
        reader.take(writer.link(header))
        return reader.take(writer.link({"record": "image", **record("a", decision=own), **more}))

    assert take(limits=[low, high])["limits"] == [low, high]
    for limits, message in (
        ([low + 1e-9, high], "is no threshold"),
        ([[], {}], "is no threshold"),
        ([low], "has limits"),
    ):
        with pytest.raises(ValueError, match=message):
            take(limits=limits)
    with pytest.raises(ValueError, match="lacks limits"):
        take()
