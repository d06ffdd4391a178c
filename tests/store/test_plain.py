"""Saved models scored without scikit-learn and XGBoost: equal to what these say, whatever the classifier."""

import dataclasses
import gzip
import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from xgboost import XGBClassifier

from histcxr.decision.thresholds import certify
from histcxr.exceptions import InputError, ModelError
from histcxr.features.recipe import Recipe
from histcxr.files.writing import write_image
from histcxr.models import scoring, trees
from histcxr.models.adapted import AdaptedClassifier, fit_linear
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_network import LeNetGraph
from histcxr.models.out_of_fold import CalibratedClassifier, StackedClassifier
from histcxr.models.pipelines import GaussianSVC
from histcxr.models.registry import make_classifier
from histcxr.phantoms.anatomy import make_phantom
from histcxr.store import Model, load_model, model_hash, pack_model, save_model
from histcxr.store.plain import Saved
from histcxr.store.weights import weights_to_bytes

NAMES = ("knn", "svm", "random-forest", "xgboost", "stack")
RECIPES = {"one": Recipe(1), "zones": Recipe("1+2"), "bands": Recipe(6, "travel")}


def made_up(recipe, n, seed=0):
    """Counts (n, rows, 256), of whole lungs the sum of their parts, and who is sick: the brighter."""
    rng = np.random.default_rng(seed)
    sick, rows = np.arange(n) % 2, len(recipe.names)
    centre = 110 + 20 * sick[:, None, None] + rng.normal(0, 15, (n, rows, 1))
    counts = rng.poisson(150 * np.exp(-((np.arange(256) - centre) ** 2) / 800)).astype(np.int64)
    if isinstance(recipe.zones, str):
        channels = counts.reshape(n, -1, len(Recipe(recipe.zones).names), 256)
        channels[:, :, 0] = channels[:, :, 1:].sum(axis=2)
    return counts, sick


def few(name, recipe):
    classifier = make_classifier(name, zones=recipe.zones, bands=recipe.bands)
    parameters = classifier.get_params()
    small = {key: 9 for key in parameters if key.endswith(("n_estimators", "n_neighbors"))}
    small |= {key: 4 for key in parameters if key.endswith("reduce__n_components")}
    small |= {key: 0.5 for key in parameters if key.endswith(("learning_rate", "min_child_weight"))}
    return classifier.set_params(**small, **{key: 2 for key in parameters if key.endswith("__cv")})


@pytest.fixture(scope="module", params=[(name, kind) for name in NAMES for kind in RECIPES], ids="-".join)
def fitted(request):
    name, kind = request.param
    counts, sick = made_up(RECIPES[kind], 60)
    return few(name, RECIPES[kind]).fit(counts, sick), RECIPES[kind]


def native(part, X):
    """P(second class) by the methods of scikit-learn and XGBoost alone."""
    if isinstance(part, Pipeline):
        return native(part[-1], part[:-1].transform(X) if len(part) > 1 else X)
    if isinstance(part, CalibratedClassifier | StackedClassifier):
        logits = [native_logit(member, X, getattr(part, "views", 1)) for member in part.estimators_]
        return expit(np.column_stack(logits) @ part.coef_ + part.intercept_)
    return part.predict_proba(X)[:, 1]


def native_logit(part, X, views=1):
    if views > 1:
        return np.mean([native_logit(part, view) for view in np.split(X, views, axis=1)], axis=0)
    if isinstance(part, Pipeline):
        return native_logit(part[-1], part[:-1].transform(X))
    if isinstance(part, GaussianSVC):
        kernel = rbf_kernel(X.astype(np.float32), part.support_vectors_, gamma=part.gamma)
        return kernel.astype(np.float64) @ part.dual_coef_ + part.intercept_
    if isinstance(part, CalibratedClassifier | StackedClassifier):
        return logit(native(part, X))
    return logit(0.005 + 0.99 * native(part, X))


