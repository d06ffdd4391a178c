"""A folder that remembers a search, so that one that was broken off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError, OutputError

__all__ = ["FitLog", "claim_folder", "fingerprint"]

_SEARCH_FILE = "search.json"


def fingerprint(*arrays: NDArray[Any] | None) -> str:
    """Return one SHA-256 over the shapes, dtypes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(
            np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode()
        )
    return digest.hexdigest()


def claim_folder(folder: Path, search: Mapping[str, Any]) -> None:
    """Note in a folder whose search it holds; refuse one that holds another.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    search : mapping
        What must be equal for a search to be the same, ready for JSON.

    Raises
    ------
    InputError
        The folder holds another search, or other files.
    OutputError
        The folder cannot be made or written.
    """
    path = folder / _SEARCH_FILE
    try:
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            differs = [name for name in search if found.get(name) != search[name]]
            if differs:
                raise InputError(
                    f"directory must be new or hold the same search; {folder} holds one with other "
                    f"{', '.join(differs)}"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"directory must be new, empty or hold the same search; {folder} holds other files"
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(search, indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot keep the search here ({error.strerror or error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}); delete the folder, or name another") from error


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
