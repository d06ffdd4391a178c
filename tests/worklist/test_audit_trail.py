"""The audit trail as a journal: what is kept, what is cut, what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from histcxr.exceptions import InputError, OutputError
from histcxr.worklist import locks
from histcxr.worklist.audit_trail import AuditTrail, Key
from histcxr.worklist.locks import open_locked

HEADER = {
    "histcxr": "1",
    "packages": {"numpy": "2"},
    "model": {"name": "m", "hash": "ab"},
    "recipe": {"zones": 1},
    "segmenter": None,
    "thresholds": {"rule_out": {"threshold": 0.2}, "rule_in": {"threshold": 0.9}},
    "groups": None,
    "site": 0,
    "input": "/in",
    "masks": None,
    "uids": False,
    "key": "k",
    "options": {"batch_size": 4},
}
COUNTS = {
    **dict.fromkeys(("rows", "rule_out", "review", "rule_in", "unjudged", "resumed"), 0),
    "site": None,
    "trust_site": False,
}
NOW = "2026-01-01T00:00:00+00:00"


def record(name, **more):
    return {
        **{"file": name, "mask": "", "sha256": "", "mask_sha256": "", "stat": None, "mask_stat": None},
        **{"patient": "", "decision": "review", "score": 0.5, "reason": "", "detail": "", "time": NOW},
        **more,
    }


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "trail.jsonl")


def filled(path, names, finish=True):
    with AuditTrail(path, HEADER) as trail:
        trail.append([record(name) for name in names])
        if finish:
            trail.finish(COUNTS)
    with open(path, "rb") as file:
        return file.read()


def test_lines_come_back_by_key_and_by_place(path):
    names = [f"{i}.png" for i in range(50)] + ["ü\n=.png", "\udcff.png"]
    content = filled(path, names)
    assert content.isascii()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["record"] for line in lines] == ["run"] + ["image"] * 52 + ["finished"]
    assert lines[0]["model"] == HEADER["model"]
    with AuditTrail(path, HEADER) as trail:
        assert not trail.unfinished
        for name in names:
            offset, found = trail.find(Key(name, ""))
            assert found["file"] == name
            assert trail.read(offset) == found
        assert trail.find(Key("51.png", "")) is None
        assert trail.find(Key("1.png", "mask.png")) is None


def test_the_last_line_about_an_input_counts(path):
    filled(path, ["a", "b"])
    with AuditTrail(path, HEADER) as trail:
        trail.append([record("a", score=0.25)])
        assert trail.find(Key("a", ""))[1]["score"] == 0.5  # of earlier runs
    with AuditTrail(path, HEADER) as trail:
        assert trail.find(Key("a", ""))[1]["score"] == 0.25
        assert trail.find(Key("b", ""))[1]["score"] == 0.5


def test_any_cut_leaves_whole_lines(path):
    content = filled(path, [f"{i}.png" for i in range(5)])
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    rng = np.random.default_rng(2)
    for cut in {0, 1, 5, *rng.integers(0, len(content), 60).tolist(), *ends, *(end - 1 for end in ends)}:
        with open(path, "wb") as file:
            file.write(content[:cut])
        with AuditTrail(path, HEADER) as trail:
            whole = sum(1 for end in ends if end <= cut)
            kept = [i for i in range(5) if trail.find(Key(f"{i}.png", ""))]
            assert kept == list(range(max(0, min(whole - 1, 5))))
            assert trail.unfinished == (1 <= whole <= 6)
            trail.append([record("new")])
        with open(path, "rb") as file:
            lines = file.read().splitlines()
        assert [json.loads(line)["record"] for line in lines][-1] == "image"


def test_zeros_after_a_crash_of_the_machine_are_cut(path):
    filled(path, ["a"], finish=False)
    with open(path, "ab") as file:
        file.write(bytes(300))
    with AuditTrail(path, HEADER) as trail:
        assert trail.unfinished
        assert trail.find(Key("a", ""))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "m", "hash": "cd"}},
        {"input": "/elsewhere"},
        {"masks": "/masks"},
        {"recipe": {"zones": 2}},
        {"thresholds": {"rule_out": {"threshold": 0.3}, "rule_in": {"threshold": 0.9}}},
        {"histcxr": "2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_is_refused(path, change):
    content = filled(path, ["a"])
    name = next(iter(change))
    with pytest.raises(
        InputError, match=rf"belongs to a run with {name} .*choose another output .-o., or overwrite"
    ):
        AuditTrail(path, {**HEADER, **change})
    with open(path, "rb") as file:
        assert file.read() == content
    with AuditTrail(path, {**HEADER, **change}, overwrite=True) as trail:
        assert trail.find(Key("a", "")) is None


def test_packages_and_batch_size_do_not_make_another_run(path):
    filled(path, ["a"])
    with AuditTrail(path, {**HEADER, "packages": {"numpy": "3"}, "options": {"batch_size": 9}}) as trail:
        assert trail.header["options"] == {"batch_size": 4}
        assert trail.find(Key("a", ""))
    with open(path) as file:
        assert json.loads(file.readlines()[-1])["packages"] == {"numpy": "3"}


@pytest.mark.parametrize(
    "content", [b"file,decision\n", b"patient data", b'{"record":"run"}\n', b"[1]\n", b"\xff\xfe\n", b"\n"]
)
def test_another_file_is_never_touched(path, content):
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(InputError, match="audit must be free or an audit trail"):
        AuditTrail(path, HEADER)
    with open(path, "rb") as file:
        assert file.read() == content


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"record":"image"}', b"[]", b"\x00\x00"])
def test_a_damaged_line_in_the_middle_is_named(path, line):
    lines = filled(path, ["a", "b"]).splitlines(keepends=True)
    lines[2] = line + b"\n"
    with open(path, "wb") as file:
        file.writelines(lines)
    with pytest.raises(OutputError, match="line 3 is damaged or was changed: .* so the run cannot go on"):
        AuditTrail(path, HEADER)


# --- locks ---------------------------------------------------------------------------------------------


def test_two_runs_cannot_share_a_trail(path):
    with (
        AuditTrail(path, HEADER),
        pytest.raises(OutputError, match="another run is writing it"),
    ):
        AuditTrail(path, HEADER, overwrite=True)
    AuditTrail(path, HEADER).close()


def test_the_lock_ends_with_a_killed_process(path):
    code = (
        "import sys, time; from histcxr.worklist.locks import open_locked; "
        "open_locked(sys.argv[1]); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match="another run is writing it"):
            open_locked(path)
        process.kill()
        process.wait()
    os.close(open_locked(path))


def test_a_file_renamed_by_the_run_before_is_not_taken_for_ours(path, monkeypatch):
    """The other run ends between our open and our lock: the lock would be on its finished file."""
    real, calls = locks._is_still, []

    def rename_once(name, descriptor):
        calls.append(name)
        if len(calls) == 1:
            os.rename(name, name + ".done")
        return real(name, descriptor)

    monkeypatch.setattr(locks, "_is_still", rename_once)
    descriptor = open_locked(path)
    assert len(calls) == 2
    assert os.path.samestat(os.stat(path), os.fstat(descriptor))
    os.close(descriptor)


def test_pipes_and_folders_are_refused(path, tmp_path):
    os.mkfifo(path)
    with pytest.raises(OutputError, match="is not a plain file"):
        open_locked(path)
    with pytest.raises(OutputError, match="cannot be written"):
        open_locked(str(tmp_path))
