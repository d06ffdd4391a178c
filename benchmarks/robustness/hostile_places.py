"""Attacks by more than one file: on reports, models, trails, outputs and folders, each with what it must come to.

:data:`ATTACKS` has, by name, the number of what is attacked (:mod:`benchmarks.robustness.hostile_corpus`), what runs
it, and the outcome as a regular expression. A run makes its files from scratch in a :class:`Place`, calls the commands,
and says in words what came of it.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from benchmarks.robustness.hostile_files import radiograph
from histcxr.commands import main as histcxr
from histcxr.files.writing import encode_image, write_mask
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.worklist.audit_trail import AUDIT_SUFFIX
from histcxr.worklist.study_reports import OTHER_FILE, TWO_PATIENTS

TRAIL = f"w.csv{AUDIT_SUFFIX}"
_ANSI, _BELL = "\x1b[31m", "\x1b]0;gone\x07"


@dataclass(frozen=True)
class Place:
    """An empty folder of an attack's own, and the sound models by their names."""

    folder: Path
    models: Path

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file, folders included."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def image(self, name: str, seed: int = 0, **tags: Any) -> Path:
        """Write a sound radiograph, by its extension PNG or DICOM with these tags."""
        pixels = radiograph(seed)
        content = encode_dicom(pixels, tags=tags) if name.endswith(".dcm") else encode_image(pixels)
        return self.write(name, bytes(content))

    def call(self, line: str) -> str:
        """Call a command in this folder; return exit code and words, in one line, without the folder's own name."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(histcxr, line.replace("MODELS", str(self.models)).split())
        finally:
            os.chdir(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return f"exit {done.exit_code}: " + " ".join(done.output.replace(f"{self.folder}/", "").split())

    def triage(self, more: str = "") -> str:
        """Triage the folder ``in`` by the boosted model into ``w.csv``."""
        return self.call(f"triage in -m MODELS/xgboost -o w.csv {more}")

    def table(self, name: str = "w.csv") -> list[dict[str, str]]:
        """Return the rows of a table."""
        with open(self.folder / name, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def fates(self) -> str:
        """Return what became of each file of a triage, in the order of names."""
        rows = sorted(self.table(), key=lambda row: row["file"])
        return f"{len(rows)} rows: " + ", ".join(row["reason_code"] or "judged" for row in rows)

    def hashes(self) -> dict[str, str]:
        """Return the hash of every file that there is."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def unchanged(self, line: str) -> str:
        """Call a command; say how it ended and how many of the files that were there it changed."""
        before = self.hashes()
        said, after = self.call(line), self.hashes()
        return f"{said} ({sum(after.get(path) != one for path, one in before.items())} changed)"


class Attack(NamedTuple):
    """One attack: where it stands in the list, what runs it, and what its outcome must match."""

    part: int
    run: Callable[[Place], str]
    expected: str


ATTACKS: dict[str, Attack] = {}


def add(part: int, name: str, expected: str) -> Callable[[Callable[[Place], str]], Callable[[Place], str]]:
    """Return what puts an attack into the table."""

    def added(run: Callable[[Place], str]) -> Callable[[Place], str]:
        ATTACKS[name] = Attack(part, run, expected)
        return run

    return added


# ---- 4: reports about the right patient, tables that are safe to open


def _study(place: Place, names: str, **differ: tuple[str, str]) -> None:
    for number, name in enumerate(names.split()):
        own = {keyword: values[number] for keyword, values in differ.items()}
        uids = {"StudyInstanceUID": "1.2.840.1", "SeriesInstanceUID": "1.2.840.1.1"}
        tags = {**uids, "SOPInstanceUID": f"1.2.840.1.1.{number}", "PatientID": "1", "ViewPosition": "PA"}
        place.image(f"in/{name}", number, **{**tags, **own})


def _reported(place: Place) -> str:
    place.triage()
    place.call("report w.csv -o reports")
    rows = sorted(place.table("reports/reports.csv"), key=lambda row: row["file"])
    made = len([*(place.folder / "reports").glob("*.dcm")])
    return f"{made} reports; " + "; ".join(row["reason"] or "reported" for row in rows)


