"""What every plot shares: the base class, axes, and colours that colour-blind readers tell apart (Okabe and Ito)."""

from __future__ import annotations

import importlib
from typing import Any, Final, TypeVar

from histcxr.exceptions import MissingDependencyError

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


def require_matplotlib() -> None:
    """Refuse to begin what ends in a picture where none can be drawn.

    Raises
    ------
    MissingDependencyError
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib is needed to draw plots and cannot be imported ({error}); "
            "install it with: pip install 'histcxr[report]'",
            name=error.name,
        ) from error


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
        self.draw(ax)
        return self

    def draw(self, ax: Any) -> None:
        """Draw into ``ax``."""
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
    """Cut a name that would not fit, and take dollar signs for what they are."""
    cut = text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 + 3 :]}"
    return cut.replace("$", r"\$")
