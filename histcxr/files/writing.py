"""Writing files: each appears whole or not at all, and errors of the disk are told in plain words."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histcxr.exceptions import InputError, OutputError

if TYPE_CHECKING:  # whoever only writes text or bytes loads neither NumPy nor OpenCV
    from numpy.typing import NDArray


# Which places a command may write to, and whether it may replace what is there; None outside commands.
_GUARD: ContextVar[Mapping[str, bool] | None] = ContextVar("guard", default=None)


@contextlib.contextmanager
def guarding(places: Mapping[str, bool]) -> Iterator[None]:
    """Let files and folders at ``places`` (real paths), and what lies in them, be replaced in the block where asked.

    Elsewhere, and outside of such a block, what is written takes the place of what was there, as Python's own
    functions do.
    """
    token = _GUARD.set(places)
    try:
        yield
    finally:
        _GUARD.reset(token)


def _may_replace(place: str) -> bool:
    """Whether what is at a real path may be replaced: as its own entry says, or that of the nearest folder above."""
    guard = _GUARD.get() or {}
    while guard and place not in guard:
        above = os.path.dirname(place)
        if above == place:
            return True
        place = above
    return guard.get(place, True)


def put(unfinished: str | os.PathLike[str], place: str | os.PathLike[str], *, replace: bool) -> None:
    """Move a finished file to its place; without ``replace`` nothing that is there by now is lost: FileExistsError."""
    if replace:
        os.replace(unfinished, place)
        return
    try:
        os.link(unfinished, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: hold the name by an empty file
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(unfinished, place)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


_TRACES = {
    "matplotlib": ("MPLCONFIGDIR", ("$XDG_CACHE_HOME/matplotlib", "~/.cache/matplotlib", "~/.matplotlib")),
    "keras": ("KERAS_HOME", ("~/.keras",)),  # it imports Matplotlib, too
}


def leave_no_trace(*libraries: str) -> None:
    """Let libraries keep lists of fonts and settings in a folder that goes with this process, not in the home folder.

    Call it before they are imported. Where the user named a place, or it exists already, nothing changes.
    """
    for variable, usual in (_TRACES[library] for library in libraries):
        places = (os.path.expanduser(os.path.expandvars(place)) for place in usual)
        if variable not in os.environ and not any(map(os.path.isdir, places)):
            os.environ[variable] = tempfile.mkdtemp(prefix="histcxr-")
            atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[Path]:
    """Write a file or, with ``folder``, a folder beside its place, and move it there when it is whole.

    ::

        with replacing("model.json") as unfinished:
            unfinished.write_text(text)

    It yields a hidden name in the same folder, with the suffix of ``path``: an empty file, or an empty folder. When
    the block ends, what it wrote is brought onto the disk and takes the place of what was there (a folder as a whole).
    When the block raises, that stays, and what the block wrote is removed.

    The folder above ``path`` must exist. A link is followed; a pipe or device is written directly. OutputError: the
    system refuses to write, or :func:`guarding` does; so does every ``OSError`` that the block raises.
    """
    place = Path(path)
    try:
        before = _mode(place)
        if before is not None and stat.S_ISDIR(before) != folder:
            raise OutputError(f"{place}: is a {'file' if folder else 'folder'}; choose another name")
        if before is not None and not folder and not stat.S_ISREG(before):
            yield place
            return
        place = Path(os.path.realpath(place))
        replace = _may_replace(str(place))
        unfinished = place.with_name(f".histcxr-{uuid.uuid4().hex}{place.suffix}")
        try:
            if folder:
                unfinished.mkdir()
            else:
                unfinished.touch(exist_ok=False)
            yield unfinished
            for file in unfinished.rglob("*") if folder else [unfinished]:
                if file.is_file():
                    _sync(file)
            if before is not None:
                unfinished.chmod(stat.S_IMODE(before))
            if folder:
                _move_folder(unfinished, place, replace)
            else:
                put(unfinished, place, replace=replace)
        finally:
            if folder:
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # some file systems cannot
            _sync(place.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _mode(place: Path) -> int | None:
    """The kind and permissions of what is there, None where nothing is."""
    try:
        return place.stat().st_mode
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_folder(fresh: Path, place: Path, replace: bool) -> None:
    """A folder cannot take the place of a full one at once: that one steps aside, and back if need be."""
    old = fresh.with_name(f"{fresh.name}-old")
    with contextlib.suppress(FileNotFoundError):
        if replace:
            place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Say in plain words why a result cannot be written."""
    name = os.fspath(path)
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return OutputError(f"{name}: cannot be written, for something is there; choose another name")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "make room, then give the same command again (a triage goes on where it stopped)"
        return OutputError(f"{name}: the disk is full ({error.strerror}); {advice}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{name}: may not be written ({error.strerror}); choose another place")
    return OutputError(f"{name}: cannot be written ({error.strerror or error})")


def encode_image(
    pixels: NDArray[Any], extension: str = ".png", *, bilevel: bool = False, quality: int | None = None
) -> bytes:
    """Encode an image in the format that the extension names.

    ``pixels``: uint8 or uint16 (height, width), grey levels, or (height, width, channels), colours in OpenCV's order
    (blue first). ``bilevel``: one bit a pixel (PNG only), everything above 0 being white; ``quality``: of JPEG, 0 to
    100. InputError: unknown format.
    """
    import cv2

    options = [cv2.IMWRITE_PNG_BILEVEL, 1] if bilevel else []
    options += [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    try:
        done, encoded = cv2.imencode(extension, pixels, options)
    except cv2.error as error:
        raise InputError(f"extension must name an image format, such as .png; it is {extension!r}") from error
    if not done:
        raise InputError(f"pixels {pixels.shape} of {pixels.dtype} cannot be stored as {extension!r}")
    return encoded.tobytes()


def write_image(path: str | os.PathLike[str], pixels: NDArray[Any]) -> None:
    """Write an image in the format that its name says, and the folders that it needs.

    Raises InputError when the format is unknown, OutputError when it cannot be written.
    """
    write_bytes(path, encode_image(pixels, Path(path).suffix))


def write_mask(path: str | os.PathLike[str], mask: NDArray[Any]) -> None:
    """Write a mask, bool or uint8 (height, width), above 0 in the lungs, as a PNG of one bit a pixel.

    Raises OutputError when it cannot be written.
    """
    write_bytes(path, encode_mask(mask))


def encode_mask(mask: NDArray[Any]) -> bytes:
    """Return the PNG that :func:`write_mask` writes."""
    return encode_image((mask != 0).astype("uint8") * 255, bilevel=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write an encoded image directly: a reader recognises half of one, and thousands are not worth an fsync each."""
    place = Path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        how = os.O_TRUNC if _may_replace(os.path.realpath(place)) else os.O_EXCL
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, 0o666), "wb") as file:
            file.write(data)
    except OSError as error:
        raise write_error(place, error) from error
