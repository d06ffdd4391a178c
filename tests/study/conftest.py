"""One phantom study, and what is trained on it."""

import pytest

import histcxr
from histcxr.phantoms.studies import write_study
from histcxr.study.train import train


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, n_patients=800, size=(64, 64), mask_size=(80, 80), repeats=0.1, seed=3)
    return histcxr.read_manifest(folder)


@pytest.fixture(scope="session")
def result(manifest):
    return train(manifest, classifiers=["knn", "svm"], zones=6, trials=0, n_jobs=2)
