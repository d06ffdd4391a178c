"""No output names a patient: identifiers planted in every corner of radiographs, then looked for in what is written.

Phantoms are written as DICOM, PNG, JPEG and TIFF. Names, numbers, dates, addresses, free text and UIDs are planted in
their tags (also private ones, in sequences and in the file's preamble), text chunks, EXIF and comments, and in the
names of files, folders and masks. Then the commands of a hospital run on them, with ``--anonymous-names``: explore,
segment, extract, triage (in all formats, with a page), monitor, plan, audit, train (with its recipe), tune, calibrate,
adapt, evaluate, report. All files that they write, and all that they say, are searched, also in compressed tables,
archives and the pictures of pages; of ``report`` all but the reports themselves, which name the patients, as they say.
Then a visitor of ``histcxr app`` names the folder on every page and drops files. All that the app answers, downloads
and pictures included, what it keeps and what it logs is searched, too; the app has no other names than the user's, so
names of files and folders, and these alone, may stand there.

    python -m benchmarks.robustness.planted_identifiers --files 1500 --json planted.json

Prints Markdown tables. Exit status 1 when an identifier is found, a command fails, or the search finds nothing where
the names must stand: in the reports, in a worklist without ``--anonymous-names``, and in the app; else 0.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import random
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

from benchmarks.app_visitor import Visitor, app
from benchmarks.common import make_parser, publish, run
from histcxr.commands import main as histcxr
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import SYNTAXES, encode_dicom
from histcxr.reports.tables import markdown_table

WORDS = """
    PatientName PatientID OtherPatientNames PatientMotherBirthName PatientAddress PatientComments MilitaryRank
    EthnicGroup IssuerOfPatientID Occupation AdditionalPatientHistory MedicalRecordLocator AccessionNumber
    InstitutionName InstitutionAddress InstitutionalDepartmentName ReferringPhysicianName PhysiciansOfRecord
    OperatorsName PerformingPhysicianName RequestingPhysician StationName StudyID StudyDescription
    SeriesDescription ProtocolName DeviceSerialNumber ImageComments RequestedProcedureDescription
    PerformedProcedureStepID AdmissionID CurrentPatientLocation
