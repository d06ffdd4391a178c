import json

import numpy as np
import pytest

from benchmarks.quality import lenet_seeds
from histcxr.phantoms.studies import write_study

pytest.importorskip("keras")


def test_the_mean_of_more_and_more_networks(tmp_path, capsys):
    study = write_study(
        tmp_path / "study", n_patients=200, size=(64, 64), mask_size=(64, 64), repeats=0, seed=4
    )
    arguments = [
        "--data",
        study,
        "--zones",
        6,
        "--networks",
        2,
        "--epochs",
        3,
        "--json",
        tmp_path / "seeds.json",
    ]
    lenet_seeds.main([str(argument) for argument in arguments])
    rows = json.loads((tmp_path / "seeds.json").read_text())["rows"]
    assert [(row["part"], row["networks"]) for row in rows] == [
        ("val", 1),
        ("val", 2),
        ("test", 1),
        ("test", 2),
    ]
    assert all(row["auc_low"] <= row["auc"] <= row["auc_high"] for row in rows)
    assert "2 networks trained" in capsys.readouterr().out


def test_scores_by_network_average_to_the_classifiers_own():
    from histcxr.models.lenet import LeNetClassifier
    from histcxr.study.cohort import Cohort

    counts, sick = np.random.default_rng(0).poisson(5, (60, 1, 32)), np.arange(60) % 2 == 1
    settings = {"filters": (2,), "kernel_size": 3, "dense": (4,), "epochs": 2, "random_state": 0}
    network = LeNetClassifier(**settings, n_seeds=2).fit(counts, sick)
    cohort = Cohort(None, sick, np.arange(60).astype(object), counts)
    found = lenet_seeds.scores_by_network(network, cohort)
    assert found.shape == (2, 60)
    np.testing.assert_allclose(found.mean(axis=0), network.predict_proba(counts)[:, 1], atol=1e-6)
    assert len(network.members_) == 2
