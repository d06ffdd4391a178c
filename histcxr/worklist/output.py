"""The worklist's file: written beside its place, moved there when it is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from histcxr.worklist.locks import open_locked, write_error
from histcxr.worklist.rows import Row, RowWriter, write_rows

PARTIAL_SUFFIX = ".partial"


class WorklistFile:
    """A place for a worklist, locked against other runs while it is open.

    Until :meth:`write` has ended there is at most a ``.partial`` file beside it, and whatever worklist was
    there before.

    Parameters
    ----------
    path : str
        Where the worklist will be.
    remove : bool
        Remove the worklist that is there now.

    Raises
    ------
    OutputError
        The place cannot be written, or another run holds it.
    """

    def __init__(self, path: str, *, remove: bool = False) -> None:
        self.path = path
        self._partial = path + PARTIAL_SUFFIX
        self._descriptor = open_locked(self._partial)
        self._done = False
        if remove:
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            except OSError as error:
                self.close()
                raise write_error(path, error) from error

    def write(self, make_writer: Callable[[Any], RowWriter], rows: Iterable[Row]) -> None:
        """Write all rows, bring them onto the disk and move the file into its place.

        Raises
        ------
        OutputError
            The disk is full, or the place is gone.
        """
        try:
            os.ftruncate(self._descriptor, 0)
            with open(self._descriptor, "wb", closefd=False) as file:
                write_rows(file, make_writer, rows)
            os.fsync(self._descriptor)
            os.replace(self._partial, self.path)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._done = True
        _sync_folder(os.path.dirname(self.path))

    def close(self) -> None:
        """Give the place back; a worklist that was not finished is removed."""
        if not self._done:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
        os.close(self._descriptor)

    def __enter__(self) -> WorklistFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _sync_folder(folder: str) -> None:
    """Bring the new name onto the disk too, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
