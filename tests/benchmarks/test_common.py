"""What all benchmarks do alike: help with an example, options, JSON, and errors in one sentence."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import common
from histcxr.exceptions import InputError, MissingDependencyError

ROOT = Path(__file__).parents[2]
#: Run by another benchmark, or imported by one.
PARTS = {"reference_costs", "reference_pairs", "reference_rows", "ratio_worker"}
PARTS |= {"hostile_files", "hostile_models", "hostile_places", "model_attacks", "triaged"}
WITHOUT_DATA = {
    "certificate",
    "mutated_files",
    "plan_list",
    "groups_cost",
    "fuzzed_models",
    "planted_identifiers",
    "reports_accepted",
    "hostile_corpus",
    "gpu",
}  # they make their own
SCRIPTS = {
    path.stem: f"benchmarks.{path.parent.name}.{path.stem}"
    for path in ROOT.glob("benchmarks/*/*.py")
    if path.stem not in PARTS
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_helps_with_an_example(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, SCRIPTS[name], raising=False)  # it runs as the main module
    with pytest.raises(SystemExit) as left:
        runpy.run_module(SCRIPTS[name], run_name="__main__")
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"python -m {SCRIPTS[name]}" in said
    assert "--json FILE" in said
    assert ("--data" in said) == (name not in WITHOUT_DATA)


def test_the_index_names_every_script():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    index = text.split("\n## ")[0]
    assert [name for module in SCRIPTS.values() if (name := module.partition(".")[2]) not in index] == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("data must hold images"), "error: data must hold images\n"),
        (MissingDependencyError("keras is needed"), "error: keras is needed\n"),
        (FileNotFoundError(2, "No such file", "nowhere"), "error: [Errno 2] No such file: 'nowhere'\n"),
        (ModuleNotFoundError(name="aeon"), "error: the package aeon is needed and is not installed\n"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(error, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as left:
        common.run(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == said


def test_a_missing_folder_ends_with_a_sentence(tmp_path):
    command = [sys.executable, "-m", "benchmarks.quality.across_sources", "--data", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_figures_go_where_they_are_wanted(tmp_path, capsys):
    common.publish("a table", {"rows": [1]}, str(tmp_path / "rows.json"))
    assert json.loads((tmp_path / "rows.json").read_text()) == {"rows": [1]}
    assert capsys.readouterr().out == "a table\n"
    common.publish("a table", {"rows": [1]}, "-")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"rows": [1]}
    assert printed.err == "a table\n"


def test_a_process_of_its_own_finds_the_benchmarks():
    code = "import sys; from benchmarks.common import peak_bytes; print(sys.argv[1], peak_bytes())"
    done = common.start(["-c", code, "told"])
    told, peak = done.stdout.split()
    assert told == "told"
    assert 2**20 < int(peak) < 2**30
    assert common.last_line("first\n" + 300 * "x") == 200 * "x"
