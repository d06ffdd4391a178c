"""From a finished triage, one DICOM Structured Report for each study, for the archive that the images came from.

The reports name the patients, as :mod:`histcxr.reports.dicom_sr` says, so nothing makes them unless asked.
Every row of the worklist is accounted for in ``reports.csv``: with its report, or with the reason why it is in none.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from histcxr.dicom.tags import read_uids
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.files.cells import csv_line, printable
from histcxr.files.reading import read_file
from histcxr.files.writing import replacing, write_error
from histcxr.reports.dicom_sr import (
    Algorithm,
    Finding,
    identity_of,
    import_highdicom,
    write_structured_report,
)
from histcxr.worklist.audit_trail import AUDIT_SUFFIX, explanation_of
from histcxr.worklist.judging import signature
from histcxr.worklist.reading import FinishedTriage
from histcxr.worklist.summary import EXIT_ALL_JUDGED, EXIT_ATTENTION, urgency

TABLE = "reports.csv"
COLUMNS = ("file", "report", "reason")

NOT_READ = "the triage could not read it"
CHANGED = "it changed, moved or went away after the triage"
NO_DICOM = "not a DICOM file"
NO_UIDS = "DICOM without a valid study, series or instance UID"
NO_IMAGE = "no DICOM image that a report can refer to"
COPY = "a copy of an image that is in a report"
OTHER_FILE = "another file of the same instance is in a report"
TWO_PATIENTS = "the images of this study name different patients"

# What tells patients apart; empty values say nothing.
_PATIENT = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")


@dataclass(frozen=True)
class StudyReports:
    """What was written into the folder ``output``, beside ``reports.csv``.

    ``total`` rows of the worklist became ``reports``, one for each study, of ``images``; ``left_out`` has, by reason,
    the files that are in no report.
    """

    total: int
    reports: int
    images: int
    left_out: Mapping[str, tuple[str, ...]]
    output: str

    @property
    def exit_code(self) -> int:
        """0 when every file is in a report, 3 when some are not."""
        return EXIT_ATTENTION if self.left_out else EXIT_ALL_JUDGED

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON knows, ``exit_code`` included."""
        left_out = {reason: list(files) for reason, files in self.left_out.items()}
        return vars(self) | {"left_out": left_out, "exit_code": self.exit_code}


