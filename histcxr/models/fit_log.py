"""The fits of a search, written down one by one, so that one that was broken off does none of them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from histcxr.exceptions import OutputError

__all__ = ["FitLog"]


class FitLog:
    """The fits of a search, each written down as soon as it is done.

    Parameters
    ----------
    folder : Path or None
        Where ``fits.jsonl`` lies or will lie. None: nothing is kept, nothing is found.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "fits.jsonl"
        self._known: dict[str, list[Any]] = {}
        self._cut_short = False
        if self._path is not None and self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            self._cut_short = text != "" and not text.endswith("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # a line cut short when the search was broken off: that fit is done again
                self._known[entry["fit"]] = entry["result"]

    def get(self, fit: str) -> tuple[Any, ...] | None:
        """Return what a fit gave, or None where it is not known."""
        found = self._known.get(fit)
        return None if found is None else tuple(found)

    def add(self, fit: str, result: tuple[Any, ...]) -> None:
        """Write a fit down, if it is not known yet.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        if self._path is None or fit in self._known:
            return
        self._known[fit] = list(result)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                start = "\n" if self._cut_short else ""
                file.write(start + json.dumps({"fit": fit, "result": list(result)}) + "\n")
                self._cut_short = False
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror or error})") from error
