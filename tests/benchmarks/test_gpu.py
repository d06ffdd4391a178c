"""The GPU benchmark without a GPU: it says why it does nothing, and its parts run on the processor."""

import argparse
import json

import numpy as np
import pytest

from benchmarks.speed import gpu

pytest.importorskip("keras")

TINY = {
    "images": 32,
    "size": 32,
    "epochs": 1,
    "batch": 16,
    "trials": 1,
    "steps": 1,
    "jobs": 1,
    "device": "cpu",
}


def options(**more):
    return argparse.Namespace(**{**TINY, "architecture": "cnn3", "mixed": True, **more})


def test_it_says_why_it_skips(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    seen = []

    def start(command, timeout):
        seen.append(command[-1])
        return argparse.Namespace(returncode=0, stdout="[]\n", stderr="")

    monkeypatch.setattr(gpu, "start", start)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name if name != "jax" else None)
    gpu.main(["--json", str(tmp_path / "gpu.json")])
    why = "tensorflow sees no card; jax is not installed; torch sees no card"
    assert capsys.readouterr().out == f"skipped: no GPU can be used here ({why})\n"
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"skipped": why}
    assert seen == ["tensorflow", "torch"]


def test_parts_run_on_the_processor(monkeypatch):
    for part in (gpu.lenet, gpu.xgboost, gpu.network):
        found = part(options(images=64))
        assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert len(found) == 4  # two precisions, training and inference
    import keras

    keras.config.set_dtype_policy("float32")


def test_rows_are_taken_from_the_device():
    import keras

    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), np.uint8)
    rows = keras.Input((), dtype="int32")
    layer = gpu.rows_on_device(keras, images)
    model = keras.Model(rows, layer(rows))
    np.testing.assert_array_equal(np.asarray(model(np.array([3, 0, 3]))), images[[3, 0, 3]])
    assert model.trainable_weights == []


def test_figures_of_processes_that_share_a_card_add_up(monkeypatch):
    reports = iter([(0, '{"trials a minute": 3}'), (0, '{"trials a minute": 4}'), (1, "")])

    def start(command, timeout):
        code, said = next(reports)
        return argparse.Namespace(returncode=code, stdout=said, stderr="error: out of memory\n")

    monkeypatch.setattr(gpu, "start", start)
    long = gpu.time.monotonic() + 100
    assert gpu.measure("lenet", "gpu", options(), "tensorflow", long, 2) == {"trials a minute": 7}
    assert gpu.measure("lenet", "gpu", options(), "tensorflow", long) == {"not run": "error: out of memory"}
    assert gpu.measure("lenet", "gpu", options(), "tensorflow", long - 90) == {"not run": "no time was left"}