def test_every_classifier_scores_as_it_was_fitted(fitted):
    estimator, recipe = fitted
    saved = Saved(weights_to_bytes(estimator))
    assert saved._covered
    counts, _ = made_up(recipe, 150, seed=1)
    scores = saved.predict_proba(counts)[:, 1]
    np.testing.assert_allclose(scores, native(estimator, counts), rtol=0, atol=1e-6)
    assert np.ptp(scores) > 0.1
    # What is certified in memory is what a triage says later, to the last bit.
    np.testing.assert_array_equal(scores, scoring.positive(estimator, counts))
    np.testing.assert_array_equal(scores, scoring.positive(saved.fitted, counts))


def test_a_score_does_not_depend_on_the_other_images(fitted):
    estimator, recipe = fitted
    if any(name.endswith("reduce") for name in estimator.get_params()):
        pytest.skip("the components of scikit-learn are one matrix product")
    counts, _ = made_up(recipe, 70, seed=2)
    saved = Saved(weights_to_bytes(estimator))
    together = saved.predict_proba(counts)
    for at in (0, 33, 69):
        np.testing.assert_array_equal(saved.predict_proba(counts[at : at + 1])[0], together[at])


@pytest.mark.parametrize("name", ["svm", "stack"])
@pytest.mark.parametrize("kind", ["one", "bands"])
def test_adapted_models_score_as_they_were_fitted(name, kind):
    recipe = RECIPES[kind]
    counts, sick = made_up(recipe, 60)
    adapted = AdaptedClassifier.around(few(name, recipe).fit(counts, sick), recipe, counts)
    features, logits = adapted.inputs(counts)
    adapted.set_linear(fit_linear(features, logits, sick.astype(bool), "mixture"))
    again, _ = made_up(recipe, 20, seed=3)
    own = logit(np.clip(native(adapted.estimator, again), 1e-6, 1 - 1e-6))
    steps = adapted.features or adapted.estimator[:-1]
    seen = steps.transform(again)
    if kind == "bands":
        seen = np.mean(np.split(seen, 2, axis=1), axis=0)
    wanted = expit(seen @ adapted.coef_ + adapted.slope_ * own + adapted.intercept_)
    saved = Saved(weights_to_bytes(adapted))
    assert saved._covered
    np.testing.assert_allclose(saved.predict_proba(again)[:, 1], wanted, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(saved.predict_proba(again), saved.fitted.predict_proba(again))


# --- trees against their own libraries


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12)).round(1).astype(np.float32)  # many values lie on a threshold
    return X, (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(0, 0.5, n) > 0).astype(int)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 300])
def test_forests_are_scikit_learns_to_the_last_bit(n):
    forest = RandomForestClassifier(37, random_state=0).fit(*table(400))
    X, _ = table(n, seed=1)
    np.testing.assert_array_equal(scoring.positive(forest, X), forest.predict_proba(X)[:, 1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_depth": 1},
        {"tree_method": "exact", "gamma": 4},
        {"grow_policy": "lossguide", "max_leaves": 5},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"scale_pos_weight": 2.0, "base_score": 0.3},
        {"early_stopping_rounds": 2, "eval_metric": "logloss", "learning_rate": 1.0},
    ],
    ids=str,
)
def test_boosted_trees_are_xgboosts(settings):
    X, y = table(300)
    evaluated = {"eval_set": [table(100, seed=5)], "verbose": False}
    boosted = XGBClassifier(n_estimators=30, n_jobs=1, **settings).fit(X, y, **evaluated)
    new, _ = table(500, seed=1)
    margins = boosted.predict(new, output_margin=True)
    found = trees.boosted_trees(json.loads(bytes(boosted.get_booster().save_raw("json"))))
    np.testing.assert_array_equal(found.sums(new), margins)
    np.testing.assert_allclose(
        scoring.positive(boosted, new), boosted.predict_proba(new)[:, 1], rtol=2e-7, atol=0
    )
    if "early_stopping_rounds" in settings:
        assert len(found) < boosted.get_booster().num_boosted_rounds()


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbours_are_scikit_learns(metric, weights):
    X, y = table(200)
    knn = KNeighborsClassifier(7, weights=weights, metric=metric, algorithm="brute")
    knn.fit(X.astype(float) + np.random.default_rng(1).normal(0, 1e-3, X.shape), y)
    new = np.concatenate([table(40, seed=1)[0].astype(float), knn._fit_X[:5]])  # some are points themselves
    np.testing.assert_allclose(scoring.positive(knn, new), knn.predict_proba(new)[:, 1], rtol=0, atol=1e-6)


