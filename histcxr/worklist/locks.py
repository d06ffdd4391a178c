"""Opening a file that one run at a time may hold.

The lock is the operating system's (``flock``): it ends with the process, so a killed run leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
import stat

from histcxr.exceptions import OutputError
from histcxr.files.writing import write_error


def open_locked(path: str) -> int:
    """Open a file for reading and appending, make it if it is missing, and keep every other run out.

    Parameters
    ----------
    path : str

    Returns
    -------
    int
        A file descriptor; closing it gives the lock back.

    Raises
    ------
    OutputError
        The file cannot be written, is no plain file, or another run holds it.
    """
    while True:
        try:
            descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o666
            )
        except OSError as error:
            raise write_error(path, error) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OutputError(f"{path}: is not a plain file; choose another name")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held the lock may have renamed or removed the file meanwhile: then look again.
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(
                f"{path}: another run is writing it; wait for that run to end, or stop it"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise OutputError(
                f"{path}: cannot be locked against other runs ({error.strerror}); write to a local disk"
            ) from error
        except OutputError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_still(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_all(descriptor: int, data: bytes, path: str) -> None:
    """Append all bytes, or raise an OutputError."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise write_error(path, error) from error
