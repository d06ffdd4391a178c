import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from histcxr.exceptions import RadiographError, Reason
from histcxr.files import reading as files
from histcxr.files.budget import Budget
from histcxr.files.reading import detail_of, kind_of, read_file, reason_of


def refused(path):
    with pytest.raises(RadiographError) as caught:
        read_file(path)
    assert caught.value.path == os.fspath(path)
    return caught.value.reason


def test_content_is_returned_whole(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert read_file(tmp_path / "file") == content
    (tmp_path / "link").symlink_to("file")
    assert read_file(str(tmp_path / "link")) == content


def test_kinds_of_trouble(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    assert refused(tmp_path / "empty") is Reason.FILE_EMPTY
    assert refused(tmp_path / "loop") is Reason.LINK_LOOP
    assert refused(tmp_path / "nowhere") is Reason.NOT_FOUND
    assert refused(tmp_path / "missing") is Reason.NOT_FOUND
    assert refused(tmp_path / "file" / "below") is Reason.NOT_FOUND
    assert refused(tmp_path / ("n" * 300)) is Reason.NOT_FOUND
    assert refused(f"{tmp_path}/nul\0byte") is Reason.NOT_FOUND
    assert refused(tmp_path) is Reason.NOT_A_FILE
    assert refused(tmp_path / "pipe") is Reason.NOT_A_FILE  # and does not wait for a writer
    assert refused("/dev/null") is Reason.NOT_A_FILE


def test_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # socket names must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refused("socket") is Reason.NOT_A_FILE


def test_closed_file(tmp_path):
    path = tmp_path / "closed"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("an administrator reads everything")
    assert refused(path) is Reason.PERMISSION


def test_closed_file_as_another_user(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only an administrator can become another user")
    (tmp_path / "closed").write_bytes(b"x")
    (tmp_path / "closed").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(0o755)
    code = (
        "import os, sys\n"
        "from histcxr.files.reading import read_file\n"
        "from histcxr.exceptions import RadiographError\n"
        "os.setuid(65534)\n"
        "try:\n    read_file(sys.argv[1])\n"
        "except RadiographError as error:\n    print(error.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "closed")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "permission"


def test_sizes_are_limited(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(files, "BUDGET", Budget(file_bytes=99))
    with pytest.raises(RadiographError, match="100 bytes; the limit is 99"):
        read_file(path)


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    read = os.read

    def append_then_read(descriptor, size):
        with open(path, "ab") as stream:
            stream.write(b"y" if path.stat().st_size < 103 else b"")
        return read(descriptor, min(size, 40))  # and the disk gives little at a time

    monkeypatch.setattr(os, "read", append_then_read)
    assert read_file(path) == b"x" * 100 + b"yyy"


def test_a_disk_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(RadiographError, match="Input/output error") as caught:
        read_file(path)
    assert caught.value.reason is Reason.DAMAGED


def test_descriptors_are_given_back(tmp_path):
    (tmp_path / "empty").touch()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        refused(tmp_path / "empty")
        refused(tmp_path)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_names_of_reasons():
    assert reason_of(OSError(errno.ESTALE, "stale")) is Reason.DAMAGED
    assert detail_of(OSError(errno.ENOENT, "no such file")) == ""
    assert detail_of(OSError(errno.ESTALE, "stale handle")) == "stale handle"
    assert kind_of(os.stat("/").st_mode) == "folder"
    assert kind_of(0) == "unknown kind of file"
