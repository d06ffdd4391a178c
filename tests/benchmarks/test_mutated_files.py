import json

import pytest

from benchmarks.robustness import mutated_files, triaged

pytest.importorskip("pydicom")
pytest.importorskip("imagecodecs")


def test_every_damaged_file_has_a_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mutated_files, "BOMBS", 0)  # slow, and they take much memory
    arguments = ["--files", "60", "--no-segment", "--unmasked", "0.2"]
    arguments += ["--json", str(tmp_path / "figures.json")]
    assert mutated_files.main([*arguments, "--scratch", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["files"] == figures["rows"] == 60
    assert sum(row["PNG"] + row["DICOM"] for row in figures["counts"]) == 60
    assert figures["problems"] == []
    assert 0 < figures["peak_bytes"] < 2**30
    assert 0 < figures["slowest"][0]["seconds"] < 5
    assert "60 files, 60 rows, 0 unforeseen errors" in capsys.readouterr().out


def test_broken_limits_are_told_and_fail(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mutated_files, "BOMBS", 0)
    monkeypatch.setattr(mutated_files, "SECONDS", 1e-6)
    monkeypatch.setattr(mutated_files, "BYTES", 2**20)
    assert mutated_files.main(["--files", "6", "--no-segment", "--scratch", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "- broken: whole:" in said
    assert " took " in said


def test_a_crash_and_a_hang_are_problems():
    assert "status 3" in triaged.started("raise SystemExit(3)", [], 60)["problem"]
    assert "no end after 1 seconds" in triaged.started("import time; time.sleep(30)", [], 1)["problem"]


def test_bombs_are_sound_files_of_the_largest_size():
    from histcxr.data.radiograph import read_any_header as read_header

    for name, content in mutated_files.bombs().items():
        header = read_header(content, name)
        assert header.width == header.height == mutated_files.BOMB_SIDE
        assert len(content) < 2**20
