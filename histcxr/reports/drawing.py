"""What every plot shares: the base class, axes, and colours that colour-blind readers tell apart (Okabe and Ito)."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from histcxr.exceptions import InputError, MissingDependencyError, how_to_install
from histcxr.files.cells import shown
from histcxr.files.writing import leave_no_trace, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#7f7f7f",
)
_CYCLE: Final = (RED, GREEN, PURPLE, ORANGE, SKY)
_LINES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_Display = TypeVar("_Display", bound="Display")


def require(module: str, what: str) -> None:
    """Refuse to begin what ends in ``what`` where the ``module`` for it is missing: MissingDependencyError."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is needed {what} and cannot be imported ({error}); "
            f"install it with: {how_to_install('report')}",
            name=error.name,
        ) from error


def require_matplotlib() -> None:
    """Refuse to begin what ends in a picture where none can be drawn: MissingDependencyError."""
    if "matplotlib" not in sys.modules:
        leave_no_trace("matplotlib")
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # that it makes the list
    require("matplotlib", "to draw plots")


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse a picture before the work begins. InputError: its name; MissingDependencyError: no matplotlib."""
    name = Path(path).name
    if Path(name).suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"the picture must end in .png, .pdf or .svg, got {name!r}")
    require_matplotlib()


def new_figure(height: float, width: float = 9) -> Figure:
    """Return an empty figure of so many inches."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 130) -> Path:
    """Write a figure, on white, in the format that the name says. OutputError: it cannot be written."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=Path(path).suffix[1:], dpi=dpi, facecolor="white")
    return Path(path)


def class_style(number: int) -> dict[str, Any]:
    """Return colour and line of a class: number 0, the normal one, is blue and drawn through."""
    if number == 0:
        return {"color": BLUE, "ls": "-"}
    return {"color": _CYCLE[(number - 1) % len(_CYCLE)], "ls": _LINES[number % len(_LINES)]}


class Display:
    """What all displays share: :meth:`plot` draws into ``ax`` or a new figure, and keeps ``ax_`` and ``figure_``."""

    ax_: Any
    figure_: Any

    def plot(self: _Display, ax: Any = None) -> _Display:
        """Draw, into a new figure by default; return the display. MissingDependencyError: no matplotlib."""
        require_matplotlib()
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots(layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        self._draw(ax)
        return self

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError


def label_axes(ax: Any, x: str, y: str, title: str = "") -> None:
    """Name both axes, with their units, and draw a faint grid."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    if title:
        ax.set_title(title, loc="left", fontsize="medium")


def legend_above(ax: Any, columns: int = 2) -> None:
    """Put the legend over the axes, where it covers nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
        ax.legend(handles, labels, ncols=columns, frameon=False, fontsize="small", **place)


def unit_square(ax: Any) -> None:
    """Let both axes go from 0 to 1."""
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)


def short(text: str, most: int = 34) -> str:
    """Cut a name that would not fit, and take dollar signs and control characters for what they are."""
    text = shown(text)
    cut = text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 + 3 :]}"
    return cut.replace("$", r"\$")
