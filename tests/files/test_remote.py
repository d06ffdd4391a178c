"""Places that are URLs: names without secrets, requests that are tried again, bytes that are all there."""

import copy
import sys

import pytest

from histcxr.exceptions import InputError, MissingDependencyError, RadiographError, Reason
from histcxr.files import remote
from histcxr.files.reading import read_file
from histcxr.files.remote import Url, fetch, is_url, join, listing, place_of, split, stat, upload, what_is


def reason_of(work, *arguments):
    with pytest.raises(RadiographError) as caught:
        work(*arguments)
    return caught.value.reason, caught.value.detail


def test_paths_stay_paths_and_urls_become_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("a/../b") == str(tmp_path / "b")
    assert place_of("file:///data/x") == "/data/x"
    assert not is_url("C:/x")
    assert not is_url(tmp_path)
    assert place_of("s3://bucket/in/") == "s3://bucket/in"
    assert place_of("s3://bucket/a?b#c.png") == "s3://bucket/a?b#c.png"
    assert split(place_of("s3://bucket/in/a.png")) == ("s3://bucket/in", "a.png")
    assert place_of("sftp://me@host:22/x") == "sftp://me@host:22/x"
    assert place_of("abfs://container@account.dfs.core.windows.net/x").startswith("abfs://container@")


def test_a_query_gives_access_and_is_no_part_of_the_name():
    url = place_of("https://host/a.png?X-Amz-Signature=HUSH&x=1")
    assert url == "https://host/a.png"
    assert "HUSH" not in f"{url} {url!r} {url.child('b')}"
    assert url.target == "https://host/a.png?X-Amz-Signature=HUSH&x=1"
    again = copy.copy(url)  # as it goes to the workers of a cluster
    assert (again, again.target) == (url, url.target)
    assert place_of("s3://bucket/a.png?X-Amz-Credential=HUSH") == "s3://bucket/a.png"


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:HUSH@bucket/x",
        "s3://KEY:SEC/HUSH+@bucket/x",
        "s3://KEY:12/HUSH@bucket",
        "https://me:HUSH@host/x",
        "https://HUSH@host/x",
        "ftp://me:HUSH@host/x",
        "simplecache::s3://KEY:HUSH@bucket/x",
    ],
)
def test_a_url_with_a_password_is_refused_without_showing_it(url):
    with pytest.raises(InputError) as caught:
        place_of(url)
    assert "HUSH" not in str(caught.value)
    assert "KEY:" not in str(caught.value)


def test_lists_in_a_store_name_objects_below_its_bucket_alone():
    home = place_of("s3://bucket/in")
    assert join(home, "a/../b.png") == "s3://bucket/in/b.png"
    assert join(home, "../other/b.png") == "s3://bucket/other/b.png"
    assert join("/data", "s3://bucket/b.png") == "s3://bucket/b.png"
    for stranger in ("/etc/passwd", "file:///etc/passwd", "../../elsewhere/x"):
        with pytest.raises(InputError, match="list at a URL"):
            join(home, stranger)


def test_a_kind_that_nothing_knows_and_a_package_that_is_missing(monkeypatch):
    with pytest.raises(InputError, match="nosuch://"):
        what_is(place_of("nosuch://x/y"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    remote._system.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"\.\[remote\]"):
        read_file("memory://x/y")
    remote._system.cache_clear()


def test_other_stores_are_read_and_written_alike(tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "x").write_bytes(b"content")
    url = place_of("memory://room/a/x.png")
    upload(tmp_path / "x", url)
    assert read_file(str(url)) == b"content"
    assert fetch(url, 3) == b"con"
    assert stat(url).size == 7
    remote.download(url, tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == b"content"
    found = list(listing(place_of("memory://room")))
    assert [(one.name, one.is_folder) for one in found] == [("a", True)]
    assert (what_is(url), what_is(split(url)[0]), what_is(place_of("memory://none"))) == (
        "file",
        "folder",
        "",
    )


def test_a_folder_comes_page_by_page(s3, tmp_path, monkeypatch):
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"x" * (number + 1))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "y").write_bytes(b"y")
    url = place_of(s3.fill("pages", tmp_path))
    asked = []
    real = remote._call
    monkeypatch.setattr(
        remote,
        "_call",
        lambda url, method, *more, **named: (
            asked.append(method) or real(url, method, *more, **({"MaxKeys": 3} | named if more else named))
        ),
    )
    stream = listing(url)
    found = [next(stream)]
    assert len(asked) == 1
    found = sorted([*found, *stream])
    assert [one.name for one in found] == [*(f"{n}.png" for n in range(7)), "below"]
    assert [one.known.size for one in found[:-1]] == [*range(1, 8)]
    assert found[-1].is_folder
    assert len(asked) == 3


