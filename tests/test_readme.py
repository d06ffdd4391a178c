"""The README's own commands, run as its reader would run them."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    """Return the code blocks of the README in one language ("" for plain ones)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_two_commands_do_everything():
    assert fenced("")[0].split("\n")[:2] == ["make demo", "make test"]


@pytest.mark.slow
def test_make_demo(tmp_path):
    output = tmp_path / "demo output"
    # -o: the environment is the one this test runs in, so it need not be made again
    run = subprocess.run(
        ["make", "-o", ".venv/.ready", "demo", f"OUTPUT={output}", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for drawer in ("rule_out", "review", "rule_in"):
        assert re.search(rf"{drawer}\s+\d+", run.stdout)
    with open(output / "worklist.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    incoming = [path for path in (output / "incoming").iterdir() if path.name != "masks"]
    assert len(rows) == len(incoming)
    assert {row["decision"] for row in rows} == {"rule_out", "review", "rule_in"}
    broken = [row for row in rows if row["reason_code"]]
    assert broken
    assert {row["decision"] for row in broken} == {"review"}
    assert all(row["reason"] for row in broken)
    assert json.loads((output / "model.histcxr" / "manifest.json").read_text())["name"] in run.stdout
    card = subprocess.run(
        [Path(sys.executable).parent / "histcxr", "models", output / "model.histcxr"],
        capture_output=True,
        text=True,
    )
    assert card.returncode == 0, card.stderr
    assert "Not a medical device" in card.stdout


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    from histcxr.phantoms.studies import write_study

    write_study(tmp_path / "STUDY", n_patients=760, size=(64, 64), mask_size=(64, 64), repeats=0)
    monkeypatch.chdir(tmp_path)
    exec(compile(fenced("python")[0], "README.md", "exec"), {})  # noqa: S102 - our own README
    assert "certified: sensitivity of at least 95 %" in capsys.readouterr().out
