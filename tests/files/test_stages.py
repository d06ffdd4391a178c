import threading
import time

import pytest

from histcxr.files.stages import stage, stages


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def work():
    with stage("busy"):
        busy(0.05)
    with stage("idle"):
        time.sleep(0.05)


def test_processor_time_of_all_threads_adds_up():
    with stages() as seconds:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 0.14 < seconds["busy"] < 0.3
    assert seconds["idle"] < 0.05


def failing():
    with stage("failing"):
        busy(0.01)
        raise ValueError("here")


def test_a_stage_that_fails_counts_and_nothing_counts_unasked():
    with stages() as seconds, pytest.raises(ValueError, match="here"):
        failing()
    spent = seconds["failing"]
    assert spent > 0.005
    work()
    assert dict(seconds) == {"failing": spent}
