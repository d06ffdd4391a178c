import json

import pytest

from benchmarks.robustness import mutated_radiographs

pytest.importorskip("pydicom")
pytest.importorskip("imagecodecs")


def test_damaged_phantoms_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mutated_radiographs, "TOOLS", {})
    monkeypatch.setattr(mutated_radiographs, "SYNTAXES", ("rle", "jpeg lossless", "jpeg 2000"))
    place = tmp_path / "figures.json"
    arguments = ["--images", "1", "--mutations", "30", "--json", str(place), "--jobs", "1"]
    mutated_radiographs.main(arguments)
    figures = json.loads(place.read_text())
    assert figures["outcomes"].get("sound, refused", 0) == 0
    made = sum(figures["outcomes"].get(name, 0) for name in ("refused", "harmless", "visibly damaged"))
    assert made >= 30
    assert figures["outcomes"]["refused"] > 0.6 * made
    assert sum(row["files"] for row in figures["moves"]) == figures["outcomes"].get("visibly damaged", 0)
    assert "sound files, 0 refused" in capsys.readouterr().out
