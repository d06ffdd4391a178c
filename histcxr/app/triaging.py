"""Triage: files dropped or a folder named, a worklist and its page out, each image to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import streamlit as st

from histcxr.app import shown
from histcxr.app.serving import MODEL
from histcxr.data.discovery import DICOM_INDEX, MANIFEST_NAME, find_inputs
from histcxr.exceptions import HistcxrError, InputError
from histcxr.features.histograms import masked_histogram
from histcxr.files.cells import shown as plain
from histcxr.lungs.segmenter import load_segmenter
from histcxr.reports.displays import GradCamDisplay, LevelsDisplay, LungsDisplay, ScoreDisplay
from histcxr.reports.pages.evaluation import look_at
from histcxr.store import ReferenceModel, load_model
from histcxr.study.explain import explain_images, images_to_explain
from histcxr.worklist.audit_trail import explanation_of
from histcxr.worklist.engine import triage
from histcxr.worklist.judging import limits_of
from histcxr.worklist.pages import write_triage_page
from histcxr.worklist.reading import FinishedTriage
from histcxr.worklist.rows import shown_score

_LONGEST: Final = 150  # characters of a name that are kept on disk
_FOUND: Final = "triaged"


def page() -> None:
    """Show the page."""
    st.title("Triage")
    st.write("Full frontal chest radiographs in, each in its drawer: normal, for review, or sick.")
    uploads = st.file_uploader("Radiographs: PNG, JPEG, TIFF, BMP or DICOM", accept_multiple_files=True)
    place = st.text_input("Or a folder, a list (CSV) or a file on this computer")
    model = st.text_input("Model: a folder NAME.histcxr, or boxed, the one that comes with histcxr",
                          os.environ.get(MODEL, "boxed"))  # fmt: skip
    with shown.told():
        if st.button("Judge", type="primary"):
            st.session_state.pop(_FOUND, None)
            st.session_state[_FOUND] = _judged(uploads, place.strip(), model.strip())
        if _FOUND in st.session_state:
            _show(**st.session_state[_FOUND])


def saved(uploads: Sequence[Any], folder: Path) -> Path:
    """Write uploads into a folder under names that lead nowhere else and that a triage takes for images."""
    folder.mkdir()
    for number, one in enumerate(uploads, start=1):
        name = plain(one.name.replace("\\", "/").rsplit("/", 1)[-1].strip())
        stem, suffix = os.path.splitext(name)
        name = stem[: _LONGEST - len(suffix[:20])] + suffix[:20]
        while len(os.fsencode(name)) > _LONGEST:  # letters of several bytes
            name = name[1:]
        if not name or name.startswith(".") or name.lower() in (MANIFEST_NAME, DICOM_INDEX.lower()):
            name = f"file {number} {name}"
        if (folder / name).exists():
            name = f"{number} {name}"
        (folder / name).write_bytes(one.getbuffer())
    return folder


def _judged(uploads: Sequence[Any], place: str, name: str) -> dict[str, Any]:
    """Run a triage; return what :func:`_show` takes."""
    if bool(uploads) == bool(place):
        raise InputError("the images must be dropped or a place named, one of the two")
    model, folder = load_model(name), shown.own_folder("triage")
    inputs = saved(uploads, folder / "images") if uploads else Path(place)
    with shown.progress("judging") as show:
        total = sum(1 for _ in find_inputs(inputs))
        summary = triage(
            inputs, model, folder / "worklist.csv", sort="urgency", progress=lambda done: show(done, total)
        )
    with st.spinner("drawing the page"):
        figures = write_triage_page(summary, model, folder / "worklist.html", segmenter=load_segmenter())
    with FinishedTriage(summary.output, summary.audit) as finished:
        records = [{**record, "path": finished.path_of(record)} for record in finished]
    return {"folder": folder, "model": model, "summary": summary, "figures": figures, "records": records}


def _show(
    folder: Path, model: Any, summary: Any, figures: Mapping[str, Any], records: list[dict[str, Any]]
) -> None:
    for column, drawer in zip(st.columns(4), ("rule_in", "review", "rule_out"), strict=False):
        column.metric(drawer, summary.drawers[drawer])
    if summary.withheld:
        st.error("Uncertified site: these images differ from those that the thresholds were certified on.")
    elif summary.unjudged:
        st.warning(f"Could not be judged, so in review: {summary.unjudged}")
    buttons = st.container(horizontal=True)
    for file, kind in (("worklist.csv", "text/csv"), ("worklist.html", "text/html")):
        buttons.download_button(
            f"Download {file}", (folder / file).read_bytes(), file, kind, on_click="ignore"
        )
    limits = limits_of(model)
    rows = [
        {
            "file": record["file"],
            "drawer": record["decision"],
            "score": shown_score(record["score"], limits),
            "reason": explanation_of(record),
        }
        for record in records
    ]
    if rows:
        shown.table(rows)
        _look(records, rows, model, figures["normal"])
    with st.expander("What to know, and the scores of all images"):
        for sentence in (*(one["message"] for one in figures["thresholds"].values()), *summary.notes):
            shown.text(sentence)
        shown.figure(ScoreDisplay(figures["scores"], figures["limits"]), "scores of the folder")


@st.fragment
def _look(
    records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], model: Any, normal: Any
) -> None:
    """Show one image of one's choice: drawer and score, lungs, grey levels, and where a network looks."""
    names = [f"{number}. {plain(row['file'])}" for number, row in enumerate(rows, start=1)]
    chosen = st.selectbox("Look at", range(len(names)), format_func=names.__getitem__)
    record, row = records[chosen], rows[chosen]
    score = "no score" if row["score"] is None else f"score {row['score']!r}"
    st.subheader(f"{row['drawer']}, {score}".replace("_", r"\_"))
    shown.text(row["file"])
    if row["reason"]:
        shown.text(row["reason"])
    seen = look_at(record["path"], record["mask"], load_segmenter())
    if seen is None:
        st.write("The file cannot be shown.")
        return
    pixels, lungs = seen
    outlines = np.zeros(pixels.shape, np.uint8) if lungs is None else lungs.view(np.uint8)
    left, right = st.columns(2)
    with left:
        shown.figure(LungsDisplay(pixels, outlines), "the radiograph with its lungs outlined", (3.6, 3.6))
    with right:
        if lungs is None:
            st.write("No lungs were found, so there is no histogram.")
        else:
            counts = masked_histogram(pixels, lungs, 1)[0]
            shown.figure(LevelsDisplay(counts, normal), "grey levels of the lungs against normal patients")
            if normal is None:
                st.caption("The model keeps nothing of its normal patients, so there is no band.")
    if isinstance(model, ReferenceModel) and record["score"] is not None:
        _grad_cam(record, model)


def _grad_cam(record: Mapping[str, Any], model: ReferenceModel) -> None:
    try:
        manifest = images_to_explain([record["path"]], split="all", where={}, per_label=1)
        found = explain_images(model, manifest.assign(mask=record["mask"]))
    except HistcxrError as error:
        st.info("Where the network looks (Grad-CAM) cannot be shown:")
        shown.text(error)
        return
    about = found.table.iloc[0]
    display = GradCamDisplay(found.pixels[0], found.maps[0], str(about["explained"]), float(about["score"]))
    shown.figure(display, "Grad-CAM: where the network looks", (4.4, 3.6))
