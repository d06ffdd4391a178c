"""What every page shares: foreign text as text, figures in the colours of the page, errors, progress.

Streamlit takes Markdown, HTML entities, LaTeX and :shortcodes: in nearly every text. File names, labels, cells and the
messages about them go through :func:`text` or :func:`table`, which take none of it; Markdown gets our own words alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st

from histcxr.app.serving import FOLDER
from histcxr.exceptions import HistcxrError
from histcxr.files.cells import shown as plain
from histcxr.reports.drawing import BLUE, Display
from histcxr.reports.page import svg

_DRAWING: Final = threading.Lock()  # matplotlib's style is that of the process


def text(content: object) -> None:
    """Show a text from elsewhere as it is."""
    st.text(plain(str(content)))


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show rows whose cells and headings may come from elsewhere."""
    seen = [
        {plain(name): plain(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        for row in rows
    ]
    whole = {"score": st.column_config.NumberColumn(format="plain")}  # rounded, it might cross a threshold
    st.dataframe(pd.DataFrame(seen), hide_index=True, width="stretch", column_config=whole)


def figure(display: Display, alt: str, size: tuple[float, float] = (4.4, 3.2)) -> None:
    """Show a plot; ``alt`` says in words what it shows."""
    dark = st.context.theme.type == "dark"
    with _DRAWING:
        drawing = str(svg(display, plain(alt), size))
    for name, light, other in (("currentColor", "#1c1d1f", "#e8eaed"), ("var(--plot)", BLUE, "#3d9fdd")):
        drawing = drawing.replace(name, other if dark else light)
    st.image(drawing, alt=plain(alt))


def figures(plots: Sequence[tuple[Display, str, tuple[float, float]]]) -> None:
    """Show plots side by side, what each shows above it: display, words, size in inches."""
    for first in range(0, len(plots), 2):
        for column, plot in zip(st.columns(2), plots[first : first + 2], strict=False):
            with column:
                text(plot[1])
                figure(*plot)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Show what histcxr refuses as a message; anything else ends in Streamlit's own, without details."""
    try:
        yield
    except HistcxrError as error:
        st.error("This cannot be done:")
        text(error)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while something is done, and yield what takes how much is done, and of how much."""
    bar = st.progress(0.0, what)

    def show(done: int, total: int) -> None:
        bar.progress(min(1.0, done / max(1, total)), f"{what}: {done} of {total}")

    yield show
    bar.empty()


def own_folder(kind: str) -> Path:
    """Make a folder for what one run writes, where the app's command said."""
    top = Path(os.environ[FOLDER])
    top.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=top))
