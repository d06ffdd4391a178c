"""Reports through a checker and a receiver, in little; only where both are installed."""

import json
import shutil

import pytest

from benchmarks.robustness import reports_accepted

pytest.importorskip("highdicom")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dicom3tools")
@pytest.mark.skipif(shutil.which("storescp") is None, reason="needs dcmtk")
def test_reports_are_accepted(tmp_path, capsys):
    assert reports_accepted.main(["--studies", "5", "--json", str(tmp_path / "r.json")]) == 0
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["reports"] == figures["received"] == 4
    assert "| 4 |" in " ".join(capsys.readouterr().out.split())