@add(4, "two patients share the UID of a study", f"0 reports; {TWO_PATIENTS}; {TWO_PATIENTS}")
def _two_patients(place: Place) -> str:
    _study(place, "a.dcm b.dcm", PatientID=("1", "2"), PatientName=("Doe^Jane", "Roe^John"))
    return _reported(place)


@add(4, "two files of one instance, the first one damaged", f"1 reports; {OTHER_FILE}; reported")
def _one_instance(place: Place) -> str:
    _study(place, "a.dcm b.dcm", SOPInstanceUID=("1.2.840.1.1.9", "1.2.840.1.1.9"))
    first = place.folder / "in/a.dcm"
    first.write_bytes(first.read_bytes()[:-3000])
    return _reported(place)


def _named(place: Place, *names: str) -> tuple[list[str], list[str]]:
    """Triage, segment and report files with these names; return the cells of all tables, and all that was said."""
    for number, name in enumerate(names):
        place.image(f"in/{name}", number)
    said = [place.triage(), place.call("segment in -o lungs"), place.call("report w.csv -o reports")]
    cells = []
    for table in ("w.csv", "lungs/segmentation.csv", "reports/reports.csv"):
        with open(place.folder / table, encoding="utf-8", newline="") as file:
            cells += [cell for row in csv.reader(file) for cell in row]
    return cells, said


@add(4, "escapes in names", "0 of 3 answers obeyed by a terminal, names whole in 12 cells")
def _escapes(place: Place) -> str:
    names = (f"{_ANSI}a.png", f"{_BELL}b.png", "\u202egnp.exe.png")
    cells, said = _named(place, *names)
    sent = sum(bool(set(answer) & {"\x1b", "\x07", "\u202e"}) for answer in said)
    whole = sum(cell.endswith(names) for cell in cells)
    return f"{sent} of {len(said)} answers obeyed by a terminal, names whole in {whole} cells"


@add(4, "formulas in names", "0 cells that a spreadsheet runs")
def _formulas(place: Place) -> str:
    cells, _ = _named(place, "=1+1.png", "@SUM(A1).png", "+1.png", "-1.png")
    return f"{sum(cell.startswith(('=', '@', '+', '-')) for cell in cells)} cells that a spreadsheet runs"


# ---- 7: nothing is overwritten unasked


def finished(place: Place) -> list[bytes]:
    """Triage four radiographs; return the lines of the trail."""
    for number in range(4):
        phantom = make_phantom(number, sick=number % 2 == 1, size=(128, 128))
        place.write(f"in/{number}.png", bytes(encode_image(phantom.image)))
        write_mask(place.folder / "in" / "masks" / f"{number}.png", phantom.mask)
    place.triage()
    return (place.folder / TRAIL).read_bytes().splitlines(keepends=True)


def _output(name: str, line: str, expected: str) -> None:
    def run(place: Place) -> str:
        finished(place)
        place.write("mine.csv", "mine")
        place.write("list.csv", "image\nin/0.png\n")
        (place.folder / "link.json").symlink_to("in/0.png")
        place.write("x.csv.partial", "mine")
        os.mkfifo(place.folder / "pipe.json")
        return place.unchanged(line)

    add(7, name, f"exit 2: .*{expected}.*\\(0 changed\\)")(run)


_TRIAGE = "triage in -m MODELS/xgboost --overwrite"
for _name, _line, _expected in (
    ("figures over a radiograph", f"{_TRIAGE} -o v.csv --json in/0.png", "input"),
    ("figures through a link to a radiograph", f"{_TRIAGE} -o v.csv --json link.json", "input"),
    ("figures over another worklist", f"{_TRIAGE} -o v.csv --json w.csv", "no earlier result"),
    ("figures over a trail", f"{_TRIAGE} -o w.csv --json {TRAIL}", "another output"),
    ("figures into a pipe", f"{_TRIAGE} -o v.csv --json pipe.json", "pipe or a device"),
    ("a worklist over its own list", "triage list.csv -m MODELS/xgboost --overwrite -o list.csv", "input"),
    ("histograms over a table", "extract in -o mine.csv", "exists|free"),
    ("a worklist whose .partial is the user's", f"{_TRIAGE} -o x.csv", "move that file away"),
    ("a worklist called manifest.csv", f"{_TRIAGE} -o in/manifest.csv", "manifest.csv|input folder"),
):
    _output(_name, _line, _expected)


