"""Places that are URLs: objects of a store such as S3, listed, read and written through fsspec (the extra ``remote``).

A store fails now and then, and stalls. Each request is tried again, up to :data:`TRIES` times with longer and longer
waits, and given up after :data:`SECONDS` without an end; what remains is an ``unreachable`` row that the next run tries
again. A body that is shorter than the object is a failed try. Nothing here connects to anything but what a URL names.

What gives access never becomes part of a name: the query of a presigned URL is kept beside it, and a URL with a
password is refused.
"""

from __future__ import annotations

import functools
import hashlib
import os
import posixpath
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from histcxr.exceptions import InputError, MissingDependencyError, RadiographError, Reason, how_to_install
from histcxr.files.budget import BUDGET

TRIES: Final = int(os.environ.get("HISTCXR_REMOTE_TRIES", "5"))
"""How often a request is tried."""

SECONDS: Final = float(os.environ.get("HISTCXR_REMOTE_SECONDS", "30"))
"""How long one try may take; reading and writing get one more for each :data:`_SLOWEST` bytes."""

_SLOWEST: Final = 1 << 18
_WAITS: Final = (0.2, 5.0)  # seconds before the second try, and at most
_CONNECTIONS: Final = 32

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://").match
_S3: Final = ("s3", "s3a")
_T = TypeVar("_T")


class Known(NamedTuple):
    """By what an object is told apart from what it was: bytes, time of change in nanoseconds, its tag as a number."""

    size: int
    modified: int
    tag: int


class Entry(NamedTuple):
    """One name in a folder of a store."""

    name: str
    is_folder: bool
    known: Known | None


class Url(str):
    """The name of an object or folder, without what gives access: that is ``query``.

    ``known`` is what a listing said of it; ``coming`` gives its content where that is read ahead.
    """

    __slots__ = ("coming", "known", "query")
    query: str
    known: Known | None
    coming: Callable[[], bytes] | None

    def __new__(cls, name: str, query: str = "", known: Known | None = None) -> Url:  # noqa: D102 - the class says it
        made = super().__new__(cls, name)
        made.query, made.known, made.coming = query, known, None
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Url, (str(self), self.query, self.known)

    @property
    def scheme(self) -> str:
        """What stands before ``://``."""
        return self.partition("://")[0]

    @property
    def target(self) -> str:
        """What the store is asked for."""
        return f"{self}?{self.query}" if self.query else str(self)

    def child(self, name: str, known: Known | None = None) -> Url:
        """Return the URL of a name in this folder."""
        return Url(f"{self}/{name}", self.query, known)


def is_url(path: object) -> bool:
    """Whether a path names something in a store; ``file://`` does not."""
    return isinstance(path, Url) or (
        isinstance(path, str) and bool(_URL(path)) and not path.startswith(("file://", "local://"))
    )


