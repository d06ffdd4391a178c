"""The app's command: where it listens, what it leaves behind, how it ends."""

import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from histcxr.commands import main


def get(url, **headers):
    """Return status, headers and body; what refuses connections is tried again for a while."""
    for attempt in range(100):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()
        except urllib.error.URLError:
            time.sleep(0.1 * (attempt < 99))
    raise AssertionError(f"nobody answers at {url}")


def test_without_streamlit_it_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    result = CliRunner().invoke(main, ["app", "--port", "0"])
    assert result.exit_code == 1
    assert "pip install '.[app]'" in result.output


def test_a_taken_port_is_refused_at_once():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(main, ["app", "--port", str(port)])
    assert result.exit_code == 2
    assert f"port must be free on 127.0.0.1, got {port}" in result.output


def test_what_pages_write_is_kept_where_it_was_asked_for_alone(tmp_path, monkeypatch):
    places = []

    def server(settings):
        assert settings["server.maxUploadSize"] == 7
        places.append(Path(os.environ["HISTCXR_APP_FOLDER"]))
        places[-1].mkdir(exist_ok=True)
        (places[-1] / "worklist.csv").write_text("")
        return SimpleNamespace(run=lambda sockets: None)

    for name in ("HISTCXR_APP_FOLDER", "HISTCXR_APP_MODEL", "MPLCONFIGDIR", "KERAS_HOME"):
        monkeypatch.setenv(name, "")  # and be put back
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("histcxr.app.serving._server", server)
    for options in ([], ["--keep", str(tmp_path / "kept")]):
        result = CliRunner().invoke(main, ["app", "--port", "0", "--max-upload", "7", *options])
        assert result.exit_code == 130, result.output
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGHUP, before[1])
    assert not places[0].exists()
    assert places[1] == tmp_path / "kept"
    assert (places[1] / "worklist.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_nothing_is_left(start, number):
    app = start()
    status, headers, body = get(app.url)
    assert status == 200
    assert b"<title>" in body
    assert "default-src 'self'" in headers["content-security-policy"]
    if number == signal.SIGINT:
        assert get(app.url, Host="elsewhere.example")[0] == 400
        outside = f"http://127.0.0.1:{app.port}/"
        assert {get(outside + path)[0] for path in ("", "train", "_stcore/health", "static/")} == {404}
        with pytest.raises(OSError, match="refused"):  # on no other address of this machine
            socket.create_connection(("127.0.0.2", app.port), timeout=2)
    assert len(list(app.temporary.glob("histcxr-app-*"))) == 1
    assert app.end(number) == (130, "\nInterrupted.\n")
    assert list(app.temporary.glob("histcxr-*")) == []
    assert list(app.home.rglob("*")) == []