# --- what is not scored here, and how a model goes on


def test_other_estimators_score_themselves(make_model, study):
    assert not scoring.covers(make_model(ExtraTreesClassifier(5)).estimator)
    assert not scoring.covers(KNeighborsClassifier(metric="cosine"))
    model = make_model(KNeighborsClassifier(5, metric="chebyshev", algorithm="brute"))
    saved = Saved(weights_to_bytes(model.estimator))
    assert not saved._covered
    wanted = model.estimator.predict_proba(study[0])
    np.testing.assert_array_equal(saved.predict_proba(study[0])[:, 1], wanted[:, 1])


def test_a_loaded_model_keeps_its_files_and_hash(saved, study):
    loaded = load_model(saved)
    assert pack_model(loaded)["estimator.skops"] == (saved / "estimator.skops").read_bytes()
    hash_, scores = loaded.hash, loaded.score(study[0])
    assert isinstance(loaded.estimator, Pipeline)
    assert loaded.hash == hash_ == model_hash(loaded)
    assert dataclasses.replace(loaded).hash == hash_
    assert not dataclasses.replace(loaded, name="other").hash
    again = pickle.loads(pickle.dumps(loaded))  # noqa: S301 - our own
    np.testing.assert_array_equal(again.score(study[0]), scores)
    assert again.hash == hash_