""".split()  # noqa: SIM905 - a table
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
SYNTAX = [name for name in ("explicit", "implicit", "rle", "jpeg") if name in SYNTAXES]
FOUND = re.compile(
    rb"zqxjk[0-9a-z]{7}|2\.25\.77077[0-9]{5,}|(?<![0-9.])(?:1907|2071)-?[01][0-9]-?[0-3][0-9](?![0-9])", re.I
)
_EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=]+)")
#: What each command needs; KEYS are the keyed names, LIST the list that it holds, OUT a folder.
COMMANDS = (
    "explore DATA -o OUT/look --anonymous-names KEYS --json OUT/look.json",
    "segment DATA -o OUT/lungs --anonymous-names KEYS --json OUT/lungs.json",
    "extract DATA -o OUT/h.csv --anonymous-names KEYS --dicom-tags --json OUT/h.json",
    "extract DATA -o OUT/h.parquet --anonymous-names KEYS",
    "extract DATA -o OUT/h.npz --anonymous-names KEYS",
    "triage DATA -o OUT/w.csv --anonymous-names KEYS --report OUT/w.html --json OUT/w.json",
    "triage DATA -o OUT/w.csv --anonymous-names KEYS --report OUT/w.html --json OUT/w.json",
    "triage DATA -o OUT/w.jsonl --anonymous-names KEYS --no-segment --sort urgency",
    "triage DATA -o OUT/w.parquet --anonymous-names KEYS --trust-site",
    "monitor OUT/w.csv --json OUT/monitor.json --plot OUT/monitor.png",
    "plan LIST --json OUT/plan.json --plot OUT/plan.png --dicom-tags",
    "plan --draw 20 LIST -o OUT/read.csv --json OUT/draw.json",
    "audit LIST --json OUT/audit.json",
    "train LIST -o OUT/m.histcxr --classifier svm --trials 0 --zones 2 --dicom-tags --json OUT/train.json",
    "tune LIST --classifier svm --trials 2 -o OUT/search",
    "calibrate LIST -m OUT/m.histcxr -o OUT/c.histcxr --split all --sensitivity .8 --specificity .8 --json OUT/c.json",
    "adapt LIST -o OUT/a.histcxr --json OUT/a.json",
    "evaluate LIST -m OUT/m.histcxr --by source --report OUT/e.html --json OUT/e.json",
    "models OUT/m.histcxr --json OUT/card.json",
    "report OUT/w.csv -o OUT/reports --json OUT/reports.json",
)
#: Pages of the app that take a folder.
PAGES = ("", "explore", "audit", "train")


class Plants:
    """Makes identifiers that nothing else looks like, each once, and counts them by kind."""

    def __init__(self, seed: int) -> None:
        self.count: Counter[str] = Counter()
        self._random = random.Random(seed)

    def word(self, kind: str) -> str:
        """Return a word, such as ZQXJK00A1B2C."""
        self.count[kind] += 1
        number = np.base_repr(self.count.total(), 36).rjust(7, "0")
        return f"ZQXJK{number}"

    def date(self) -> str:
        """Return a day of a year that occurs in nothing else."""
        self.count["dates"] += 1
        return f"1907{self._random.randint(1, 12):02}{self._random.randint(1, 28):02}"

    def uid(self) -> str:
        """Return a UID."""
        self.count["UIDs"] += 1
        return f"2.25.77077{self._random.randrange(10**20):020}"


def write_dicom(place: Path, pixels: np.ndarray[Any, Any], plants: Plants, study: str, syntax: str) -> None:
    """Write a DICOM file with identifiers in its tags, in a sequence, in private tags, in its preamble."""
    import pydicom

    tags = {word: plants.word("DICOM tags")[:16] for word in WORDS}
    tags |= {date: plants.date() for date in DATES} | {uid: plants.uid() for uid in UIDS}
    tags |= {"StudyInstanceUID": study, "ViewPosition": "PA", "PatientSex": "O", "BodyPartExamined": "CHEST"}
    request = pydicom.Dataset()
    request.AccessionNumber = plants.word("DICOM tags")
    request.RequestedProcedureDescription = plants.word("DICOM tags")
    data = encode_dicom(pixels, syntax=syntax, tags={**tags, "RequestAttributesSequence": [request]})
    dataset = pydicom.dcmread(io.BytesIO(data))
    block = dataset.private_block(0x0099, plants.word("private tags"), create=True)
    block.add_new(1, "LT", plants.word("private tags"))
    block.add_new(2, "OB", plants.word("private tags").encode())
    dataset.preamble = plants.word("preambles").encode().ljust(128, b"\0")
    dataset.save_as(place)


def write_picture(place: Path, pixels: np.ndarray[Any, Any], plants: Plants) -> None:
    """Write PNG, JPEG or TIFF with identifiers in text chunks, EXIF, comments and tags."""
    picture, words = Image.fromarray(pixels), [plants.word("text in pictures") for _ in range(4)]
    if place.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        for key, word in zip(("Title", "Author", "Comment"), words, strict=False):
            info.add_text(key, word)
        info.add_itxt("Description", words[3], zip=True)
        picture.save(place, pnginfo=info)
    elif place.suffix == ".jpg":
        exif = Image.Exif()
        exif[0x010E], exif[0x013B], exif[0x8298] = words[:3]
        picture.save(place, quality=95, exif=exif, comment=words[3].encode())
    else:
        picture.save(place, tiffinfo=dict(zip((270, 305, 315, 33432), words, strict=True)))


def write_files(folder: Path, files: int, plants: Plants, seed: int) -> None:
    """Write the radiographs and their list; a tenth of them is damaged, so that messages are planted, too."""
    chosen, study = random.Random(seed), ""
    rows = []
    for number in range(files):
        patient = number // 2
        sick = patient % 2 == 1
        phantom = make_phantom(seed + patient, sick=sick, size=(96, 96), exposure=number % 2)
        place = (
            folder / plants.word("folder names") / f"{plants.word('file names')}^{plants.word('file names')}"
        )
        place.parent.mkdir(parents=True)
        if number % 2 == 0:
            study = plants.uid()
        if chosen.random() < 0.75:
            place = place.with_name(place.name + ".dcm")
            write_dicom(place, phantom.image, plants, study, chosen.choice(SYNTAX))
        else:
            place = place.with_name(place.name + chosen.choice((".png", ".jpg", ".tif")))
            write_picture(place, phantom.image, plants)
        mask = place.parent / f"{plants.word('file names')}.png"
        write_picture(mask, phantom.mask.astype(np.uint8) * 255, plants)
        if chosen.random() < 0.1:
            place.write_bytes(place.read_bytes()[: chosen.choice((0, 100, -300))])
        split = ("train", "val", "test")[number // 2 % 3]
        row = [place.relative_to(folder), mask.relative_to(folder) if number % 3 else ""]
        rows.append(
            [*row, "Lung_Opacity" if sick else "Normal", f"p{number // 2}", f"site{number % 2}", split]
        )
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "label", "patient_id", "source", "split"], *rows])


def contents(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and what is packed in it: tables, archives, pictures of a page."""
    data = path.read_bytes()
    # Pictures are searched by themselves: in so much text, letters alone are found by chance.
    yield _EMBEDDED.sub(b"", data) if path.suffix == ".html" else data
    if path.suffix == ".parquet":
        yield pd.read_parquet(path).to_csv().encode("utf-8", "surrogatepass")
    elif path.suffix in (".npz", ".skops"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                content = archive.read(name)
                yield content
                yield content.replace(b"\0", b"")  # NumPy's text has four bytes a character
    elif path.suffix == ".gz":
        yield gzip.decompress(data)
    elif path.suffix == ".html":
        for found in _EMBEDDED.finditer(data):
            yield base64.b64decode(found[1])


def identifiers(content: bytes) -> list[bytes]:
    """Return what looks like a planted identifier."""
    return [word.upper() for word in FOUND.findall(content)]


def search(paths: Sequence[Path], top: Path, known: Container[bytes] = ()) -> Counter[str]:
    """Count identifiers by file, but for those that are ``known``; names of files count, too."""
    found: Counter[str] = Counter()
    for path in paths:
        name = str(path.relative_to(top))
        seen = [name.encode("utf-8", "surrogateescape")]
        if path.is_file() and not path.is_symlink():
            seen += contents(path)
        found[name] += sum(word not in known for content in seen for word in identifiers(content))
    return +found


def visit(data: Path, scratch: Path, pages: Sequence[str], dropped: int = 40) -> dict[str, Any]:
    """Ask the app for the folder on each of its pages, drop some of the files; return what was found beside names."""
    paths = [path for path in sorted(data.rglob("*")) if path.is_file()]
    known = {word for path in paths for word in identifiers(str(path).encode())}
    files = [(path.name, path.read_bytes()) for path in paths if path.suffix != ".csv"][:dropped]
    fields: dict[str, dict[str, str | Sequence[str]]] = {
        "": {"Or a folder": str(data)},
        "train": {"Labelled radiographs": str(data), "Classifiers": ["svm"]},
        "explore": {"Radiographs": str(data)},
        "audit": {"Radiographs": str(data)},
    }
    kept, log = scratch / "kept", scratch / "app.log"
    kept.mkdir()
    refused = []
    with app(log, "--keep", kept) as url, Visitor(url, patience=3600) as visitor:
        for page in pages:
            said = visitor.do(page, fields[page], page.capitalize() or "Judge")
            refused += [f"{page}: {said}"] if "This cannot be done:" in said else []
        visitor.do("", {}, "Judge", files)
    (scratch / "answers.html").write_bytes(b"\n".join(visitor.received))
    written = sorted(path for path in kept.rglob("*") if "images" not in path.relative_to(kept).parts)
    found = search([*written, scratch / "answers.html", log], scratch, known)
    answered = identifiers((scratch / "answers.html").read_bytes())
    return {
        "answers": len(visitor.received),
        "bytes": sum(map(len, visitor.received)),
        "kept files": sum(path.is_file() for path in written),
        "found": dict(found),
        "names that the user gave": sum(word in known for word in answered),
        "refused": refused,
    }


def call(line: str, words: dict[str, str]) -> tuple[int, str]:
    """Run a command; return its exit code and all that it said."""
    arguments = [re.sub("|".join(words), lambda one: words[one[0]], part) for part in line.split()]
    result = CliRunner().invoke(histcxr, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 99, f"{result.output}{result.exception!r}"
    return result.exit_code, result.output


def experiment(
    files: int, seed: int, scratch: Path, commands: Sequence[str] = COMMANDS, pages: Sequence[str] = PAGES
) -> dict[str, Any]:
    """Plant, run and search; the figures, ready for JSON."""
    plants, out = Plants(seed), scratch / "out"
    data = scratch / "data"
    out.mkdir()
    write_files(data, files, plants, seed)
    words = {"DATA": str(data), "KEYS": str(scratch / "keys"), "OUT": str(out)}
    rows, failed = [], []
    for line in commands:
        words["LIST"] = next(map(str, sorted((scratch / "keys").glob("list-*.csv"))), "")
        code, said = call(line, words)
        rows.append(
            {"command": line, "exit code": code, "found in what it said": len(identifiers(said.encode()))}
        )
        if code not in (0, 3):
            failed.append(f"{line}: exit code {code}: {said[-300:]}")
    written = sorted(path for path in out.rglob("*") if path.suffix != ".dcm")
    found = search(written, out)
    # The search must find them where they stand.
    control = search(sorted(out.rglob("*.dcm")), out).total()
    call("triage DATA -o OUT/plain.csv --no-segment", words)
    seen = visit(data, scratch, pages)
    failed += [f"the app refused {one}" for one in seen.pop("refused")]
    return {
        "files": files,
        "planted": dict(plants.count),
        "commands": rows,
        "searched": sum(path.is_file() for path in written),
        "bytes": sum(path.stat().st_size for path in written if path.is_file()),
        "found": {**found, **seen.pop("found")},
        "app": seen,
        "failed": failed,
        "in reports": control,
        "in a worklist with its own names": search([out / "plain.csv"], out).total(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument("--files", type=int, default=1500, help="radiographs (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, help="an empty folder for files and results; kept")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        figures = experiment(options.files, options.seed, options.scratch or Path(temporary))
    planted = sum(figures["planted"].values())
    said = sum(row["found in what it said"] for row in figures["commands"])
    lines = [
        markdown_table([{"planted in": kind, "identifiers": n} for kind, n in figures["planted"].items()]),
        "",
        markdown_table(figures["commands"]),
        "",
        f"{planted:,} identifiers planted in {figures['files']:,} radiographs; {figures['searched']} files written "
        f"({figures['bytes'] / 1e6:.1f} MB) and searched: {sum(figures['found'].values())} found in them, {said} in "
        f"what the commands said.",
        f"The app: {figures['app']['answers']:,} answers ({figures['app']['bytes'] / 1e6:.1f} MB), "
        f"{figures['app']['kept files']} files kept, and its log.",
        f"To show that the search finds them: {figures['in reports']:,} in the reports, "
        f"{figures['in a worklist with its own names']:,} in a worklist without --anonymous-names, "
        f"{figures['app']['names that the user gave']:,} of the user's names in the app.",
        *(f"- FOUND {count} in {name}" for name, count in figures["found"].items()),
        *(f"- FAILED {line}" for line in figures["failed"]),
    ]
    publish("\n".join(lines), figures, options.json)
    controls = ("in reports", "in a worklist with its own names")
    blind = not all(figures[name] for name in controls) or not figures["app"]["names that the user gave"]
    return 1 if figures["found"] or said or figures["failed"] or blind else 0


if __name__ == "__main__":
    run(main)
