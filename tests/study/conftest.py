"""One phantom study, and what is trained on it."""

import numpy as np
import pytest

import histcxr
from histcxr.data.fingerprints import fingerprint, recognised
from histcxr.phantoms.studies import write_study
from histcxr.study.train import train


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, n_patients=800, size=(64, 64), mask_size=(80, 80), repeats=0.1, seed=3)
    found = histcxr.read_manifest(folder)
    # A few of the small phantoms look like twins of another patient, who would be left out: here nobody is.
    known = np.stack([fingerprint(histcxr.read_radiograph(path).pixels) for path in found["image"]])
    alike = [
        row for row in range(len(known)) if recognised(known[row : row + 1], np.delete(known, row, axis=0))[0]
    ]
    twins = set(found["patient_id"].iloc[alike])
    return found[~found["patient_id"].isin(twins)].reset_index(drop=True)


@pytest.fixture(scope="session")
def result(manifest):
    return train(manifest, classifiers=["knn", "svm"], zones=6, trials=0, n_jobs=2)