def test_a_triage_imports_no_more_than_it_needs(tmp_path):
    write_image(tmp_path / "one.png", make_phantom(3).image)
    code = (
        "import sys\nfrom histcxr.commands import main\n"
        "try: main(['triage', sys.argv[1], '-o', sys.argv[2]])\nexcept SystemExit: pass\n"
        "print(sorted({'sklearn', 'xgboost', 'scipy.stats', 'scipy.optimize', 'pandas', 'skops', 'joblib', 'pyarrow',"
        " 'matplotlib', 'keras'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "one.png"), str(tmp_path / "w.csv")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert (tmp_path / "w.csv").exists()


# --- damage that scikit-learn and XGBoost would find themselves


def changed(files, edit):
    """Edit the schema and the arrays of a model's weights."""
    with zipfile.ZipFile(io.BytesIO(files["estimator.skops"])) as archive:
        schema = json.loads(archive.read("schema.json"))
        arrays = {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()[1:]}
    edit(schema, arrays)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.save(raw, array)
            archive.writestr(name, raw.getvalue())
    return {**files, "estimator.skops": out.getvalue()}


def first(arrays, wanted):
    return next(name for name, array in arrays.items() if wanted(array))


def test_trees_of_other_types_are_refused(forest_model):
    files = weights_to_bytes(forest_model.estimator)

    def as_floats(_, arrays):
        name = first(arrays, lambda array: array.dtype.names)
        kinds = [(field, "<f8") for field in arrays[name].dtype.names]
        arrays[name] = arrays[name].astype(kinds)

    def fewer_values(_, arrays):
        name = first(arrays, lambda array: array.ndim == 3)
        arrays[name] = arrays[name][:-1]

    for edit in (as_floats, fewer_values):
        with pytest.raises(ModelError, match=r"estimator\.skops: cannot be loaded .*a tree whose"):
            Saved(changed(files, edit))


def test_features_that_are_not_there_are_refused(forest_model, study, tmp_path, forge):
    """A forest for more features than it is given would read those of the next image."""

    def widen(schema, _):
        stack = [schema]
        while stack:
            item = stack.pop()
            if isinstance(item, dict):
                if item.get("__class__") == "RandomForestClassifier":
                    item["content"]["content"]["n_features_in_"]["content"] = "17"
                stack.extend(item.values())
            elif isinstance(item, list):
                stack.extend(item)

    files = changed(weights_to_bytes(forest_model.estimator), widen)
    saved = Saved(files)
    with pytest.raises(InputError, match="must have 17 features an image"):
        saved.predict_proba(study[0])
    folder = save_model(forest_model, tmp_path / "m")
    with pytest.raises(ModelError, match="cannot score .*17 features"):
        load_model(forge(folder, estimator_skops=files["estimator.skops"]))


def test_chains_of_nodes_are_refused(monkeypatch):
    n = 50
    here = np.arange(n)
    left = np.where(here % 2, -1, here + 1)
    right = np.where(here % 2, -1, here + 2)
    left[n - 2 :] = right[n - 2 :] = -1
    chain = trees.Nodes(left, right, 0 * here, np.zeros(n, np.float32), np.ones(n))
    assert len(trees.Trees([chain], 1)) == 1
    monkeypatch.setattr(trees, "_MOST_DEPTH", 20)
    with pytest.raises(ModelError, match="more than 20 levels"):
        trees.Trees([chain], 1)


@pytest.mark.parametrize(
    ("score", "problem"), [("0", "which is no probability"), ("[nope]", "could not convert")]
)
def test_boosters_without_a_base_are_refused(model, score, problem):
    files = weights_to_bytes(model.estimator)
    document = json.loads(gzip.decompress(files["booster-0.json.gz"]))
    document["learner"]["learner_model_param"]["base_score"] = score
    damaged = {**files, "booster-0.json.gz": gzip.compress(json.dumps(document).encode())}
    with pytest.raises(ModelError, match=rf"cannot be loaded .*({problem})"):
        Saved(damaged)


def test_thresholds_lie_where_triage_scores(tmp_path):
    """Scores at a threshold: what was certified in memory decides alike after loading."""
    counts, sick = made_up(RECIPES["zones"], 80)
    estimator = few("xgboost", RECIPES["zones"]).fit(counts, sick)
    bare = Model("xgboost", estimator, RECIPES["zones"], *certify(np.empty(0), np.empty(0, bool), None))
    scores = bare.score(counts)
    certified = certify(np.repeat(scores, 4), np.repeat(sick == 1, 4), None)
    model = Model("xgboost", estimator, RECIPES["zones"], *certified)
    loaded = load_model(save_model(model, tmp_path / "m"))
    limits = [choice.threshold for choice in certified if choice.certified]
    assert set(limits) <= set(scores)  # patients lie exactly on them
    np.testing.assert_array_equal(loaded.score(counts), scores)
    np.testing.assert_array_equal(loaded.drawers(loaded.score(counts)), model.drawers(scores))


def test_pipelines_of_pipelines_are_gone_through(study):
    counts, sick = study
    inner = few("svm", Recipe(2)).fit(counts, sick)
    outer = make_pipeline(inner)
    assert scoring.covers(outer)
    np.testing.assert_array_equal(scoring.positive(outer, counts), scoring.positive(inner, counts))


def test_the_lenet_scores_without_scikit_learn():
    graph = LeNetGraph(16, 2, (3,), (5,), (4,), (0.0,), (6,), (0.0, 0.0))
    lenet, rng = LeNetClassifier(zones=2, bin_width=16), np.random.default_rng(0)
    lenet.graph_ = dataclasses.asdict(graph)
    lenet.n_zones_, lenet.n_bins_, lenet.n_features_in_, lenet.classes_ = 2, 256, 512, np.array([0, 1])
    lenet.members_ = [
        {name: rng.normal(0, 0.3, shape).astype(np.float32) ** 2 for name, shape in graph.shapes().items()}
    ]
    counts, _ = made_up(Recipe(2), 30)
    saved = Saved(weights_to_bytes(lenet))
    assert saved._covered
    np.testing.assert_array_equal(saved.predict_proba(counts), lenet.predict_proba(counts))
    assert np.ptp(saved.predict_proba(counts)) > 0
