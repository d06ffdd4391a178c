"""Results by URL: written whole on this machine first, and uploaded when the command has come to its end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from histcxr.data.pairing import is_image_name
from histcxr.exceptions import InputError, OutputError, RadiographError
from histcxr.files import remote
from histcxr.files.remote import Url, what_is

_AT_ONCE = 8


class Upload(NamedTuple):
    """A result of a command: where it goes, where it is made, and whether a stopped run goes on from what is there."""

    url: Url
    local: Path
    resumes: bool


def fetch_folder(url: Url, ctx: click.Context) -> str:
    """Copy a folder of a store, such as a saved model, to this machine for as long as a command runs."""
    place = Path(ctx.with_resource(tempfile.TemporaryDirectory(prefix="histcxr-"))) / url.rpartition("/")[2]
    try:
        if what_is(url) != "folder":
            raise InputError(f"there is no saved model at {url!r}")
        _fetch_all(url, place)
    except RadiographError as error:
        raise InputError(f"{url!r} cannot be read: {error.explanation}") from error
    return str(place)


def _fetch_all(url: Url, place: Path) -> None:
    place.mkdir()
    for one in remote.listing(url):
        if one.name in ("", ".", "..") or "\0" in one.name:
            raise InputError(f"{url!r} holds an object with a name that no file can have")
        if one.is_folder:
            _fetch_all(url.child(one.name), place / one.name)
        else:
            (place / one.name).write_bytes(remote.fetch(url.child(one.name, one.known)))


def why_not(
    url: Url,
    others: Sequence[Url],
    results: Sequence[Url],
    *,
    whole: bool,
    trail: str,
    beginning: bytes,
    overwrite: bool,
) -> str:
    """Say why a result must not go to a URL, "" where it may: as for files, but what is a folder is never replaced.

    ``others`` are the command's further URLs, ``results`` those of them that are written. A result is ``whole`` where
    it is a folder; a ``trail`` (its ending) lets a run go on; an earlier result has a ``beginning``.
    """
    for path in others:
        if path == url:
            return "is an input, or another output, of this command; choose another place"
        name = url.rpartition("/")[2]
        becomes = path not in results and url.startswith(f"{path}/") and (whole or is_image_name(name))
        if path.startswith(f"{url}/") or becomes:
            return f"lies in, or holds, {str(path)!r}, an input of this command; choose another place"
    there = what_is(url)
    goes_on = bool(trail) and not overwrite and what_is(Url(f"{url}{trail}", url.query)) == "file"
    if not there or goes_on:
        return ""
    if whole or there == "folder":
        return "holds objects; choose a new or empty place"
    if not overwrite:
        return "exists; choose another name, or overwrite it (--overwrite)"
    found = remote.fetch(url, len(beginning)) if beginning and remote.stat(url).size else b""
    return "" if beginning.startswith(found) else "is no earlier result of histcxr; choose another name"


def staged(url: Url, *, resumes: bool, trail: str = "") -> Upload:
    """Prepare a place on this machine for a result that goes to a URL: the same for the same URL.

    A run that was stopped goes on from it; where nothing is there, from the ``trail`` in the store. Only its owner may
    read it. OutputError: somebody else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"histcxr-{os.getuid()}"
    for place in (folder, folder / hashlib.sha256(url.encode()).hexdigest()[:16]):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OutputError(
                f"{place}: is not a folder of yours alone; remove it, or name another with TMPDIR"
            )
    if not resumes:
        shutil.rmtree(place)
        place.mkdir(mode=0o700)
    local = place / url.rpartition("/")[2]
    if trail and not Path(f"{local}{trail}").exists():
        for one in (url, Url(f"{url}{trail}", url.query)):
            try:
                if what_is(one) == "file":
                    remote.download(one, place / one.rpartition("/")[2])
            except RadiographError as error:
                raise OutputError(f"{one}: the earlier result cannot be read ({error.detail})") from error
    return Upload(url, local, resumes)


def upload(results: Sequence[Upload]) -> None:
    """Upload what a command has made, what lies beside a result before the result itself, and remove it here.

    OutputError: something could not be uploaded; all of it stays here.
    """
    for one in results:
        try:
            files = sorted(file for file in one.local.parent.rglob("*") if file.is_file())
            folder = remote.split(one.url)[0]
            pairs = [
                (file, Url(f"{folder}/{file.relative_to(one.local.parent)}", one.url.query)) for file in files
            ]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(_put, [pair for pair in pairs if pair[0] != one.local]))
            for pair in pairs:
                if pair[0] == one.local:
                    _put(pair)
        except RadiographError as error:
            again = ", or give the same command again, which goes on from them" if one.resumes else ""
            raise OutputError(
                f"{error.path}: could not be uploaded ({error.detail or error.reason.value}). Nothing is lost: the "
                f"results are whole in {one.local.parent}; copy them from there{again}"
            ) from error
    for one in results:
        shutil.rmtree(one.local.parent, ignore_errors=True)
        with contextlib.suppress(OSError):  # of another result, too
            one.local.parent.parent.rmdir()


def _put(pair: tuple[Path, Url]) -> None:
    remote.upload(*pair)


@contextlib.contextmanager
def uploading(results: Sequence[Upload]) -> Iterator[None]:
    """Upload results when the block ends as a command ends that has done its work."""
    try:
        yield
    except click.exceptions.Exit as end:
        if end.exit_code in (0, 3):
            upload(results)
        raise
    upload(results)
