"""A run killed at random moments, started again, ends with the same worklist."""

import csv
import os
import shutil
import subprocess
import sys

import cv2
import pytest

from histcxr.exceptions import InputError
from histcxr.files.budget import Budget
from histcxr.worklist.engine import triage

from .conftest import write_dicom_pair

# One process does the imports; each run is a fork of it, killed by its parent when the audit trail has
# grown to a random size.
SCRIPT = """
import os, random, signal, sys, time
from histcxr.worklist.engine import triage

folder, model, out, runs, *uids = sys.argv[1:]

def run(name):
    child = os.fork()
    if child == 0:
        slow = lambda done: time.sleep(0.003)
        triage(folder, model, f"{out}/{name}", batch_size=2, n_jobs=2, sort="urgency", uids=bool(uids), progress=slow)
        os._exit(0)
    return child

def size(name):
    try:
        return os.path.getsize(f"{out}/{name}.audit.jsonl")
    except FileNotFoundError:
        return 0

chance = random.Random(5)
for kind in ("csv", "jsonl"):
    os.waitpid(run(f"whole.{kind}"), 0)
    whole = size(f"whole.{kind}")
    for number in range(int(runs)):
        name, kills = f"killed{number}.{kind}", 0
        for moment in sorted(chance.uniform(0, 1) for _ in range(2)):
            child = run(name)
            ended = False
            while size(name) < moment * whole and not ended:
                time.sleep(0.0005)
                ended = os.waitpid(child, os.WNOHANG) != (0, 0)
            if not ended:
                os.kill(child, signal.SIGKILL)
                kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        os.waitpid(run(name), 0)
        print(name, kills)
"""


def outcomes(study, saved_model, out, *options):
    # From Python 3.12 on, a fork beside other threads (those of the numerical libraries) is warned of.
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *quiet, "-c", SCRIPT, str(study), str(saved_model), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)  # a busy machine kills slowly
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split() for line in done.stdout.splitlines())


def test_five_killed_runs_end_like_the_uninterrupted_one(study, saved_model, tmp_path):
    runs = outcomes(study, saved_model, tmp_path, "5")
    assert len(runs) == 10
    assert all(int(kills) >= 1 for kills in runs.values())
    for name in runs:
        whole = (tmp_path / f"whole.{name.rpartition('.')[2]}").read_bytes()
        assert whole.count(b"\n") == 23 + name.endswith("csv")
        assert (tmp_path / name).read_bytes() == whole
        assert not (tmp_path / f"{name}.partial").exists()


def test_identifiers_survive_a_kill(study, saved_model, tmp_path):
    pytest.importorskip("pydicom")
    folder = shutil.copytree(study, tmp_path / "archive")
    for i in range(6):
        write_dicom_pair(folder, f"c/{i}", seed=i, study=f"1.2.{i}")
    runs = outcomes(folder, saved_model, tmp_path, "1", "uids")
    assert len(runs) == 2
    assert all(int(kills) >= 1 for kills in runs.values())
    for name in runs:
        whole = (tmp_path / f"whole.{name.rpartition('.')[2]}").read_bytes()
        assert whole.count(b"1.2.3,") + whole.count(b'"1.2.3"') == 1
        assert (tmp_path / name).read_bytes() == whole


# A decoder that some bytes kill, and that says what it decodes: in the triage's own process and in those it starts.
POISON = """
import os, signal, cv2
decode = cv2.imdecode
def imdecode(data, flags):
    if b"poison" in bytes(data):
        with open(os.environ["MET"], "a") as file:
            file.write("met ")
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, flags)
cv2.imdecode = imdecode
"""


def test_a_file_that_ends_the_run_is_met_once_more_and_apart(study, saved_model, tmp_path):
    folder = shutil.copytree(study, tmp_path / "incoming")
    image = cv2.imread(str(next(folder.glob("a/*.png"))), cv2.IMREAD_UNCHANGED)
    image[0, :6] = list(b"poison")
    (folder / "a" / "hostile.bmp").write_bytes(cv2.imencode(".bmp", image)[1].tobytes())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    met = tmp_path / "met"
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MET": str(met)}
    code = "import sys; from histcxr.worklist.engine import triage as t; t(*sys.argv[1:], batch_size=4, segment=False)"
    command = [sys.executable, "-c", code, str(folder), str(saved_model), str(tmp_path / "worklist.csv")]
    ends = [subprocess.run(command, env=surroundings, timeout=120).returncode for _ in range(3)]
    assert ends == [-9, 0, 0]
    assert met.read_text().split() == ["met"] * 2
    with (tmp_path / "worklist.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 24
    assert rows["a/hostile.bmp"]["reason_code"] == "too_costly"
    assert "SIGKILL" in rows["a/hostile.bmp"]["reason"]
    assert [name for name, row in rows.items() if row["reason_code"] == "too_costly"] == ["a/hostile.bmp"]


def test_a_run_goes_on_only_under_its_own_budget(study, saved_model, tmp_path, monkeypatch):
    def run():
        return triage(study, saved_model, tmp_path / "worklist.csv", segment=False)

    run()
    monkeypatch.setattr("histcxr.worklist.engine.BUDGET", Budget(seconds=20))
    with pytest.raises(InputError, match='budget null, this one has {"seconds": 20}'):
        run()
