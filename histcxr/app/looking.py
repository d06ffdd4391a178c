"""Looking at data before anything is learnt from them: what is there, and is it disease or the scanner?"""

from __future__ import annotations

import json
from typing import Any, Final

import streamlit as st

from histcxr.app import shown
from histcxr.exceptions import InputError
from histcxr.reports.pages.exploration import displays, tables
from histcxr.site.audit import Audit, audit
from histcxr.study.cohort import Reading
from histcxr.study.explore import PAGE, Exploration, explore

_TABLES: Final = {
    "classes": "Images of each class by source",
    "splits": "Images of each class by split",
    "intensity": "Grey levels of the lungs, 0 to 255: mean ± spread of the images",
    "by_source": "The same by source",
    "shares": "How much of the image the lungs cover",
}


def explore_page() -> None:
    """Show what :func:`histcxr.explore` finds."""
    st.title("Explore")
    st.write("Look at data before anything is learnt from them.")
    with shown.told():
        if asked := _asked("Explore"):
            with shown.progress("looking") as show:
                st.session_state["explored"] = explore(**asked, n_jobs=2, progress=show)
            st.session_state["explored"].write(folder := shown.own_folder("explore"))
            st.session_state["explored page"] = (folder / PAGE).read_bytes()
        if "explored" in st.session_state:
            _show_exploration(st.session_state["explored"], st.session_state["explored page"])


def audit_page() -> None:
    """Show what :func:`histcxr.audit` finds."""
    st.title("Audit")
    st.write("Is it disease, or the scanner? What else than the lungs tells sick from normal.")
    with shown.told():
        if asked := _asked("Audit"):
            with shown.progress("reading, then asking") as show:
                reading = Reading(normal=asked["normal"], n_jobs=2, progress=show)
                st.session_state["audited"] = audit(asked["data"], reading)
        if "audited" in st.session_state:
            _show_audit(st.session_state["audited"])


def _asked(name: str) -> dict[str, Any]:
    """Ask for data; return them when the button was pressed, else nothing."""
    data = st.text_input("Radiographs: a folder or a list (CSV) on this computer", key=f"{name} data").strip()
    normal = st.text_input("The label that means normal", "Normal", key=f"{name} normal")
    if not st.button(name, type="primary"):
        return {}
    for key in ("explored", "audited"):
        if key.startswith(name.lower()):
            st.session_state.pop(key, None)
    if not data:
        raise InputError("the radiographs must be named: a folder or a list")
    return {"data": data, "normal": normal}


def _show_exploration(found: Exploration, page: bytes) -> None:
    figures = found.to_dict()
    for column, name in zip(st.columns(4), ("images", "usable", "patients"), strict=False):
        column.metric(name, figures[name])
    numbers = json.dumps(figures, indent=1, allow_nan=False)
    buttons = st.container(horizontal=True)
    for name, content in (("explore.html", page), ("figures.json", numbers)):
        buttons.download_button(f"Download {name}", content, name, on_click="ignore")
    for note in figures["notes"]:
        shown.text(note)
    shown.figures([(display, words, size) for _, words, display, size in displays(figures)])
    rows = tables(figures)
    for name, title in _TABLES.items():
        if rows[name]:
            st.subheader(title)
            shown.table(rows[name])
    st.subheader("Mean image of each class")
    _pictures([(label, [mean]) for label, mean in found.means.items()])
    st.subheader("Examples, and their lungs alone")
    _pictures([(f"{one.label}: {one.file}", [one.pixels, one.masked]) for one in found.examples])


def _pictures(pictures: list[tuple[str, list[Any]]]) -> None:
    for first in range(0, len(pictures), 3):
        for column, (name, images) in zip(st.columns(3), pictures[first : first + 3], strict=False):
            with column:
                shown.text(name)
                st.image(images, width=150)


def _show_audit(found: Audit) -> None:
    if found.exit_code:
        st.warning("Something needs attention.")
    for sentence in found.verdict:
        shown.text(sentence)
    if found.answers:
        st.subheader("All questions")
        shown.table(found.rows())
    if found.not_asked:
        st.subheader("Not asked")
        shown.text("\n".join(f"{one['question']}: {one['reason']}" for one in found.not_asked))