def place_of(path: object) -> str:
    """Return the absolute path of a path, or the :class:`Url` of a URL. InputError: a URL that is not taken.

    Paths of universal-pathlib are taken by their names.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)
    if isinstance(name, Url):
        return name
    if not is_url(name):
        return os.path.abspath(re.sub("^(file|local)://", "", name))
    scheme, _, rest = name.partition("://")
    host = rest.partition("/")[0]
    shown = f"{scheme}://..."
    if ":" in scheme:
        raise InputError(f"a URL must name one place; this one is a chain of several ({shown})")
    port = re.fullmatch(r"([^:@]*@)?[^:@]*:\d+|\[[0-9A-Fa-f:]*\](:\d+)?", host) and scheme not in (
        *_S3,
        "gs",
        "gcs",
    )
    arn = host.startswith("arn:") and "@" not in rest
    if (":" in host and not port and not arn) or ("@" in host and scheme in ("http", "https")):
        raise InputError(
            f"a URL must hold no password or key; this one does ({shown}). Let the store's own settings give access, "
            "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    named, _, query = rest.partition("?")
    if not (scheme in ("http", "https") or "=" in query):
        named, query = rest, ""
    return Url(f"{scheme.lower()}://{named.rstrip('/')}", query)


def join(folder: str, value: str) -> str:
    """Return the place of a name that is relative to a folder, or a place of its own.

    InputError: a list in a store names a file of this machine.
    """
    if is_url(value) or not isinstance(folder, Url):
        return place_of(value if is_url(value) else os.path.join(folder, value))
    if os.path.isabs(value) or value.startswith(("file://", "local://")):
        raise InputError(
            f"a list at a URL may name objects alone; the one in {folder!r} names {value!r} of this machine"
        )
    scheme, _, rest = folder.partition("://")
    whole = posixpath.normpath(f"/{rest}/{value}").lstrip("/")
    if whole.partition("/")[0] != rest.partition("/")[0]:
        raise InputError(f"a list at a URL may not lead above it; the one in {folder!r} names {value!r}")
    return Url(f"{scheme}://{whole}", folder.query)


def split(place: str) -> tuple[str, str]:
    """Return the folder and the name of a place."""
    if not isinstance(place, Url):
        return os.path.split(place)
    folder, _, name = place.rpartition("/")
    return Url(folder), name


def what_is(place: str) -> str:
    """Say what is at a place: ``"folder"``, ``"file"``, or ``""`` for nothing. InputError: its store does not tell."""
    if not isinstance(place, Url):
        return "folder" if os.path.isdir(place) else "file" if os.path.lexists(place) else ""
    try:
        return "folder" if _info(place)["type"] == "directory" else "file"
    except RadiographError as error:
        if error.reason is Reason.NOT_FOUND:
            return ""
        raise InputError(f"{place!r} cannot be read: {error.explanation}") from error


def stat(url: Url) -> Known:
    """Say how many bytes an object has and when it changed; asked once. RadiographError as :func:`fetch`."""
    if url.known is None:
        found = _info(url)
        if found["type"] == "directory":
            raise RadiographError(Reason.NOT_A_FILE, url, "a folder")
        url.known = _known(found)
    return url.known


def fetch(url: Url, most: int | None = None) -> bytes:
    """Read an object, at least one byte: whole, or its first ``most`` bytes.

    RadiographError: ``not_found``, ``permission``, ``file_empty``, ``too_large`` (nothing was fetched), or
    ``unreachable`` after the last try.
    """
    coming, url.coming = url.coming, None
    return fetch_now(url, most) if coming is None else coming()


def fetch_now(url: Url, most: int | None = None) -> bytes:
    """Do what :func:`fetch` does, without what is read ahead."""
    size = stat(url).size
    if size < 0:
        raise RadiographError(Reason.UNREACHABLE, url, "the store does not say how many bytes it has")
    if size > BUDGET.file_bytes:
        raise RadiographError(Reason.TOO_LARGE, url, f"{size:,} bytes; the limit is {BUDGET.file_bytes:,}")
    if not size:
        raise RadiographError(Reason.FILE_EMPTY, url)
    part = most is not None and most < size
    wanted = {"start": 0, "end": most} if part else {}

    def once() -> bytes:
        data: bytes = _call(url, "cat_file", url.target, seconds=SECONDS + size / _SLOWEST, **wanted)
        due = most if part and most is not None else size
        if len(data) != due and len(data) != _known(_call(url, "info", url.target)).size:
            _check_size(len(data), due)
        return data

    return _persist(url, once)


def listing(url: Url) -> Iterator[Entry]:
    """Yield what a folder of a store holds, page by page, in the store's order. RadiographError as :func:`fetch`."""
    if url.scheme not in _S3:
        for one in _persist(url, lambda: _call(url, "ls", url.target, detail=True)):
            name = one["name"].rstrip("/").rpartition("/")[2]
            if name != url.rpartition("/")[2] or one["type"] == "file":
                folder = one["type"] == "directory"
                yield Entry(name, folder, None if folder else _known(one))
        return
    # fsspec lists a folder whole, and all of it anew where one page fails
    bucket, _, key = url.partition("://")[2].partition("/")
    prefix = f"{key}/" if key else ""
    more: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    while True:
        page = _persist(url, lambda: _call(url, "call_s3", "list_objects_v2", **more))
        for one in page.get("CommonPrefixes", ()):
            yield Entry(one["Prefix"][len(prefix) : -1], True, None)
        for one in page.get("Contents", ()):
            if one["Key"] != prefix:  # which only says that there is a folder
                yield Entry(one["Key"][len(prefix) :], False, _known({**one, "size": one["Size"]}))
        if not page.get("IsTruncated"):
            return
        more["ContinuationToken"] = page["NextContinuationToken"]


def upload(path: str | os.PathLike[str], url: Url) -> None:
    """Write a file of this machine to an object, and look that all of it came. RadiographError as :func:`fetch`."""
    size = os.path.getsize(path)

    def once() -> None:
        _call(url, "put_file", os.fspath(path), url.target, seconds=SECONDS + size / _SLOWEST)
        _check_size(_known(_call(url, "info", url.target)).size, size)

    _persist(url, once)


def download(url: Url, path: str | os.PathLike[str]) -> None:
    """Copy an object of any size to a file of this machine. RadiographError as :func:`fetch`; there is no file then."""
    size = stat(url).size
    part = f"{os.fspath(path)}.part"

    def once() -> None:
        _call(url, "get_file", url.target, part, seconds=SECONDS + size / _SLOWEST)
        _check_size(os.path.getsize(part), size)

    _persist(url, once)
    os.replace(part, path)


