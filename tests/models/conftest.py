"""Made-up histograms of lungs for the classical classifiers: no images needed."""

import numpy as np
import pytest


def lungs(n, seed):
    """Counts (n, 6, 256), sick (n,) and patients (n,), two images each.

    The sick have brighter and denser lower zones; brightness and contrast of the image say nothing.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // 2), 2)
    sick = patients % 2 == 1
    brightness, contrast = rng.normal(100, 15, (n, 1, 1)), rng.uniform(0.7, 1.3, (n, 1, 1))
    centre = rng.normal(0, 6, (n, 6, 1))
    centre[:, [2, 5]] += 18 * sick[:, None, None]
    pixels = brightness + contrast * (centre + rng.normal(0, 18, (n, 6, 400)))
    flat = (np.arange(n * 6)[:, None] * 256 + pixels.reshape(n * 6, -1).clip(0, 255).astype(int)).ravel()
    return np.bincount(flat, minlength=n * 6 * 256).reshape(n, 6, 256), sick, patients


@pytest.fixture(scope="session")
def study():
    """Histograms to learn from: (counts, sick, patients)."""
    return lungs(240, seed=0)


@pytest.fixture(scope="session")
def others():
    """Histograms of other patients."""
    return lungs(200, seed=1)
