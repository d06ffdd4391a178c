"""Reading ahead: in order, few bytes at a time, each object once, and nothing is held when all is done."""

import threading
import time

import pytest

from histcxr.data import ahead
from histcxr.exceptions import RadiographError, Reason
from histcxr.files import remote
from histcxr.files.remote import Known, Url, fetch


@pytest.fixture
def store(monkeypatch):
    """A store that counts what it is asked, and the most bytes that were on their way or had come."""
    asked, most = [], [0]

    def fetch_now(url, most_bytes=None):
        asked.append(str(url))
        most[0] = max(most[0], ahead._AHEAD._held)
        if "lost" in url:
            raise RadiographError(Reason.UNREACHABLE, url, "gone")
        return url.encode()

    monkeypatch.setattr(ahead, "fetch_now", fetch_now)
    monkeypatch.setattr(remote, "fetch_now", fetch_now)
    monkeypatch.setattr(ahead, "MOST_BYTES", 100)
    return asked, most


def held():
    """Bytes that are held when what is on its way has come."""
    for _ in range(100):
        if not ahead._AHEAD._held:
            break
        time.sleep(0.02)
    return ahead._AHEAD._held


def test_each_object_comes_once_and_within_the_bytes(store):
    asked, most = store
    urls = [Url(f"memory://x/{n}", known=Known(30, 0, 0)) for n in range(50)]
    with ahead.reading_ahead([*urls, "a local file"]):
        threads = [
            threading.Thread(target=lambda part=urls[n::4]: [fetch(url) for url in part]) for n in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(10)
    assert sorted(asked) == sorted(urls)
    assert 0 < most[0] <= 100
    assert held() == 0


def test_what_is_asked_for_out_of_turn_does_not_wait(store):
    urls = [Url(f"memory://x/{n}", known=Known(60, 0, 0)) for n in range(4)]
    with ahead.reading_ahead(urls):
        assert fetch(urls[3]) == b"memory://x/3"  # the first is held and nobody takes it
        assert fetch(urls[0]) == b"memory://x/0"
    assert held() == 0


def test_errors_come_where_the_object_is_read_and_hold_nothing(store):
    urls = [Url("memory://x/lost"), Url("memory://x/1")]
    with ahead.reading_ahead(urls), pytest.raises(RadiographError, match="gone"):
        fetch(urls[0])
    assert held() == 0
    assert fetch(urls[1]) == b"memory://x/1"