def _check_size(came: int, due: int) -> None:
    if came != due:
        raise OSError(f"{came:,} of {due:,} bytes came")


def _info(url: Url) -> dict[str, Any]:
    found: dict[str, Any] = _persist(url, lambda: _call(url, "info", url.target))
    return found


def _known(info: dict[str, Any]) -> Known:
    """Take size, time and tag out of what a store says, which is named differently by each."""
    size = info.get("size")
    times = (info.get(name) for name in ("LastModified", "mtime", "updated", "last_modified", "created"))
    when = next((one for one in times if one), 0)
    tags = [str(info.get(name, "")) for name in ("ETag", "etag", "md5Hash", "content_md5")]
    if isinstance(when, datetime):
        when = when.timestamp()
    if not isinstance(when, int | float):
        tags, when = [*tags, str(when)], 0
    tag = int.from_bytes(hashlib.blake2b("".join(tags).encode(), digest_size=6).digest())
    return Known(-1 if size is None else int(size), int(when) * 10**9, tag)


def _call(url: Url, method: str, *arguments: Any, seconds: float | None = None, **named: Any) -> Any:
    """Ask a store once, at most for some seconds where its driver can be interrupted."""
    system = _system(url.scheme)
    if not system.async_impl:
        return getattr(system, method)(*arguments, **named)
    from fsspec.asyn import sync

    work = getattr(system, f"_{method}")
    return sync(system.loop, work, *arguments, timeout=seconds or SECONDS, **named)


@functools.cache
def _system(scheme: str) -> Any:
    """Return what speaks to stores of a kind; it does not try again by itself, for that is done, and counted, here."""
    try:
        from fsspec import config, get_filesystem_class

        driver = get_filesystem_class(scheme)
    except ImportError as missing:
        advice = how_to_install("remote")
        raise MissingDependencyError(
            f"{scheme}:// needs a package that is missing ({missing}): {advice}"
        ) from missing
    except ValueError as error:
        raise InputError(
            f"a URL must be of a kind that fsspec knows, such as s3://; {scheme}:// is none"
        ) from error
    more: dict[str, Any] = {}
    if scheme in _S3:
        own = config.conf.get(scheme, {}).get("config_kwargs", {})
        limits = {"connect_timeout": SECONDS, "read_timeout": SECONDS, "max_pool_connections": _CONNECTIONS}
        more = {
            "config_kwargs": {**limits, **own, "retries": {"total_max_attempts": 1}},
            "max_concurrency": 1,
        }
    system = driver(skip_instance_cache=True, use_listings_cache=False, **more)
    if scheme in _S3:
        system.retries = 1
    return system


def _persist(url: Url, work: Callable[[], _T]) -> _T:
    """Try, and try again what may go better the next time."""
    failed: Counter[str] = Counter()
    for attempt in range(max(1, TRIES)):
        if attempt:
            first, most = _WAITS
            time.sleep(min(most, first * 2 ** (attempt - 1)) * random.uniform(0.5, 1))
        try:
            return work()
        except (InputError, MissingDependencyError, RadiographError):
            raise
        except Exception as found:  # noqa: BLE001 - each driver has errors of its own
            error = found
            if (
                isinstance(error, FileNotFoundError)
                and isinstance(error.__cause__, Exception)
                and _is_http(url)
            ):
                error = error.__cause__  # which fsspec says of everything that a web server may answer
            status = getattr(error, "status", None)
            for reason, kinds, named, answers in _FINAL:
                if isinstance(error, kinds) or type(error).__name__ in named or status in answers:
                    raise RadiographError(reason, url, _said(error, named=False)) from None
            failed[_said(error)] += 1
    told = "; ".join(f"{count} x {text}" if count > 1 else text for text, count in failed.items())
    raise RadiographError(Reason.UNREACHABLE, url, f"{failed.total()} tries: {told}")


# What no further try would mend: Python's errors, names of the drivers' own, and a web server's answers.
_FINAL: Final = (
    (Reason.NOT_FOUND, FileNotFoundError, (), (404, 410)),
    (Reason.NOT_A_FILE, IsADirectoryError, (), ()),
    (
        Reason.PERMISSION,
        PermissionError,
        ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"),
        (401, 403),
    ),
)


def _is_http(url: Url) -> bool:
    return url.scheme in ("http", "https")


def _said(error: Exception, *, named: bool = True) -> str:
    """Return an error's own words, without the query of any URL in them."""
    text = re.sub(r"\?[^\s'\"<>]*", "?...", " ".join(str(error).split()))
    if "Timeout" in type(error).__name__ and not text:
        return f"no end within {SECONDS:g} seconds"
    text = f"{type(error).__name__}: {text}" if named else text
    return text.strip(": ")[:200]
