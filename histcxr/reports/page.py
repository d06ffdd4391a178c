"""HTML pages in one file: templates, plots and pictures inside, nothing fetched, nothing run but a page's own script.

Jinja2 escapes whatever is put into a template, so that a file name or a cell of a table shows as text. Plots are SVG
in the colours of the page, light or dark. A policy in the page's head forbids it every connection.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr import __version__
from histcxr.data.radiograph import working_image
from histcxr.exceptions import InputError
from histcxr.files.writing import encode_image, replacing
from histcxr.reports.drawing import BLUE, Display, new_figure, require, require_matplotlib, save_figure
from histcxr.reports.tables import interval_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES: Final = Path(__file__).parent / "templates"
# Matplotlib's ink, which the page replaces by its own.
_INK: Final = "#010203"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9.0,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    **{
        f"{name}color": _INK
        for name in ("text.", "axes.label", "xtick.", "ytick.", "axes.edge", "xtick.label", "ytick.label")
    },
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def require_page() -> None:
    """Refuse to begin what ends in a page where none can be made. MissingDependencyError: jinja2 or matplotlib."""
    require_matplotlib()
    require("jinja2", "for HTML pages")


def check_page(path: str | Path) -> None:
    """Refuse a page's name before the work begins. InputError: not an .html file in a folder that is there."""
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm") or place.is_dir():
        raise InputError(f"the page must be a file that ends in .html, got {str(path)!r}")
    if not place.absolute().parent.is_dir():
        raise InputError(f"the page's folder must be there, got {str(place.parent)!r}")


def mark_of(output: str | Path) -> str:
    """Return what a page carries in its head, so that it is known again as that of an output."""
    return f"histcxr {hashlib.sha256(os.path.realpath(output).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def write_page(
    path: str | Path, template: str, content: Mapping[str, Any], output: str | Path | None = None
) -> None:
    """Fill a template of this folder and write it, marked as of an ``output``. OutputError: it cannot be written."""
    require_page()
    import jinja2

    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure_text, "percent": percent_text}
    text = environment.get_template(template).render(
        content,
        version=__version__,
        mark="histcxr" if output is None else mark_of(output),
        script=script,
        script_hash=digest,
        style=(_TEMPLATES / "page.css").read_text(),
    )
    # A file name that is not UTF-8 shows its foreign bytes as escapes.
    with replacing(path) as unfinished:
        unfinished.write_bytes(text.encode("utf-8", "backslashreplace"))


def figure_text(value: Any) -> str:
    """Write a number with three decimals, an estimate with its interval, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return interval_text(value["value"], value["low"], value["high"])
    return (
        f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def percent_text(share: float | None) -> str:
    """Write a share as a percentage with one decimal, nothing as a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"


def drawn(display: Display, size: tuple[float, float] = (4.4, 3.2)) -> Figure:
    """Draw one display into a figure of ``size`` inches, in the page's style."""
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = new_figure(size[1], size[0])
        display.plot(figure.subplots())
    return figure


def svg(display: Display, alt: str, size: tuple[float, float] = (4.4, 3.2)) -> Any:
    """Return a display as SVG for a page, safe to put in as it is; ``alt`` says in words what it shows."""
    import matplotlib
    from markupsafe import Markup, escape

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": alt}):
        stream = io.StringIO()
        drawn(display, size).savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(BLUE.lower(), "var(--plot)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Identifiers are of the whole page, where several plots stand.
    salt = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}-", text)
    head = f'<svg role="img" aria-label="{escape(alt)}" class="plot"'
    return Markup(text.replace("<svg", head, 1))  # noqa: S704 - matplotlib escapes the texts of its plots


def png(display: Display, path: str | Path, size: tuple[float, float] = (4.4, 3.2)) -> None:
    """Write a display as a PNG file, on white."""
    save_figure(drawn(display, size), path, 150)


def embedded(pixels: NDArray[np.uint8], side: int = 160) -> str:
    """Return a picture, uint8 (height, width), as small JPEG for ``src``."""
    small = working_image(pixels, side)
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(small, ".jpg", quality=75)).decode()


def polyline(values: NDArray[np.floating], top: float, width: int = 128, height: int = 48) -> str:
    """Return points of an SVG line for a small histogram: ``values`` from left to right, ``top`` at full height."""
    x = np.linspace(0, width, len(values))
    y = height - np.clip(np.asarray(values) / max(top, 1e-12), 0, 1) * height
    return " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