@pytest.mark.parametrize("fault", ["error", "reset", "truncated"])
def test_a_request_that_fails_is_tried_again(fault, s3, tmp_path):
    content = bytes(range(256)) * 64
    (tmp_path / "x.png").write_bytes(content)
    url = s3.fill("faults", tmp_path)
    proxy = s3.failing(every=2, faults=(fault,), methods=("GET",))
    for _ in range(6):
        assert read_file(f"{url}/x.png") == content
    assert read_file(f"{url}/x.png", 10) == content[:10]
    assert proxy.failed[fault] >= 5


@pytest.mark.parametrize("fault", ["error", "reset", "truncated"])
def test_what_fails_again_and_again_says_how_often_and_why(fault, s3, tmp_path):
    (tmp_path / "x.png").write_bytes(b"x" * 1000)
    url = s3.fill("faults", tmp_path)
    proxy = s3.failing(faults=(fault,), refused=("x.png",), methods=("GET",))
    reason, detail = reason_of(read_file, f"{url}/x.png")
    assert reason is Reason.UNREACHABLE
    assert detail.startswith(f"{remote.TRIES} tries: {remote.TRIES} x ")
    assert (
        proxy.failed[fault] >= remote.TRIES
    )  # aiohttp tries once more by itself where a kept connection ended


def test_a_body_that_is_short_though_its_length_says_so_too_is_noticed(s3, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"x" * 1000)
    url = place_of(f"{s3.fill('short', tmp_path)}/x.png")
    real = remote._call
    cut = lambda *a, **k: real(*a, **k)[:400] if a[1] == "cat_file" else real(*a, **k)  # noqa: E731
    monkeypatch.setattr(remote, "_call", cut)
    reason, detail = reason_of(fetch, url)
    assert reason is Reason.UNREACHABLE
    assert "400 of 1,000 bytes came" in detail


def test_a_server_that_stalls_is_cut_off(s3, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"x" * 1000)
    url = place_of(f"{s3.fill('stalled', tmp_path)}/x.png")
    assert len(fetch(url)) == 1000
    monkeypatch.setattr(remote, "SECONDS", 0.3)
    monkeypatch.setattr(remote, "TRIES", 2)
    s3.failing(faults=("stalled",), refused=("x.png",), stall=3)
    reason, detail = reason_of(fetch, url)
    assert reason is Reason.UNREACHABLE
    assert detail.startswith("2 tries: ")


def test_the_budget_is_asked_before_anything_is_fetched(s3, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"x" * 1000)
    (tmp_path / "empty.png").write_bytes(b"")
    url = s3.fill("budget", tmp_path)
    proxy = s3.failing()
    monkeypatch.setattr(remote, "BUDGET", type(remote.BUDGET)(file_bytes=999))
    assert reason_of(read_file, f"{url}/x.png") == (Reason.TOO_LARGE, "1,000 bytes; the limit is 999")
    assert reason_of(read_file, f"{url}/empty.png")[0] is Reason.FILE_EMPTY
    assert proxy.seen["GET"] == 0
    assert reason_of(read_file, f"{url}/none.png")[0] is Reason.NOT_FOUND
    assert reason_of(read_file, url)[0] is Reason.NOT_A_FILE


def test_errors_of_a_driver_are_told_without_queries():
    error = OSError("403, url='https://host/x.png?X-Amz-Signature=HUSH&b=1' (see https://host/y?k=HUSH)")
    assert "HUSH" not in remote._said(error)


def test_a_url_of_universal_pathlib_is_taken():
    upath = pytest.importorskip("upath")
    pytest.importorskip("fsspec")
    assert place_of(upath.UPath("memory://room/x.png")) == "memory://room/x.png"
    assert isinstance(place_of(upath.UPath("memory://room/x.png")), Url)
