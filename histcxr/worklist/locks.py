"""Places for results: refused where something else would be destroyed, and held by one run at a time.

The lock is the operating system's (``flock``): it ends with the process, so a killed run leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
import stat

from histcxr.data.discovery import MANIFEST_NAME
from histcxr.exceptions import InputError, OutputError
from histcxr.files.writing import write_error

_TRAIL = b'{"record":"run",'  # how every audit trail begins


def open_locked(path: str) -> int:
    """Open a file for reading and appending, make it if it is missing, and keep every other run out.

    Closing the descriptor gives the lock back. OutputError: it cannot be written, is no plain file, or another run
    holds it.
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


def check_places(inputs: str, target: str, trail: str, overwrite: bool) -> None:
    """Refuse places where writing would destroy something else."""
    for name, path in (("output", target), ("audit", trail)):
        if not os.path.isdir(os.path.dirname(path)):
            raise InputError(f"{name} must lie in a folder that exists, got {path!r}")
        if os.path.isdir(path):
            raise InputError(f"{name} must be a file, but {path!r} is a folder")
        if os.path.exists(path) and os.path.exists(inputs) and os.path.samefile(path, inputs):
            raise InputError(f"{name} must not be the input itself, got {path!r}")
        if os.path.basename(path) == MANIFEST_NAME:
            raise InputError(
                f"{name} must have another name than {MANIFEST_NAME}, which lists a folder's inputs"
            )
    if os.path.realpath(target) == os.path.realpath(trail):
        raise InputError(f"audit must be another file than output, got {trail!r}")
    known = os.path.exists(trail) and os.path.getsize(trail) > 0
    if known and overwrite and os.path.isfile(trail):
        with open(trail, "rb") as file:
            if not file.read(len(_TRAIL)).startswith(_TRAIL):
                raise InputError(f"audit must be free or an audit trail, but {trail!r} is another file")
    if os.path.lexists(target) and not known and not overwrite:
        raise InputError(
            f"output must be free, but {target!r} exists without an audit trail to go on from; choose another "
            "name (-o), or overwrite it (--overwrite)"
        )
