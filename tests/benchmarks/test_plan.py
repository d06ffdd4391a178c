"""The benchmarks of plans, on few draws and on scores that are made up."""

import json

import numpy as np

from benchmarks.robustness import plan_list, plan_worth


def test_lists_are_drawn_and_told(tmp_path, capsys):
    assert plan_list.main(["--draws", "4", "--json", str(tmp_path / "list.json")]) == 0
    found = json.loads((tmp_path / "list.json").read_text())
    assert len(found["rows"]) == 12
    assert "4 lists a row of 600 of 4000 patients" in capsys.readouterr().out


def test_the_truth_of_thresholds_is_that_of_many_patients():
    rng = np.random.default_rng(0)
    for step in (0.0, 0.25):
        sick, normal = (plan_list.to_unit(rng.normal(size=200_000) + apart, step) for apart in (1.8, 0.0))
        low, high = np.sort(sick)[9_000], np.sort(normal)[-9_000]
        true = plan_list.truths(float(low), float(high), 1.8, step)
        assert np.allclose(true, [(sick >= low).mean(), (normal <= high).mean()], atol=0.003)


def test_a_plan_of_the_same_patients_is_what_they_give():
    rng = np.random.default_rng(0)
    patients = rng.normal(2, 1, 2000), rng.normal(0, 1, 2000)
    real = np.quantile(plan_worth.real(patients, 100, 1500, rng), (0.05, 0.5, 0.95))
    assert np.allclose(plan_worth.planned(patients, 100, 0, 0), real, atol=0.03)