def write_study_reports(
    worklist: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    audit: str | os.PathLike[str] | None = None,
) -> StudyReports:
    """Write a structured report for each study of a finished triage; **they name the patients**.

    The images must still be where the triage found them, unchanged: a report must not speak of another image than the
    one that was judged. Of several files of one instance those that could be judged come first, then the most urgent.
    Where the images of one study name different patients, none of them is in a report.

    ``worklist`` is what :func:`histcxr.triage` wrote, in any format; ``audit`` is by default its name with
    ``.audit.jsonl`` added. ``output``, a new or empty folder, gets ``SR000001.dcm`` and so on, and ``reports.csv``
    with a row for every row of the worklist (:data:`COLUMNS`).

    MissingDependencyError: highdicom is not installed. InputError: the triage has not ended, worklist and audit trail
    do not belong together, or the folder is not empty. OutputError: a file cannot be written.
    """
    import_highdicom()
    folder = Path(output)
    _check_free(folder)
    with (
        FinishedTriage(
            worklist, audit if audit is not None else os.fspath(worklist) + AUDIT_SUFFIX
        ) as triage,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # pydicom's may quote the patient
        studies: dict[str, list[int]] = {}
        fates = [("", "")] * len(triage)  # report and reason of each row, one of them empty
        for row, record in enumerate(triage):
            study, reason = _study_of(triage.path_of(record), record)
            if reason:
                fates[row] = ("", reason)
            else:
                studies.setdefault(study, []).append(row)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        reports = 0
        for study, rows in studies.items():
            name = f"SR{reports + 1:06}.dcm"
            told = _report(triage, study, rows, folder / name)
            for row, reason in told.items():
                fates[row] = ("" if reason else name, reason)
            reports += "" in told.values()
        return _account(triage, fates, folder, reports)


def _study_of(path: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Study of an image, or why it has no report."""
    if not record["sha256"]:
        return "", NOT_READ
    if record["stat"] != signature(path):  # copied back, perhaps: the same bytes will do
        try:
            same = hashlib.sha256(read_file(path)).hexdigest() == record["sha256"]
        except UnjudgeableError:
            same = False
        if not same:
            return "", CHANGED
    uids = read_uids(path)
    if not any(uids):
        return "", NO_DICOM
    return (uids.study_uid, "") if all(uids[:3]) else ("", NO_UIDS)


def _report(triage: FinishedTriage, study: str, rows: Sequence[int], place: Path) -> dict[int, str]:
    """Write the report of a study if any of its images can be in one; return why each is not, ``""`` where it is."""
    records = {row: triage.record(row) for row in rows}
    reasons: dict[int, str] = {}
    kept: dict[str, tuple[int, Any]] = {}  # instance to row and identity
    named: dict[str, set[str]] = {keyword: set() for keyword in _PATIENT}
    for row, record in sorted(records.items(), key=lambda item: _first_to_count(item[1])):
        try:
            image = identity_of(triage.path_of(record))
        except InputError:
            image = None
        if image is None or image.StudyInstanceUID != study:
            reasons[row] = NO_IMAGE
        else:
            first, _ = kept.setdefault(image.SOPInstanceUID, (row, image))
            same = record["sha256"] == records[first]["sha256"]
            reasons[row] = "" if first == row else COPY if same else OTHER_FILE
            for keyword, values in named.items():
                values.add(str(image.get(keyword) or "").strip(" ^").casefold())
    if any(len(values - {""}) > 1 for values in named.values()):
        return {row: reason if reason == NO_IMAGE else TWO_PATIENTS for row, reason in reasons.items()}
    if not kept:
        return reasons
    # by name, however the worklist is sorted: the same triage gives the same report
    order = sorted(kept.values(), key=lambda found: records[found[0]]["file"])
    write_structured_report(
        [image for _, image in order],
        [_finding(records[row]) for row, _ in order],
        place,
        algorithm=_algorithm(triage.header),
        created=max(_local(records[row]["time"]) for row, _ in order),
    )
    return reasons


def _first_to_count(record: Mapping[str, Any]) -> tuple[bool, int, float, str]:
    score = record["score"]
    return score is None, urgency(record["decision"], record["reason"]), -(score or 0.0), record["file"]


def _finding(record: Mapping[str, Any]) -> Finding:
    return Finding(
        record["decision"], record["score"], printable(explanation_of(record)), str(record["reason"])
    )


def _algorithm(header: Mapping[str, Any]) -> Algorithm:
    model, thresholds = header["model"], header["thresholds"]
    return Algorithm(
        printable(model["name"]),
        model["hash"],
        rule_out=thresholds["rule_out"]["threshold"],
        rule_in=thresholds["rule_in"]["threshold"],
        version=header["histcxr"],
    )


def _local(time: str) -> datetime:
    """A moment of the audit trail (UTC) on the wall clock, as DICOM writes it."""
    return datetime.fromisoformat(time).astimezone().replace(tzinfo=None)


def _account(
    triage: FinishedTriage, fates: Sequence[tuple[str, str]], folder: Path, reports: int
) -> StudyReports:
    """Write what became of every row, and sum it up."""
    left_out: dict[str, list[str]] = {}
    with (
        replacing(folder / TABLE) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        file.write(csv_line(COLUMNS))
        for record, (report, reason) in zip(triage, fates, strict=True):
            name = printable(record["file"])
            file.write(csv_line((name, report, reason)))
            if reason:
                left_out.setdefault(reason, []).append(name)
    return StudyReports(
        total=len(triage),
        reports=reports,
        images=sum(not reason for _, reason in fates),
        left_out={reason: tuple(files) for reason, files in sorted(left_out.items())},
        output=os.fspath(folder),
    )


def _check_free(folder: Path) -> None:
    try:
        free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise write_error(folder, error) from error
    if not free:
        raise InputError(
            f"output must be a new or empty folder, so that no older report stays among the new; {os.fspath(folder)!r} "
            "is not"
        )
