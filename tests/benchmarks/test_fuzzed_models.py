import json

from benchmarks.robustness import fuzzed_models


def test_fifty_models_from_strangers_do_no_harm(tmp_path, capsys):
    arguments = ["--files", "25", "--kinds", "xgboost", "random-forest", "--scratch", str(tmp_path)]
    assert fuzzed_models.main([*arguments, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["mutants"] for row in figures["table"]] == [25, 25]
    assert all(row["refused"] > 10 for row in figures["table"])
    assert all(row["refused"] + row["loaded"] == 25 for row in figures["table"])
    assert "xgboost" in capsys.readouterr().out


def test_a_hang_a_signal_and_a_traceback_are_told(tmp_path, monkeypatch):
    harm = {
        "hang": "time.sleep(60)",
        "signal": "os.abort()",
        "traceback": "1 / 0",
        "memory": "bytearray(2 << 30)",
    }
    for ended, code in harm.items():
        worker = fuzzed_models.WORKER.replace(
            "work(*",
            "import os, signal, time, benchmarks.robustness.fuzzed_models as f; f.WAITING = 1; "
            f"f.use = lambda folder, kind: None if folder.name == 'sound' else {code}; work(*",
        )
        monkeypatch.setattr(fuzzed_models, "WORKER", worker)
        (tmp_path / ended / "sound").mkdir(parents=True)
        (tmp_path / ended / "sound" / "lungs.onnx").write_bytes(b"Conv kernel Relu pads Sigmoid Concat" * 9)
        (row,) = fuzzed_models.fuzz("segmenter", tmp_path / ended / "sound", tmp_path / ended, 1, 0)
        assert row["ended"] == ended
        monkeypatch.undo()
