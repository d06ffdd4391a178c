"""Small fitted models on made-up histograms: seconds to train, no images needed."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.store import Model, save_model
from histcxr.store.plain import Saved
from histcxr.store.weights import weights_from_bytes


@pytest.fixture(scope="session")
def study():
    """Counts (120, 2, 256) of made-up lungs and whether they are sick; the sick are brighter."""
    rng = np.random.default_rng(7)
    sick = np.arange(120) % 2
    centre = 110 + 25 * sick[:, None, None] + rng.normal(0, 15, (120, 2, 1))
    width = rng.uniform(15, 35, (120, 1, 1))
    counts = rng.poisson(200 * np.exp(-((np.arange(256) - centre) ** 2) / (2 * width**2)))
    return counts.astype(np.int64), sick


def made_of(estimator, study, name="small", **papers):
    """A model around an estimator, fitted on the study."""
    counts, sick = study
    pipeline = make_pipeline(HistogramFeatures(zones=2, n_quantiles=8), StandardScaler(), estimator)
    pipeline.fit(counts, sick)
    scores = pipeline.predict_proba(counts)[:, 1]
    return Model(
        name,
        pipeline,
        Recipe(2),
        rule_out_threshold(np.repeat(scores[sick == 1], 2)),
        rule_in_threshold(scores[sick == 0], specificity=0.99),
        **papers,
    )


@pytest.fixture(scope="session")
def make_model(study):
    """Turn an estimator into a fitted model."""
    return lambda estimator, **papers: made_of(estimator, study, **papers)


@pytest.fixture(scope="session")
def make_booster():
    """Train a booster on the study, or whatever XGBoost's settings make of it."""

    def train(study, **settings):
        counts, sick = study
        features = counts.reshape(len(counts), -1)[:, ::16]
        fit = {"eval_set": [(features, sick)], "verbose": False}
        return XGBClassifier(n_estimators=6, n_jobs=1, **settings).fit(features, sick, **fit).get_booster()

    return train


@pytest.fixture(scope="session")
def model(make_model):
    """A boosted model with papers of every kind."""
    return make_model(
        XGBClassifier(n_estimators=5, max_depth=2, random_state=0, n_jobs=1),
        name="xgboost",
        metrics={"auc": np.float32(0.75), "nothing": float("nan"), "curve": np.arange(3)},
        training={"n": np.int64(120), "classes": ("Normal", "Sick")},
        card={"purpose": "tests"},
    )


@pytest.fixture(scope="session")
def plain_model(make_model):
    """The smallest model: no trees, no booster."""
    return make_model(LogisticRegression(), name="linear")


@pytest.fixture(scope="session")
def forest_model(make_model):
    """A model of scikit-learn's trees."""
    return make_model(RandomForestClassifier(5, max_depth=3, random_state=0), name="random-forest")


@pytest.fixture(scope="session")
def saved_once(model, tmp_path_factory):
    """The boosted model's folder; not to be changed."""
    return save_model(model, tmp_path_factory.mktemp("saved") / "model.histcxr")


@pytest.fixture
def saved(saved_once, tmp_path):
    """A copy of that folder, to do anything with."""
    return Path(shutil.copytree(saved_once, tmp_path / "model.histcxr"))


@pytest.fixture(params=[weights_from_bytes, Saved], ids=["estimator", "plain"])
def read(request):
    """Both ways to read weights refuse the same."""
    return request.param


@pytest.fixture
def forge():
    """Edit a saved model as somebody would who knows the format: all hashes are right again afterwards."""

    def seal(folder: Path, edit=None, **files: bytes) -> Path:
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(content)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        for name, facts in manifest["files"].items():
            content = (folder / name).read_bytes()
            facts.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if edit:
            edit(manifest)
        path.write_text(json.dumps(manifest))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
        return folder

    return seal