def _shell(line: str) -> Callable[[Place], str]:
    def run(place: Place) -> str:
        command = f"{sys.executable} -m histcxr {line}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        bad = "Traceback" in done.stderr or "Exception ignored" in done.stderr
        return f"exit {done.returncode}, {'a traceback' if bad else 'no traceback'}"

    return run


add(7, "standard output that is full", "exit 1, no traceback")(_shell("models --json - > /dev/full"))
add(7, "standard output that is closed", "exit 1, no traceback")(_shell("models --json - >&-"))


# ---- 8: inputs that vanish quietly


@add(8, "radiographs in folders named MASK and masks_2020", "1 rows: judged; 2 files in folders of masks")
def _mask_folders(place: Place) -> str:
    for name in ("a.png", "MASK/b.png", "masks_2020/c.png"):
        place.image(f"in/{name}")
    said = place.triage("--json w.json")
    counted = re.search(r"(\d+) files in folders of masks", said)
    return f"{place.fates()}; {counted[0] if counted else said}"


@add(8, "a stray manifest.csv", "1 rows: judged; told")
def _stray(place: Place) -> str:
    for name in ("a.png", "b.png"):
        place.image(f"in/{name}")
    place.write("in/manifest.csv", "image\na.png\n")
    said = place.triage()
    return f"{place.fates()}; {'told' if 'other files of the folder were not looked at' in said else said}"


@add(8, "a manifest.csv that points outside", "exit 2: .*leads out of its folder")
def _outside(place: Place) -> str:
    place.image("in/a.png")
    place.image("secret/b.png")
    place.write("in/manifest.csv", "image\n../secret/b.png\n/etc/passwd\n")
    return place.triage()


@add(8, "links that double a folder 20 times", "1 rows: judged")
def _doubling(place: Place) -> str:
    for level in range(20):
        (place.folder / "in" / str(level)).mkdir(parents=True)
        for name in "ab":
            (place.folder / "in" / str(level) / name).symlink_to(f"../{(level + 1) % 20}")
    place.image("in/19/x.png")
    place.triage()
    return re.sub("(, )?link_loop", "", place.fates())


@add(8, "a fill byte before the end of a lossless JPEG", "1 rows: judged")
def _fill_byte(place: Place) -> str:
    pixels = radiograph(0).copy()
    pixels[-1] = 3
    data = encode_dicom(pixels, syntax="jpeg lossless", tags={"ViewPosition": "PA"})
    start, end = data.index(b"\xff\xd8\xff"), data.rindex(b"\xff\xd9")
    stream = data[start:end] + b"\xff\xff\xd9" + b"\0" * ((end - start + 3) % 2)
    place.write("in/a.dcm", data[: start - 4] + len(stream).to_bytes(4, "little") + stream + data[-8:])
    place.triage()
    return place.fates()


@add(8, "MONOCHROME1 with a presentation LUT of IDENTITY", "1 rows: damaged")
def _contradictory(place: Place) -> str:
    place.image("in/a.dcm", PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    place.triage()
    return place.fates()


# ---- 9: names are identifiers


@add(9, "a patient's name for a file, with keyed names", "0 found")
def _anonymous(place: Place) -> str:
    place.image("in/DOE_JANE/DOE_JANE.png")
    said = place.triage("--anonymous-names keys --json w.json --report w.html")
    outputs = [(place.folder / name).read_text() for name in ("w.csv", TRAIL, "w.json", "w.html")]
    return f"{sum('DOE_JANE' in text for text in [*outputs, said])} found"
