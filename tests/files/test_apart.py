"""Decoders in a process of their own: the same pixels, and no end of the run whatever they do."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from histcxr.exceptions import InputError, RadiographError, Reason
from histcxr.files import apart as module
from histcxr.files.apart import apart, cautiously
from histcxr.files.budget import Budget, from_environment
from histcxr.files.decoding import decode_grey
from histcxr.files.formats import read_header
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

IMAGE = make_phantom(3, size=(96, 80)).image
TIFF = cv2.imencode(".tif", IMAGE, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()

# What a hostile file may make of a decoder; imported by workers through the folder of the fixture.
HARM = """
import ctypes, os, signal, time
import numpy as np
from histcxr.exceptions import RadiographError, Reason
from histcxr.files.apart import apart

@apart(lambda kind, path, **_: True)
def decode(kind, path, *, rows=3):
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        bytearray(2 << 30)
    if kind == "hang":
        while True:
            pass
    if kind == "sleep":
        time.sleep(60)
    if kind == "refused":
        raise RadiographError(Reason.COLOUR, path, "so it is")
    if kind == "bug":
        raise KeyError("nothing")
    return np.full((rows, 2), os.getpid(), ">u4" if kind == "big" else "u4")
"""


@pytest.fixture(scope="module")
def decode(tmp_path_factory):
    """A decoder that does what it is told; a second of processor, and three by the clock, are its limit."""
    folder = tmp_path_factory.mktemp("harm")
    (folder / "harmful_decoder.py").write_text(HARM)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(module, "BUDGET", Budget(seconds=1))
        module.close()
        import harmful_decoder

        yield harmful_decoder.decode
        module.close()


def test_pixels_come_back_as_they_are(decode):
    for kind in ("sound", "big"):
        found = decode(kind, "x")
        assert found.shape == (3, 2)
        assert len({*found.flat, os.getpid()}) == 2
    assert decode("sound", "x", rows=5).shape == (5, 2)


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        ("crash", "SIGSEGV"),
        ("killed", "SIGKILL"),
        ("memory", "more than 768 MiB"),
        ("hang", "more than 1 seconds"),
    ],
)
def test_what_a_decoder_does_costs_one_file(decode, kind, detail):
    before = decode("sound", "x")[0, 0]
    with pytest.raises(RadiographError, match=detail) as caught:
        decode(kind, "at fault")
    assert caught.value.reason is Reason.TOO_COSTLY
    assert caught.value.path == "at fault"
    assert (decode("sound", "x")[0, 0] == before) == (kind == "memory")


def test_the_clock_stops_what_only_waits(decode, monkeypatch):
    monkeypatch.setattr(module._Worker, "answer", _impatient(module._Worker.answer))
    with pytest.raises(RadiographError, match="more than 1 seconds"):
        decode("sleep", "x")
    assert decode("sound", "x").shape == (3, 2)


def _impatient(answer):
    def soon(worker):
        worker._seconds = 0.02
        try:
            return answer(worker)
        finally:
            worker._seconds = 1

    return soon


def test_errors_are_the_same_as_in_this_process(decode):
    with pytest.raises(RadiographError, match="so it is") as caught:
        decode("refused", "name")
    assert (caught.value.reason, caught.value.path) == (Reason.COLOUR, "name")
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        decode("bug", "x")


def test_a_worker_that_was_ended_while_idle_costs_no_file(decode):
    worker = int(decode("sound", "x")[0, 0])
    os.kill(worker, signal.SIGKILL)
    assert decode("sound", "x")[0, 0] != worker


def test_many_threads_share_few_workers(decode):
    with ThreadPoolExecutor(12) as pool:
        kinds = ["killed" if i % 10 == 0 else "sound" for i in range(60)]
        found = list(pool.map(lambda kind: _reason_or_worker(decode, kind), kinds))
    assert [one is Reason.TOO_COSTLY for one in found] == [kind == "killed" for kind in kinds]
    assert module._idle.qsize() == module.WORKERS


def _reason_or_worker(decode, kind):
    try:
        return decode(kind, "x")[0, 0]
    except RadiographError as error:
        return error.reason


def test_a_process_that_is_killed_leaves_no_worker(decode):
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[1:]; import harmful_decoder as h; "
        "print(h.decode('sound', 'x')[0, 0], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = next(path for path in sys.path if path.split(os.sep)[-1].startswith("harm"))
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while _lives(done.stdout.strip()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _lives(done.stdout.strip())


def _lives(process):
    """Whether a process runs: it may be over and wait for somebody to ask how it ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True).stdout
    return state.strip() not in ("", "Z")


def test_rare_files_are_decoded_apart_and_common_ones_are_not(monkeypatch):
    asked = []
    ask = module._ask
    monkeypatch.setattr(module, "_ask", lambda task, path: asked.append(path) or ask(task, path))
    common = [encode_image(IMAGE, suffix) for suffix in (".png", ".bmp")]
    for name, data in {"packed tiff": TIFF, "png": common[0], "bmp": common[1]}.items():
        assert (decode_grey(data, read_header(data), name)[0] == IMAGE).all()
    assert asked == ["packed tiff"]
    decode_carefully = cautiously(decode_grey)
    assert (decode_carefully(common[0], read_header(common[0]), "after a crash")[0] == IMAGE).all()
    assert asked == ["packed tiff", "after a crash"]
    decode_grey(common[0], read_header(common[0]), "later")
    assert len(asked) == 2


def test_caution_is_of_one_thread():
    seen, wait, go = [], threading.Event(), threading.Event()

    def careful():
        wait.set()
        go.wait(10)

    thread = threading.Thread(target=cautiously(careful))
    thread.start()
    wait.wait(10)
    here = apart(lambda path: seen.append("asked") or False)(lambda path: np.zeros(1))
    assert here("x").shape == (1,)
    assert seen == ["asked"]  # with caution, nobody would ask
    go.set()
    thread.join()


def test_the_environment_changes_the_budget(monkeypatch):
    assert from_environment().changed() == {}
    monkeypatch.setenv("HISTCXR_MAX_SECONDS", "20")
    monkeypatch.setenv("HISTCXR_MAX_PIXELS", str(2**20))
    assert from_environment().changed() == {"seconds": 20, "pixels": 2**20}
    for wrong in ("much", "-1", "0", "1.5"):
        monkeypatch.setenv("HISTCXR_MAX_SECONDS", wrong)
        with pytest.raises(InputError, match="HISTCXR_MAX_SECONDS must be a whole number above 0"):
            from_environment()
