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

__all__ = ["claim_folder", "fingerprint"]

_SEARCH_FILE = "search.json"


def fingerprint(*arrays: NDArray[Any] | None) -> str:
    """Return one SHA-256 over the shapes, dtypes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.shape}{array.dtype}".encode())
        if array.dtype == object:
            digest.update(repr(array.tolist()).encode())
        else:  # bytes where they lie: images may fill the memory
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
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
