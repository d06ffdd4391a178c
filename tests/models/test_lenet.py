import copy
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.scoring import network_input

keras = pytest.importorskip("keras")
pytest.importorskip("onnxruntime")

SMALL = {
    "filters": (4, 8),
    "kernel_size": 5,
    "dense": (8,),
    "dense_dropout": 0.1,
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 0.01,
    "random_state": 0,
}


def study(seed=0, n=240, zones=2):
    """Histograms of two classes that differ in the last zone's mean; two images a patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // 2), 2)
    sick = (patients % 2).astype(bool)
    centre = np.full((n, zones), 110.0) + rng.normal(0, 3, (n, zones))
    centre[:, -1] += 20 * sick
    pixels = rng.normal(centre[:, :, None], 25, (n, zones, 800)).clip(0, 255).astype(int)
    counts = np.stack([[np.bincount(row, minlength=256) for row in image] for image in pixels])
    return counts, np.where(sick, "sick", "normal"), patients


@pytest.fixture(scope="module")
def data():
    return study()


@pytest.fixture(scope="module")
def fitted(data):
    counts, labels, patients = data
    return LeNetClassifier(**SMALL, n_seeds=2).fit(counts, labels, groups=patients)


def test_it_learns_what_there_is_to_learn(fitted):
    counts, labels, _ = study(seed=1, n=100)
    scores = fitted.predict_proba(counts)
    assert scores.shape == (100, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert roc_auc_score(labels == "sick", scores[:, 1]) > 0.97
    np.testing.assert_array_equal(fitted.classes_, ["normal", "sick"])
    np.testing.assert_array_equal(fitted.predict(counts), np.where(scores[:, 1] >= 0.5, "sick", "normal"))


def test_onnx_runtime_scores_as_keras_does(fitted, data):
    counts = data[0]
    inputs = network_input(fitted, fitted._flatten(counts, reset=False)).transpose(0, 2, 1)
    by_keras = keras.ops.convert_to_numpy(fitted.to_keras()(inputs))[:, 0]
    by_onnx = fitted.predict_proba(counts)[:, 1]
    assert np.ptp(by_keras) > 0.5
    np.testing.assert_allclose(by_onnx, by_keras, atol=1e-5, rtol=0)


def test_the_keras_file_holds_the_same_network(fitted, data, tmp_path):
    counts = data[0][:20]
    fitted.to_keras().save(tmp_path / "lenet.keras")
    inputs = network_input(fitted, fitted._flatten(counts, reset=False)).transpose(0, 2, 1)
    scores = keras.saving.load_model(tmp_path / "lenet.keras").predict(inputs, verbose=0)[:, 0]
    np.testing.assert_allclose(scores, fitted.predict_proba(counts)[:, 1], atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_weights_and_no_global_generator_moves(fitted, data):
    counts, labels, patients = data
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = clone(fitted).fit(counts, labels, groups=patients)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    for one, other in zip(fitted.members_, again.members_, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(fitted.predict_proba(counts), again.predict_proba(counts))
    assert again.to_onnx() == fitted.to_onnx()


def test_several_seeds_differ_and_their_mean_is_the_score(fitted, data):
    counts, labels, patients = data
    assert not np.array_equal(fitted.members_[0]["output/kernel"], fitted.members_[1]["output/kernel"])
    single = clone(fitted).set_params(n_seeds=1).fit(counts, labels, groups=patients)
    np.testing.assert_array_equal(single.members_[0]["output/kernel"], fitted.members_[0]["output/kernel"])
    second = copy.copy(single)
    second.members_ = fitted.members_[1:]
    mean = (single.predict_proba(counts) + second.predict_proba(counts)) / 2
    np.testing.assert_allclose(fitted.predict_proba(counts), mean, atol=1e-6)


def test_copies_and_stored_models_score_the_same(fitted, data):
    counts = data[0][:30]
    scores = fitted.predict_proba(counts)
    sio = pytest.importorskip("skops.io")
    stored = sio.dumps(fitted)
    kinds = sio.get_untrusted_types(data=stored)
    assert kinds == ["histcxr.models.lenet.LeNetClassifier"]
    for copied in (
        copy.deepcopy(fitted),
        pickle.loads(pickle.dumps(fitted)),  # noqa: S301
        sio.loads(stored, trusted=kinds),
    ):
        np.testing.assert_array_equal(copied.predict_proba(counts), scores)
        assert copied.history_ == fitted.history_


def test_a_score_does_not_depend_on_the_batch(fitted, data):
    counts = data[0][:40]
    together = fitted.predict_proba(counts)
    np.testing.assert_array_equal(np.concatenate([fitted.predict_proba(c[None]) for c in counts]), together)
    np.testing.assert_array_equal(fitted.predict_proba(counts[::-1])[::-1], together)


def test_weights_that_do_not_fit_the_graph_are_refused(fitted, data):
    wrong = copy.deepcopy(fitted)
    wrong.members_[1]["conv2/kernel"] = wrong.members_[1]["conv2/kernel"][:-1]
    with pytest.raises(InputError, match=r"conv2/kernel has shape \(4, 4, 8\), not \(5, 4, 8\)"):
        wrong.predict(data[0])
    wrong = copy.deepcopy(fitted)
    del wrong.members_[0]["norm1/gamma"]
    with pytest.raises(InputError, match="norm1/gamma is missing"):
        wrong.predict(data[0])


def test_flat_and_three_dimensional_counts_are_one(fitted, data):
    counts = data[0][:10]
    flat = counts.reshape(10, -1)
    np.testing.assert_array_equal(fitted.predict_proba(flat), fitted.predict_proba(counts))
    assert (fitted.n_features_in_, fitted.n_zones_, fitted.n_bins_) == (512, 2, 256)
    with pytest.raises(InputError, match="2 histograms an image"):
        fitted.predict_proba(np.ones((3, 4, 128)))
    with pytest.raises(ValueError, match="512 features"):
        fitted.predict_proba(np.ones((3, 256)))


def test_learning_curves_are_kept_and_the_best_epoch_won(fitted):
    assert len(fitted.history_) == len(fitted.best_epochs_) == 2
    for history, best in zip(fitted.history_, fitted.best_epochs_, strict=True):
        assert set(history) == {
            *("loss", "accuracy", "learning_rate"),
            *("val_loss", "val_accuracy", "val_auc"),
        }
        assert len({len(curve) for curve in history.values()}) == 1
        assert best == int(np.argmin(history["val_loss"]))
        assert history["loss"][-1] < history["loss"][0]


def test_cross_validation_in_a_pipeline_with_patients(data):
    counts, labels, patients = data
    network = LeNetClassifier(**SMALL | {"epochs": 6}, zones=2)
    model = make_pipeline(FunctionTransformer(), network)
    scores = cross_val_score(
        model,
        counts.reshape(len(counts), -1),
        labels,
        groups=patients,
        cv=StratifiedGroupKFold(2),
        scoring="roc_auc",
    )
    assert scores.min() > 0.9
    model.fit(counts, labels, lenetclassifier__groups=patients)
    assert copy.deepcopy(model).predict(counts[:3]).shape == (3,)


def test_class_weights_move_the_scores(data):
    counts, labels, _ = data
    few = np.flatnonzero((labels == "normal") | (np.arange(len(labels)) % 8 == 3))
    settings = SMALL | {"epochs": 6, "validation_fraction": 0}
    plain = LeNetClassifier(**settings).fit(counts[few], labels[few])
    heavy = LeNetClassifier(**settings, class_weight={"sick": 50.0, "normal": 1.0}).fit(
        counts[few], labels[few]
    )
    assert heavy.predict_proba(counts)[:, 1].mean() > plain.predict_proba(counts)[:, 1].mean() + 0.03
    assert "val_loss" not in plain.history_[0]
    assert plain.best_epochs_ == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_seeds": 0}, "n_seeds must be a whole number of at least 1, got 0"),
        ({"filters": ()}, "filters must name at least one"),
        ({"filters": (4, 0)}, "filters must be integers of at least 1"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be one number, or 2"),
        ({"dense_dropout": 1.0}, "dense_dropout must be at least 0 and below 1"),
        ({"activation": "gelu"}, "activation must be one of relu, tanh; got 'gelu'"),
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"representation": "raw"}, "representation must be one of"),
        ({"scale": "best"}, "scale must be 'raw' or 'own'"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"label_smoothing": 1}, "label_smoothing must be"),
        ({"zones": 3}, "3 histograms an image"),
        ({"zones": "1+6"}, "7 histograms an image"),
        ({"zones": 0}, "zones must be a number"),
    ],
)
def test_wrong_parameters_are_named(data, change, message):
    counts, labels, _ = data
    with pytest.raises(InputError, match=message):
        LeNetClassifier(**SMALL | change).fit(counts, labels)


def test_wrong_data_are_refused(data):
    counts, labels, patients = data
    model = LeNetClassifier(**SMALL)
    with pytest.raises(InputError, match="counts in every image; image 4 has none"):
        model.fit(np.where(np.arange(len(counts))[:, None, None] == 4, 0, counts), labels)
    with pytest.raises(ValueError, match="Negative values"):
        model.fit(-counts, labels)
    with pytest.raises(InputError, match="two classes; got one class"):
        model.fit(counts, np.zeros(len(counts)))
    with pytest.raises(InputError, match="Only binary classification"):
        model.fit(counts, patients % 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(counts, labels, groups=patients[:-1])


@pytest.mark.parametrize("package", ["keras", "onnxruntime"])
def test_a_missing_package_is_named_with_what_to_install(fitted, data, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    counts, labels, _ = data
    work = {
        "keras": lambda: clone(fitted).fit(counts, labels),
        "onnxruntime": lambda: copy.copy(fitted).predict(counts),
    }
    with pytest.raises(MissingDependencyError, match=rf"{package} is needed.*pip install '\.\[neural\]'"):
        work[package]()


def test_joined_bins_are_those_of_a_coarser_histogram(data):
    counts, labels, patients = data
    settings = {**SMALL, "epochs": 2, "shift": 0, "gamma": 0, "contrast": 0}
    joined = LeNetClassifier(**settings, bin_width=4).fit(counts, labels, groups=patients)
    coarse = counts.reshape(*counts.shape[:2], 64, 4).sum(axis=3)
    plain = LeNetClassifier(**settings).fit(coarse, labels, groups=patients)
    assert joined.graph_ == plain.graph_
    np.testing.assert_array_equal(joined.predict_proba(counts), plain.predict_proba(coarse))
    for width, message in (
        (0, "at least 1"),
        (3, "divide the 256 bins; got 3"),
        (512, "divide"),
        (2.0, "whole"),
    ):
        with pytest.raises(InputError, match=f"bin_width must .*{message}"):
            LeNetClassifier(**settings, bin_width=width).fit(counts, labels)


# A row of zeros is an image without a counted pixel, which is refused; these checks make such rows, or
# forget that an estimator may ask for numbers that are not negative.
EXPECTED = {
    "check_estimators_dtypes": "holds images without a single count",
    "check_fit2d_1feature": "holds images without a single count",
    "check_class_weight_classifiers": "ignores the tag positive_only",
}


@parametrize_with_checks(
    [
        LeNetClassifier(
            filters=(8,),
            batch_norm=False,
            kernel_size=3,
            dense=(16,),
            dense_dropout=0,
            epochs=12,
            batch_size=32,
            learning_rate=0.03,
            shift=0,
            gamma=0,
            contrast=0,
            validation_fraction=0,
            random_state=0,
        )
    ],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


CODE = """
import sys
import numpy as np
sys.modules["keras"] = sys.modules["tensorflow"] = sys.modules["onnx"] = None
import pickle
model = pickle.loads(open(sys.argv[1], "rb").read())
np.save(sys.argv[2], model.predict_proba(np.load(sys.argv[3])))
"""


def test_importing_the_classifier_imports_no_network_package():
    code = (
        "import sys, histcxr.models.lenet, histcxr.models.tuning; "
        "print([m for m in ('keras', 'tensorflow', 'onnx', 'onnxruntime', 'keras_tuner') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_loaded_model_scores_without_keras_tensorflow_or_onnx(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (40, 1, 64))
    model = LeNetClassifier(filters=(2,), kernel_size=3, dense=(4,), epochs=2, random_state=0)
    model.fit(counts, np.arange(40) % 2)
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "counts.npy", counts)
    arguments = [str(tmp_path / name) for name in ("model", "scores.npy", "counts.npy")]
    subprocess.run([sys.executable, "-c", CODE, *arguments], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), model.predict_proba(counts))
