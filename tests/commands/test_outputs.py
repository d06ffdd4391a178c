"""No output of any command destroys anything: every command, every option that names a place, every trick."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext

import click
import pytest
from click.testing import CliRunner

from histcxr.commands import COMMANDS, main
from histcxr.commands.shell.places import OutputPath, guarded
from histcxr.exceptions import OutputError
from histcxr.files.writing import guarding, replacing, write_image
from histcxr.phantoms.studies import write_study
from histcxr.worklist.rows import WorklistFile

# What each command needs besides its outputs; STUDY is a folder, LIST a worklist.
NEEDS = {
    "demo": [],
    "explore": ["STUDY"],
    "extract": ["STUDY"],
    "train": ["STUDY"],
    "tune": ["STUDY", "--classifier", "knn"],
    "calibrate": ["STUDY"],
    "adapt": ["STUDY"],
    "evaluate": ["STUDY"],
    "plan": ["STUDY"],
    "triage": ["STUDY"],
    "monitor": ["LIST"],
    "report": ["LIST"],
    "explain": ["STUDY", "-m", "list.csv"],
    "audit": ["STUDY"],
    "segment": ["STUDY"],
    "segment-train": ["STUDY"],
    "app": [],
    "models show": ["boxed"],
    "models sign": ["boxed", "--key", "list.csv"],
    "models verify": ["boxed", "--key", "list.csv"],
    "reference list": [],
    "reference train": ["STUDY"],
}
ENDINGS = {"json": ".json", "worklist": ".csv", "model": ".histcxr", "folder": ""}


def commands():
    """Every command that does something, by the words that call it."""
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        found = getattr(command, "commands", None)
        yield from ((f"{name} {one}", inner) for one, inner in found.items()) if found else [(name, command)]


def outputs():
    for name, command in commands():
        for param in command.params:
            if isinstance(param.type, OutputPath):
                ending = {"--report": ".html", "--plot": ".png"}.get(
                    param.opts[-1], ENDINGS.get(param.type.kind, ".csv")
                )
                yield pytest.param(name, param, ending, id=f"{name} {param.opts[-1]}")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("outputs") / "study", n_patients=8, size=(64, 64), repeats=0)


@pytest.fixture
def call(study, tmp_path, monkeypatch):
    """Call a command with one output in a folder of its own; nothing that it needs may be read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("file,decision,score,reason_code\n")

    def run(name, param, place, *more):
        words = {"STUDY": str(study), "LIST": "list.csv"}
        needed = [words.get(word, word) for word in NEEDS[name]]
        given = [] if param.opts[-1] == "--output" else ["-o", "free"] if _needs_output(name) else []
        arguments = [*name.split(), *needed, param.opts[-1], str(place), *given, *more]
        return CliRunner().invoke(main, arguments)

    return run


def _needs_output(name):
    (command,) = (one for called, one in commands() if called == name)
    return any(one.name == "output" and one.required for one in command.params)


def test_every_command_is_known_here():
    assert {name for name, _ in commands()} <= set(NEEDS)


