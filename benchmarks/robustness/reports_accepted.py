"""Reports that archives take: one a study, valid to a checker, accepted by a receiver, about the right patient.

Phantoms are written as DICOM in many transfer syntaxes, with whole, sparse and strange patient data (names in other
scripts, empty tags, dates that are none), two of a study. Among them two kinds of conflict: patients who share the UID
of a study, and files of one instance of which one is damaged. A triage sorts them, ``histcxr report`` writes reports;
``dciodvfy`` (Debian's dicom3tools) checks each against the standard, and DCMTK's ``storescp`` receives each from
``storescu``.

    apt-get install dcmtk dicom3tools
    python -m benchmarks.robustness.reports_accepted --studies 200 --json accepted.json

Prints a Markdown table. Exit status 1 when a report is in error or refused, a study has no report, or a conflict is
guessed at; else 0.
"""

from __future__ import annotations

import csv
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, publish, run
from histcxr.exceptions import InputError
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.reports.tables import markdown_table
from histcxr.worklist.engine import triage
from histcxr.worklist.study_reports import OTHER_FILE, TWO_PATIENTS, write_study_reports

SYNTAXES = ("explicit", "implicit", "big endian", "rle", "jpeg")
NAMES = ("Doe^Jane", "Müller^Jörg", "山田^太郎", "", "A^B^C^D^E", "O'Neil^=1+1")
CHARSETS = {"Müller^Jörg": "ISO_IR 100", "山田^太郎": "ISO_IR 192"}


def write_study(folder: Path, number: int, chosen: random.Random) -> str:
    """Write two images of a study, perhaps in conflict; return which kind it is."""
    kind = ("plain", "plain", "plain", "two patients", "one instance")[number % 5]
    name, syntax = chosen.choice(NAMES), chosen.choice(SYNTAXES)
    patient: dict[str, Any] = {
        "SpecificCharacterSet": CHARSETS.get(name, "ISO_IR 100"),
        "PatientName": name,
        "PatientID": f"{number:06}",
        "PatientBirthDate": chosen.choice(("19500101", "", "1950")),
        "PatientSex": chosen.choice(("F", "M", "O", "")),
        "StudyInstanceUID": f"1.2.826.0.1.{number + 1}",
        "SeriesInstanceUID": f"1.2.826.0.1.{number + 1}.1",
        "StudyDate": chosen.choice(("20260101", "")),
        "StudyTime": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyID": "",
        "ViewPosition": "PA",
    }
    for place in range(2):
        pixels = make_phantom(2 * number + place, sick=bool(place), size=(128, 128)).image
        other = {"PatientID": f"other-{number}"} if kind == "two patients" and place else {}
        instance = 1 if kind == "one instance" else place + 1
        uid = f"1.2.826.0.1.{number + 1}.1.{instance}"
        data = encode_dicom(pixels, syntax=syntax, tags={**patient, **other, "SOPInstanceUID": uid})
        # The damaged copy comes first by name.
        cut = kind == "one instance" and not place
        (folder / f"{number:06}-{place}.dcm").write_bytes(data[:-3000] if cut else data)
    return kind


def received(reports: Sequence[Path], scratch: Path) -> int:
    """Send all reports to a receiver; return how many it kept."""
    kept = scratch / "received"
    kept.mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    receiver = subprocess.Popen(["storescp", "--output-directory", kept, port])
    try:
        for _ in range(100):
            if not subprocess.run(["echoscu", "localhost", port], capture_output=True).returncode:
                break
            time.sleep(0.1)
        for start in range(0, len(reports), 100):
            subprocess.run(
                ["storescu", "localhost", port, *reports[start : start + 100]], capture_output=True
            )
    finally:
        receiver.terminate()
        receiver.wait()
    return sum(1 for _ in kept.iterdir())


def errors(report: Path) -> list[str]:
    """Return what the checker calls an error."""
    done = subprocess.run(["dciodvfy", report], capture_output=True, text=True, errors="replace")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    return lines or ([f"exit code {done.returncode}"] if done.returncode else [])


def experiment(studies: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Write, triage, report, check and send; the figures, ready for JSON."""
    folder, chosen = scratch / "archive", random.Random(seed)
    folder.mkdir()
    kinds = Counter(write_study(folder, number, chosen) for number in range(studies))
    triage(folder, "boxed", scratch / "w.csv")
    write_study_reports(scratch / "w.csv", scratch / "reports")
    with open(scratch / "reports" / "reports.csv", encoding="utf-8", newline="") as file:
        fates = {row["file"]: row for row in csv.DictReader(file)}
    guessed = 0
    for number in range(studies):
        first, second = (fates[f"{number:06}-{place}.dcm"] for place in range(2))
        if number % 5 == 3:
            guessed += first["reason"] != TWO_PATIENTS or second["reason"] != TWO_PATIENTS
        elif number % 5 == 4:
            guessed += first["reason"] != OTHER_FILE or not second["report"]
        else:
            guessed += not first["report"] or first["report"] != second["report"]
    reports = sorted((scratch / "reports").glob("*.dcm"))
    found = Counter(line for report in reports for line in errors(report))
    return {
        "studies": dict(kinds),
        "reports": len(reports),
        "expected": studies - kinds["two patients"],
        "with errors": sum(bool(errors(report)) for report in reports) if found else 0,
        "errors": dict(found),
        "received": received(reports, scratch),
        "guessed or lost": guessed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument(
        "--studies", type=int, default=200, help="studies, of two images each (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for tool in ("dciodvfy", "storescp", "storescu", "echoscu"):
        if shutil.which(tool) is None:
            raise InputError(f"the program {tool} is needed: apt-get install dcmtk dicom3tools")
    with tempfile.TemporaryDirectory() as scratch:
        figures = experiment(options.studies, options.seed, Path(scratch))
    row = {name: value for name, value in figures.items() if name not in ("studies", "errors")}
    lines = [
        ", ".join(f"{count} {kind}" for kind, count in figures["studies"].items()),
        "",
        markdown_table([row]),
    ]
    publish("\n".join([*lines, *figures["errors"]]), figures, options.json)
    whole = figures["reports"] == figures["expected"] == figures["received"]
    return 0 if whole and not figures["errors"] and not figures["guessed or lost"] else 1


if __name__ == "__main__":
    run(main)
