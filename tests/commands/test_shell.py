"""How every command meets the terminal: places, streams, tables, suggestions, Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.commands.shell.terminal import fit_tables
from histcxr.commands.triage import default_worklist
from histcxr.phantoms.studies import write_study
from histcxr.reports.tables import markdown_table


def histcxr(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("shell") / "study", n_patients=20, size=(96, 96), repeats=0)


@pytest.fixture
def no_work(monkeypatch):
    """Let whatever reads an image fail: what is refused must be refused before."""

    def work(*arguments, **options):
        raise AssertionError("work began")

    for name in ("features.extraction.measure_batch",
                 "worklist.judging.measure_batch", "lungs.folder.read_radiograph",
                 "study.train.read_cohort", "study.certify.read_cohort"):  # fmt: skip
        monkeypatch.setattr(f"histcxr.{name}", work)


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("train STUDY -o OUT", "file.txt/m.histcxr"),
        ("train STUDY -o OUT", "nowhere/m.histcxr"),
        ("train STUDY --json OUT", "nowhere/r.json"),
        ("train STUDY -o OUT", "there.histcxr"),
        ("calibrate STUDY -o OUT", "there.histcxr"),
        ("calibrate STUDY --json OUT -o free.histcxr", "folder"),
        ("evaluate STUDY --json OUT", "nowhere/e.json"),
        ("evaluate STUDY -o OUT", "file.txt"),
        ("extract STUDY -o OUT", "nowhere/h.csv"),
        ("extract STUDY -o OUT", "folder"),
        ("triage STUDY -o OUT", "nowhere/w.csv"),
        ("triage STUDY -o OUT", "other.csv"),
        ("triage STUDY --json OUT", "folder"),
        ("segment STUDY -o OUT", "file.txt"),
        ("segment STUDY -o OUT", "folder"),
        ("segment-train STUDY -o OUT", "nowhere/l.onnx"),
        ("tune STUDY --classifier knn -o OUT", "file.txt"),
        ("demo -o OUT", "folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    study, no_work, tmp_path, monkeypatch, command, output
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "other.csv").write_text("mine")
    for folder in ("folder", "there.histcxr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    words = {"STUDY": str(study), "OUT": output}
    result = histcxr(*(words.get(word, word) for word in command.split()))
    assert result.exit_code == 2, result.output
    assert output.split("/")[0] in result.output
    if output in ("there.histcxr", "other.csv"):
        assert "(-o)" in result.output
        assert "(--overwrite)" in result.output
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file.txt").read_text() == (tmp_path / "other.csv").read_text() == "mine"


def test_json_on_stdout_stands_alone(study, tmp_path):
    result = histcxr("extract", study, "-o", tmp_path / "h.csv", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["usable"] == 20
    assert "20 of 20 radiographs" in result.stderr
    run = subprocess.run(
        [sys.executable, "-m", "histcxr", "segment", study, "-o", tmp_path / "lungs", "--json", "-"],
        capture_output=True,
        text=True,
    )
    said = json.loads(run.stdout)
    assert said["total"] == 20
    assert f"{said['segmented']} of 20 radiographs segmented" in run.stderr


def test_an_empty_folder_is_no_success(tmp_path):
    (tmp_path / "in").mkdir()
    assert histcxr("triage", tmp_path / "in", "-o", tmp_path / "w.csv").exit_code == 3
    assert histcxr("segment", tmp_path / "in", "-o", tmp_path / "lungs").exit_code == 3
    assert histcxr("extract", tmp_path / "in", "-o", tmp_path / "h.csv").exit_code in (2, 3)


def test_a_folder_has_its_own_worklist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "monday").mkdir()
    assert default_worklist("monday") == default_worklist(str(tmp_path / "monday/")) == "worklist-monday.csv"
    assert default_worklist("list.csv") == "worklist-list.csv"
    assert default_worklist(".") == f"worklist-{tmp_path.name}.csv"
    histcxr("triage", "monday")
    (tmp_path / "b" / "monday").mkdir(parents=True)
    result = histcxr("triage", "b/monday")
    assert result.exit_code == 2
    assert "choose another output (-o), or overwrite it (--overwrite)" in result.output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train STUDY --classifier smv", "did you mean 'svm'?"),
        ("train STUDY --where labl=Normal", "did you mean 'label'?"),
        ("train STUDY --where label=Norml", "did you mean 'Normal'?"),
        ("train STUDY --normal Healthy", "normal must be a label of the data (--normal), got 'Healthy'"),
        ("evaluate STUDY --normal Norml", "did you mean 'Normal'?"),
        ("evaluate STUDY --split tset", "did you mean 'test'?"),
        ("tune STUDY --classifier stak -o found", "did you mean 'stack'?"),
        ("triage STUDY -m boxd", "does not exist"),
    ],
)
def test_a_mistyped_word_is_refused_with_the_nearest(study, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    result = histcxr(*command.replace("STUDY", str(study)).split())
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_missing_masks_name_the_way_out(study, tmp_path):
    bare = write_study(tmp_path / "bare", n_patients=10, size=(96, 96), masks=False)
    result = histcxr("train", bare, "--lungs", "given")
    assert result.exit_code == 2
    assert "have the lungs found (--lungs found)" in result.output


def test_segment_goes_on(study, tmp_path):
    arguments = ("segment", study, "-o", tmp_path / "lungs", "--json", tmp_path / "s.json")
    histcxr(*arguments)
    first, table = json.loads((tmp_path / "s.json").read_text()), tmp_path / "lungs" / "segmentation.csv"
    whole = table.read_text()
    rows = list(csv.DictReader(whole.splitlines()))
    masks = {row["file"]: tmp_path / "lungs" / row["mask"] for row in rows if row["mask"]}
    assert first["resumed"] == 0
    assert len(masks) == first["segmented"] > 5
    times = {file: mask.stat().st_mtime_ns for file, mask in masks.items()}
    # killed in the middle of a line, one mask lost
    table.write_text("".join(whole.splitlines(keepends=True)[:6]) + whole.splitlines()[6][:9])
    kept = [row["file"] for row in rows[:5] if row["mask"]]
    masks[kept[0]].unlink()
    result = histcxr(*arguments)
    second = json.loads((tmp_path / "s.json").read_text())
    assert second == {**first, "resumed": len(kept) - 1}
    assert f"{len(kept) - 1} masks were already there" in result.output
    assert table.read_text() == whole
    assert all(masks[file].stat().st_mtime_ns == times[file] for file in kept[1:])
    # nothing of another input's
    other = histcxr("segment", study / "Normal", "-o", tmp_path / "lungs")
    assert other.exit_code == 2
    assert "another input or another network; choose another folder (-o), or start anew" in other.output


def test_tables_fit_the_terminal():
    rows = [{"name": f"row{i}", **{f"column {j}": i * j / 7 for j in range(9)}} for i in range(3)]
    text = f"Before\n{markdown_table(rows)}\nafter"
    assert fit_tables(text, 500) == text
    for width in (20, 40, 80):
        lines = fit_tables(text, width).splitlines()
        assert max(map(len, lines)) <= max(width, len("| name | column 0 |"))
        assert lines[0] == "Before"
        assert lines[-1] == "after"
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "row1" in line]
        assert {row[0] for row in cells} == {"row1"}
        assert [float(cell) for row in cells for cell in row[1:]] == [round(j / 7, 3) for j in range(9)]


def test_progress_is_shown_where_somebody_watches(study, tmp_path, monkeypatch):
    arguments = ("segment", study / "Normal", "-o")
    assert histcxr(*arguments, tmp_path / "unwatched").stderr == ""
    monkeypatch.setattr("histcxr.commands.shell.terminal.show_progress", lambda: True)
    watched = histcxr(*arguments, tmp_path / "watched")
    assert "segmenting: 100%" in watched.stderr
    assert "10/10" in watched.stderr
    assert "segmenting" not in watched.stdout


def test_one_image_is_no_images(capsys):
    from histcxr.commands.shell.terminal import say

    say("1 images were read, 11 images, 2.1 images, 1 patients; 1 images are, 1 images name 1 labels")
    said = "1 image was read, 11 images, 2.1 images, 1 patient; 1 image is, 1 image names 1 label\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("command", ["triage IN -o w.csv", "extract IN -o h.csv --bands full", "train STUDY"])
def test_ctrl_c_ends_quietly_with_130(study, tmp_path, command):
    incoming = tmp_path / "in"
    incoming.mkdir()
    (image,) = list((study / "Normal" / "images").glob("*.png"))[:1]
    for number in range(4000):
        os.link(image, incoming / f"{number}.png")
    if command == "train STUDY":
        study = write_study(tmp_path / "large", n_patients=300, size=(64, 64), mask_size=(64, 64), repeats=0)
    words = {"IN": str(incoming), "STUDY": str(study)}
    arguments = [words.get(word, word) for word in command.split()]
    # A signal may fall into a package's own import, which makes of it what it likes: three times is no accident.
    again = ["--overwrite"]
    ends = (interrupted([*arguments, *more], tmp_path) for more in ([], again, again))
    assert any(end == (130, "", ["Interrupted."]) for end in ends)
    assert not list(Path(tmp_path).glob(".histcxr-*"))
    assert not (tmp_path / "h.csv").exists()


def interrupted(arguments, folder):
    """Interrupt a command a second after its work began; return its exit code, its output and what it said."""
    run = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "histcxr", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell lets what it runs in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # -X importtime tells when the heavy packages are there, so when the work begins
    for line in run.stderr:
        if line.rstrip().endswith(
            ("histcxr.worklist.engine", "histcxr.features.extraction", "histcxr.study.train")
        ):
            break
    time.sleep(1)
    assert run.poll() is None, "it ended before it could be interrupted"
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    said = [line for line in err.splitlines() if line and not line.startswith("import time:")]
    return run.returncode, out, said


def test_it_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "histcxr", "--version"], capture_output=True, text=True)
    assert run.stdout.startswith("histcxr, version ")


def test_no_help_is_cut_in_a_sentence():
    for command in (["--help"], ["reference", "--help"]):
        assert "..." not in histcxr(*command).output.split("Commands:")[1]


def test_bands_none_is_taken_everywhere(study, tmp_path):
    for bands in ("none", ""):
        assert (
            histcxr("extract", study, "--bands", bands, "-o", tmp_path / "h.csv", "--overwrite").exit_code
            == 0
        )