@pytest.mark.parametrize(("name", "command"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_every_place_is_guarded(name, command):
    """A path that need not exist is written to, and so is whatever is called like an output."""
    for param in command.params:
        is_place = isinstance(param.type, click.Path | click.File) and not getattr(
            param.type, "exists", False
        )
        named = {"output", "json", "report", "plot", "page", "card", "write", "audit-to"} & {
            one.lstrip("-") for one in param.opts
        }
        if (is_place or named) and param.name != "cache":
            assert isinstance(param.type, OutputPath), param.opts
    assert command.callback.guarded
    assert guarded(command) is command
    if any(isinstance(one.type, OutputPath) for one in command.params):
        assert sum(one.name == "overwrite" for one in command.params) == 1


@pytest.mark.parametrize(("name", "param", "ending"), list(outputs()))
def test_what_is_there_stays(call, study, name, param, ending, tmp_path):
    place = tmp_path / f"mine{ending}"
    if param.type.kind == "folder":
        place.mkdir()
        (place / "mine.txt").write_text("mine")
    else:
        place.write_text("mine")
    for more in ([], ["--overwrite"]):
        if more and param.type.kind in ("file", "worklist") and ending == ".csv":
            continue  # asked for, and nobody knows whose table it is
        result = call(name, param, place, *more)
        assert result.exit_code == 2, result.output
        assert "mine" in result.output
        assert (place / "mine.txt" if place.is_dir() else place).read_text() == "mine"


@pytest.mark.parametrize(("name", "param", "ending"), list(outputs()))
def test_an_input_is_never_written_over(call, study, name, param, ending, tmp_path):
    if not {"STUDY", "LIST"} & set(NEEDS[name]):
        pytest.skip("reads nothing")
    image = next((study / "Normal" / "images").iterdir())
    source = image if "STUDY" in NEEDS[name] else tmp_path / "list.csv"
    before = source.read_bytes()
    link = tmp_path / f"link{ending}"
    link.symlink_to(source)
    for place in (source, link):
        result = call(name, param, place, "--overwrite")
        assert result.exit_code == 2, result.output
        words = " ".join(result.output.split())
        assert any(
            one in words
            for one in (
                "input of this command",
                "lies in an input folder",
                "must be",
                "must end",
                "is a file",
            )
        ), words
        assert source.read_bytes() == before
    if "STUDY" in NEEDS[name] and param.type.kind == "folder":
        assert "lies in an input folder" in call(name, param, study / "new").output.replace("\n", " ")
        assert not (study / "new").exists()


@pytest.mark.parametrize(("name", "param", "ending"), list(outputs()))
def test_a_pipe_or_a_device_is_refused(call, name, param, ending, tmp_path):
    os.mkfifo(tmp_path / f"pipe{ending}")
    for place in (tmp_path / f"pipe{ending}", "/dev/full", "/dev/zero"):
        result = call(name, param, place, "--overwrite")
        assert result.exit_code == 2, result.output
        assert "is a pipe or a device" in " ".join(result.output.split()) or param.type.kind == "folder"


@pytest.mark.parametrize(("name", "param", "ending"), list(outputs()))
def test_two_outputs_are_never_one(call, name, param, ending, tmp_path):
    if param.type.kind == "json" or not any(
        one.name == "json_file" for called, command in commands() if called == name for one in command.params
    ):
        pytest.skip("one output alone")
    (tmp_path / "way").symlink_to(tmp_path)
    for other in (f"one{ending}", f"ONE{ending}", f"way/one{ending}"):
        result = call(name, param, f"one{ending}", "--json", other)
        assert result.exit_code == 2, result.output
        assert "another output" in " ".join(result.output.split())
    if param.type.kind == "worklist":
        for other in ("one.csv.audit.jsonl", "one.csv.partial"):
            assert call(name, param, "one.csv", "--json", other).exit_code == 2


@pytest.mark.parametrize("folder", [False, True])
def test_what_came_meanwhile_stays(tmp_path, folder):
    place = tmp_path / "r.json"

    def write():
        with guarding({str(place): False}), replacing(place, folder=folder) as unfinished:
            (unfinished / "x" if folder else unfinished).write_text("ours")
            if folder:
                place.mkdir()
            (place / "y" if folder else place).write_text("theirs")

    with pytest.raises(OutputError, match=r"r\.json: cannot be written, for something is there"):
        write()
    assert (place / "y" if folder else place).read_text() == "theirs"
    assert os.listdir(tmp_path) == ["r.json"]


def test_without_hard_links_too(tmp_path, monkeypatch):
    def no_links(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    place = tmp_path / "r.json"
    for content, words in (("one", None), ("two", "something is there")):
        with guarding({str(place): False}):
            expected = pytest.raises(OutputError, match=words) if words else nullcontext()
            with expected, replacing(place) as unfinished:
                unfinished.write_text(content)
    assert place.read_text() == "one"


def test_a_picture_does_not_go_through_a_link(tmp_path):
    import numpy as np

    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.png").symlink_to("mine")
    with pytest.raises(OutputError):
        write_image(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_worklist_that_came_meanwhile_and_a_partial_of_the_user_stay(study, tmp_path):
    path = tmp_path / "w.csv"
    with WorklistFile(str(path)) as worklist:
        path.write_text("theirs")
        with pytest.raises(OutputError, match="something is there"):
            worklist.write(lambda file: _Writer(), [])
    assert path.read_text() == "theirs"
    path.unlink()
    partial = tmp_path / "w.csv.partial"
    for way in ("file", "link"):
        partial.write_text("mine") if way == "file" else partial.symlink_to("other")
        (tmp_path / "other").write_text("")
        result = CliRunner().invoke(main, ["triage", str(study), "-o", str(path), "--overwrite"])
        assert result.exit_code == 2, result.output
        assert "move that file away" in result.output
        assert partial.read_text() == ("mine" if way == "file" else "")
        partial.unlink()


def test_a_run_killed_while_its_worklist_gets_its_name_loses_nothing(tmp_path):
    path, partial = tmp_path / "w.csv", tmp_path / "w.csv.partial"
    path.write_text("file,patient_id,decision\n")
    os.link(path, partial)
    before = path.read_bytes()
    with WorklistFile(str(path)) as worklist:
        assert path.read_bytes() == before
        worklist.write(lambda file: _Writer(), [])
        assert not partial.exists()
    assert path.read_bytes() == b""  # the new one, of no rows


class _Writer:
    def close(self):
        pass


def test_a_trail_that_is_none_stays_also_when_overwritten(study, tmp_path):
    image = next((study / "Normal" / "images").iterdir())
    before = image.read_bytes()
    (tmp_path / "w.csv.audit.jsonl").symlink_to(image)
    result = CliRunner().invoke(main, ["triage", str(study), "-o", str(tmp_path / "w.csv"), "--overwrite"])
    assert result.exit_code == 2, result.output
    assert image.read_bytes() == before


def test_a_listed_file_is_an_input(study, tmp_path):
    """A list's images lie anywhere; a link in a list leads to a file that has another name."""
    image = next((study / "Normal" / "images").iterdir())
    real, link = tmp_path / "real.json", tmp_path / "linked.png"
    shutil.copy(image, real)
    link.symlink_to(real)
    (tmp_path / "list.csv").write_text(f"image\n{link}\n")
    arguments = ["extract", str(tmp_path / "list.csv"), "-o", str(tmp_path / "h.csv"), "--json", str(real)]
    result = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert "is listed in" in result.output
    assert real.read_bytes() == image.read_bytes()


def test_a_model_that_is_read_gets_no_report_inside(study, tmp_path):
    model = tmp_path / "m.histcxr"
    model.mkdir()
    (model / "manifest.json").write_text("{\n}")
    for call in (["models", str(model)], ["evaluate", str(study), "-m", str(model)]):
        for name in ("manifest.json", "new.json"):
            result = CliRunner().invoke(main, [*call, "--json", str(model / name), "--overwrite"])
            assert result.exit_code == 2
            assert "lies in an input folder" in " ".join(result.output.split())
    assert [path.read_text() for path in model.iterdir()] == ["{\n}"]


def test_a_word_is_no_input_though_a_folder_is_called_so(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["tune", str(study), "--classifier", "knn", "--trials", "0", "-o", "knn"]
    (tmp_path / "knn").mkdir()
    assert "input of this command" not in " ".join(CliRunner().invoke(main, arguments).output.split())


def test_a_link_in_an_earlier_result_is_not_written_through(study, tmp_path):
    arguments = ["segment", str(study), "-o", str(tmp_path / "lungs")]
    assert CliRunner().invoke(main, arguments).exit_code in (0, 3)
    assert CliRunner().invoke(main, arguments).exit_code in (0, 3)
    image = next((study / "Normal" / "images").iterdir())
    before = image.read_bytes()
    (tmp_path / "lungs" / "segmentation.csv").unlink()
    (tmp_path / "lungs" / "segmentation.csv").symlink_to(image)
    for more in ([], ["--overwrite"]):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 2
        assert "holds links" in " ".join(result.output.split())
    assert image.read_bytes() == before


def test_a_run_goes_on_with_its_own_report_alone(study, tmp_path):
    arguments = ["triage", str(study), "-o", str(tmp_path / "w.csv"), "--json", str(tmp_path / "w.json")]
    more = ["--report", str(tmp_path / "w.html")]
    for _ in range(2):
        assert CliRunner().invoke(main, [*arguments, *more]).exit_code in (0, 3)
    assert json.loads((tmp_path / "w.json").read_text())["resumed"] == 8
    other = [*arguments[:2], "-o", str(tmp_path / "other.csv")]
    for option, file in (("--json", "w.json"), ("--report", "w.html")):
        before = (tmp_path / file).read_bytes()
        result = CliRunner().invoke(main, [*other, option, str(tmp_path / file)])
        assert result.exit_code == 2, result.output
        assert (tmp_path / file).read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "models > /dev/full",
        "models --json - > /dev/full",
        "--help > /dev/full",
        "models >&-",
        "models --json - >&-",
        "models | head -c 1",
    ],
)
def test_output_that_is_lost_is_a_failure(line):
    command = f"set -o pipefail; {sys.executable} -m histcxr {line}"
    if "head" in line:  # more than a pipe holds
        command = command.replace("models", "models --json -").replace("head -c 1", "sleep 0")
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert run.returncode not in (0, 2), run
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr
