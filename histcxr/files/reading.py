"""Reading a file's bytes safely: every way in which that fails becomes a reason, and nothing ever blocks.

A folder from a hospital holds links that lead nowhere, pipes and files without permission. Opening a pipe
would wait for ever, so files are opened without blocking and looked at before they are read.
"""

from __future__ import annotations

import errno
import os
import stat

from histcxr.exceptions import RadiographError, Reason

MAX_FILE_BYTES = 2**29
"""Larger files are refused unread: four times the largest image accepted (2**26 pixels) at 16 bits."""

_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):  # each where the system knows it
    _OPEN_FLAGS |= getattr(os, _name, 0)

_REASON_OF_ERRNO = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.NOT_FOUND,
    errno.ENAMETOOLONG: Reason.NOT_FOUND,
    errno.ELOOP: Reason.LINK_LOOP,
    errno.EACCES: Reason.PERMISSION,
    errno.EPERM: Reason.PERMISSION,
    errno.EISDIR: Reason.NOT_A_FILE,
    errno.ENXIO: Reason.NOT_A_FILE,  # a socket, or a device that is not there
    errno.ENODEV: Reason.NOT_A_FILE,
}


def reason_of(error: OSError) -> Reason:
    """The reason that an error stands for; of the disk or the network (``EIO``, ``ESTALE``): a damaged file."""
    return _REASON_OF_ERRNO.get(error.errno or 0, Reason.DAMAGED)


def detail_of(error: OSError) -> str:
    """What the operating system said, where the reason alone does not say it."""
    if error.errno in (errno.ENOENT, errno.EACCES, errno.ELOOP):
        return ""
    return error.strerror or str(error)


def kind_of(mode: int) -> str:
    """Name the kind of thing that a ``st_mode`` describes, for messages."""
    names = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFREG: "file",
    }
    return names.get(stat.S_IFMT(mode), "unknown kind of file")


def read_file(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a regular file whole, or its beginning.

    Parameters
    ----------
    path : path-like
        The file; symbolic links are followed.
    most : int, optional
        Read no more than so many bytes of a larger file (one read: the system may give fewer).

    Returns
    -------
    bytes
        The content, at least one byte.

    Raises
    ------
    RadiographError
        With the reason ``not_found`` (also a link that leads nowhere), ``link_loop``, ``permission``,
        ``not_a_file`` (folder, pipe, socket, device), ``file_empty``, ``too_large`` or ``damaged`` (the disk
        failed).
    """
    name = os.fspath(path)
    try:
        descriptor = os.open(name, _OPEN_FLAGS)
    except OSError as error:
        raise RadiographError(reason_of(error), name, detail_of(error)) from error
    except ValueError as error:  # a NUL character: no file can have such a name
        raise RadiographError(Reason.NOT_FOUND, name, str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RadiographError(Reason.NOT_A_FILE, name, f"a {kind_of(status.st_mode)}")
        size = status.st_size
        if size > MAX_FILE_BYTES:
            raise RadiographError(Reason.TOO_LARGE, name, f"{size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
        if most is not None and size > most:
            return os.read(descriptor, most)
        data = os.read(descriptor, size + 1)  # one byte more, so that one read also sees the end
        if len(data) != size:
            data = _read_on(descriptor, data, name)
    except OSError as error:
        raise RadiographError(reason_of(error), name, detail_of(error)) from error
    finally:
        os.close(descriptor)
    if not data:
        raise RadiographError(Reason.FILE_EMPTY, name)
    return data


def _read_on(descriptor: int, data: bytes, name: str) -> bytes:
    """Finish a read that gave fewer or more bytes than announced (network disks, growing files)."""
    parts, total = [data], len(data)
    while part := os.read(descriptor, 2**20):
        parts.append(part)
        total += len(part)
        if total > MAX_FILE_BYTES:
            raise RadiographError(Reason.TOO_LARGE, name, f"more than {MAX_FILE_BYTES:,} bytes")
    return b"".join(parts)
