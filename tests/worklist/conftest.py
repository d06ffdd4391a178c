"""A small model and small study folders: real files, a few milliseconds each."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.store import Model, save_model


def lungs(seed, sick=False, size=64):
    """A grey image and its mask: two dark ellipses, brighter inside when sick."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 190, np.float64)
    mask = np.zeros((size, size), np.uint8)
    for x in (0.3, 0.7):
        centre, axes = (int(x * size), size // 2), (size // 7, size // 3)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    image[mask > 0] = 70 + 60 * sick + rng.normal(0, 25)
    image += rng.normal(0, 15, image.shape)
    return np.clip(image, 1, 254).astype(np.uint8), mask


def write_pair(folder: Path, name: str, seed: int, sick=False) -> Path:
    """Write one image and its mask; return the image."""
    image, mask = lungs(seed, sick)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "masks" / name).write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    return folder / name


def write_dicom_pair(folder: Path, name: str, seed: int, sick=False, *, study="1.2.840.1", **tags) -> Path:
    """Write one DICOM image, all its identifiers its own but the study, and its mask; return the image."""
    image, mask = lungs(seed, sick)
    own = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{seed}",
        "SOPInstanceUID": f"{study}.{seed}.1",
    }
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_dicom(image, tags={**own, **tags}))
    place = folder / "masks" / Path(name).parent / f"{path.stem}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    return path


@pytest.fixture(scope="session")
def model():
    """A model that tells bright lungs from dark ones, both thresholds certified."""
    rng = np.random.default_rng(3)
    sick = np.arange(160) % 2
    centre = 70 + 60 * sick[:, None, None] + rng.normal(0, 25, (160, 1, 1))
    counts = rng.poisson(40 * np.exp(-((np.arange(256) - centre) ** 2) / (2 * 15**2))).astype(np.int64)
    pipeline = make_pipeline(HistogramFeatures(n_quantiles=8), StandardScaler(), LogisticRegression())
    pipeline.fit(counts, sick)
    scores = pipeline.predict_proba(counts)[:, 1]
    return Model(
        "linear", pipeline, Recipe(1), rule_out_threshold(scores[1::2]), rule_in_threshold(scores[::2])
    )


@pytest.fixture(scope="session")
def saved_model(model, tmp_path_factory):
    """The same model as a folder."""
    return save_model(model, tmp_path_factory.mktemp("model") / "m.histcxr")


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder of 23 good images in two sub-folders; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    for i in range(23):
        write_pair(folder, f"{'ab'[i % 2]}/image {i:02}.png", seed=i, sick=i % 3 == 0)
    return folder


@pytest.fixture
def mine(study, tmp_path):
    """A copy of the study, to change."""
    return Path(shutil.copytree(study, tmp_path / "mine"))
