"""The commands of README and docs, run as their reader would run them, or at least understood."""

import configparser
import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import histcxr
from histcxr.commands import COMMANDS, main
from histcxr.exceptions import how_to_install

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def fenced(language: str, text: str = README) -> list[str]:
    """Return the code blocks of a page in one language ("" for plain ones)."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for found, content in blocks if found == language]


def commands_of(page: Path) -> list[list[str]]:
    """Return the words after ``histcxr`` of each line that calls it."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line for language in ("", "sh") for block in fenced(language, text) for line in block.splitlines()
    ]
    calls = [re.sub(r"\$\((?:[^()]|\([^()]*\))*\)", "x", line).partition(" || ")[0] for line in lines]
    words = [shlex.split(line, comments=True) for line in calls if re.search(r"(^|\s)histcxr ", line)]
    return [line[line.index("histcxr") + 1 :] for line in words if "histcxr" in line]


def test_two_commands_do_everything():
    assert fenced("")[0].split("\n")[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_pages_is_one_that_there_is(page, monkeypatch):
    """Each line is parsed by its command; places need not be there."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    monkeypatch.setattr("histcxr.commands.shell.places.OutputPath.convert", click.Path.convert)
    for words in commands_of(page):
        if "--config" in words:  # the file would say what data
            place = words.index("--config")
            words[place : place + 2] = ["STUDY"]
        command: click.Command = main
        while isinstance(command, click.Group):
            known = command.list_commands(
                click.Context(main)
            )  # `models MODEL` is short for `models show MODEL`
            name = words.pop(0) if words and words[0] in known else "show"
            command = command.get_command(click.Context(main), name)
        command.make_context("histcxr", words).close()


def test_most_commands_stand_in_the_pages():
    told = {words[0] for page in PAGES for words in commands_of(page)}
    assert set(COMMANDS) - told <= {"demo", "extract", "segment-train"}


def test_install_hints_name_extras_that_there_are():
    """One way to install: from the source, by the extras of setup.cfg."""
    said = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    said += "".join(
        how_to_install(name) for name in re.findall(r"how_to_install\([\"'](.*?)[\"']\)", sources())
    )
    named = {name for group in re.findall(r"\.\[([a-z,-]+)\]", said) for name in group.split(",")}
    assert named >= {"report", "dicom", "neural"}
    assert named <= set(SETUP["options.extras_require"])
    assert "histcxr[" not in said + sources()


def sources() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in (ROOT / "histcxr").rglob("*.py"))


def test_links_lead_to_files():
    for page in ROOT.glob("*.md"):  # those of the site: test_docs.py
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and target != "docs/images/readme.png":  # drawn by the gallery
                assert (page.parent / target).exists(), f"{page.name}: {target}"


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


def test_citation_and_metadata_say_the_same():
    said = dict(
        line.split(": ", 1)
        for line in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
        if re.match(r"\w[\w-]*: ", line)
    )
    assert said["version"] == histcxr.__version__
    assert said["license"] == SETUP["metadata"]["license"]
    assert f"name: {SETUP['metadata']['author']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
