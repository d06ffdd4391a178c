import copy
import gc
import pickle
import random
import sys
import weakref

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from histcxr.exceptions import HistcxrError, InputError, MissingDependencyError
from histcxr.networks import fit, training
from histcxr.reference.architectures import ARCHITECTURES, HeadOptions, build_architecture
from histcxr.reference.augmentation import Augmentation, seen_again
from histcxr.reference.backbones import backbone_of
from histcxr.reference.classifier import ReferenceClassifier, get_weights
from histcxr.reference.images import InputSettings
from histcxr.reference.small_networks import ConvOptions
from histcxr.store.weights import weights_from_bytes, weights_to_bytes

keras = pytest.importorskip("keras")

TINY = ConvOptions(filters=(4, 8))
SIDE = 16


def chests(n_patients, seed, classes=2):
    """Images (n, 16, 16), classes (n,) and patients (n,), two images each; a bright patch shows the class."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 2)
    target = patients % classes
    images = rng.normal(90, 25, (len(target), SIDE, SIDE))
    for kind in range(1, classes):
        corner = 9 if kind == 1 else 2
        images[target == kind, corner : corner + 5, 3:12] += 40
    return images.clip(0, 255).astype(np.uint8), target, patients


def tiny(**settings):
    common = {"options": TINY, "epochs": 8, "batch_size": 8, "learning_rate": 1e-2, "patience": 8}
    return ReferenceClassifier(**({"architecture": "cnn4"} | common | settings))


@pytest.fixture(scope="module")
def study():
    return chests(40, seed=0)


@pytest.fixture(scope="module")
def others():
    return chests(50, seed=1)


@pytest.fixture(scope="module")
def fitted(study):
    images, target, patients = study
    classifier = tiny(augmentation=Augmentation(translation=0.05, rotation=5), class_weight="balanced")
    return classifier.fit(images, target == 1, groups=patients)


def test_learns_a_plain_task(fitted, others):
    images, target, _ = others
    scores = fitted.predict_proba(images)
    assert roc_auc_score(target, scores[:, 1]) > 0.95
    assert scores.shape == (len(images), 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.classes_, [False, True])
    np.testing.assert_array_equal(fitted.predict(images), scores[:, 1] > scores[:, 0])
    assert fitted.n_features_in_ == SIDE * SIDE


def test_curves_tell_of_the_weights_that_were_kept(fitted, study):
    images, target, _ = study
    curves, best = fitted.history_, fitted.best_epoch_
    assert {len(values) for values in curves.values()} == {8}
    assert best == np.argmin(curves["val_loss"])
    rows = fitted.validation_rows_
    scores, truth = fitted.predict_proba(images[rows]), target[rows]
    likelihood = scores[np.arange(len(rows)), truth]
    share = np.bincount(target) / len(target)
    expected = np.average(-np.log(likelihood), weights=1 / share[truth])
    assert curves["val_loss"][best] == pytest.approx(expected, abs=1e-5)
    assert curves["val_accuracy"][best] == np.mean(scores.argmax(axis=1) == truth)
    assert curves["val_auc"][best] == pytest.approx(roc_auc_score(truth, scores[:, 1]))
    expected = 0.01 * 0.5 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(curves["learning_rate"], expected, rtol=1e-5)


def test_class_weights_count_in_training(study):
    images, target, _ = study
    names = np.where(target == 1, "sick", "normal")
    how = {"epochs": 1, "batch_size": 80, "learning_rate": 1e-9, "validation_fraction": 0}
    plain = tiny(**how).fit(images, names)
    weighted = tiny(class_weight={"normal": 0.5, "sick": 5.0}, **how).fit(images, names)
    # At so low a rate the network stays as it began, the same for both.
    losses = -np.log(plain.predict_proba(images)[np.arange(80), target])
    assert plain.history_["loss"][0] == pytest.approx(losses.mean(), abs=1e-5)
    expected = np.mean(losses * np.where(target == 1, 5.0, 0.5))
    assert weighted.history_["loss"][0] == pytest.approx(expected, abs=1e-4)


def test_no_patient_is_on_both_sides(fitted, study):
    _, target, patients = study
    held = fitted.validation_rows_
    rest = np.setdiff1d(np.arange(len(target)), held)
    assert not set(patients[held]) & set(patients[rest])
    assert len(held) == pytest.approx(0.2 * len(target), abs=2)


def test_augments_what_is_learned_from_and_nothing_else(study, monkeypatch):
    images, target, patients = study
    number = {image.tobytes(): row for row, image in enumerate(images)}
    changed, judged = set(), []
    apply, scores = Augmentation.apply, training.class_scores

    def spy(self, image, rng):
        changed.add(number[image.tobytes()])
        return apply(self, image, rng)

    def judge(model, batch):
        judged.append([number[image.tobytes()] for image in batch[..., 0]])  # a KeyError if one was augmented
        return scores(model, batch)

    monkeypatch.setattr(Augmentation, "apply", spy)
    monkeypatch.setattr(training, "class_scores", judge)
    classifier = tiny(epochs=2, augmentation=Augmentation()).fit(images, target, groups=patients)
    held = set(classifier.validation_rows_)
    assert changed == set(range(len(images))) - held
    assert [set(rows) for rows in judged] == [held, held]


def test_equal_seeds_give_equal_scores(study, others, fitted):
    images, target, patients = study
    again = clone(fitted).fit(images, target == 1, groups=patients)
    np.testing.assert_array_equal(again.predict_proba(others[0]), fitted.predict_proba(others[0]))
    assert again.history_["val_loss"] == fitted.history_["val_loss"]
    other = clone(fitted).set_params(random_state=1, epochs=1).fit(images, target == 1, groups=patients)
    assert (other.predict_proba(others[0]) != fitted.predict_proba(others[0])).any()


def test_global_generators_are_left_alone(study):
    images, target, _ = study
    python, numpy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    tiny(epochs=1).fit(images, target)
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002


def test_neighbours_and_batches_do_not_change_scores(fitted, others, monkeypatch):
    images = others[0][:21]
    together = fitted.predict_proba(images)
    alone = np.concatenate([fitted.predict_proba(image[None]) for image in images[:5]])
    np.testing.assert_allclose(alone, together[:5], atol=1e-5)
    monkeypatch.setattr(fit, "_JUDGED_ROWS", 6)
    np.testing.assert_allclose(fitted.predict_proba(images), together, atol=1e-5)


def test_three_classes(others):
    images, target, patients = chests(48, seed=3, classes=3)
    names = np.array(["Normal", "COVID", "Viral"])[target]
    classifier = tiny(epochs=8, random_state=4).fit(images, names, groups=patients)
    assert list(classifier.classes_) == ["COVID", "Normal", "Viral"]
    new, truth, _ = chests(30, seed=4, classes=3)
    scores = classifier.predict_proba(new)
    assert scores.shape == (60, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert np.mean(classifier.predict(new) == np.array(["Normal", "COVID", "Viral"])[truth]) > 0.8
    assert np.isfinite(classifier.history_["val_auc"]).all()


def test_named_validation_is_what_is_held_out(study):
    images, target, patients = study
    held = patients < 10
    classifier = tiny(epochs=1).fit(images, target, groups=patients, validation=held)
    np.testing.assert_array_equal(classifier.validation_rows_, np.flatnonzero(held))
    for wrong, message in (
        (np.arange(80) % 8 % 6 == 0, "validation must not divide a patient; 20 have images on both sides"),
        (held & (target == 1), "the validation part must hold every class; got 1 of 2"),
        (held.astype(int), "validation must be an array of bool"),
    ):
        with pytest.raises(InputError, match=message):
            tiny().fit(images, target, groups=patients, validation=wrong)


def test_without_validation_all_epochs_are_run_on_everything(study):
    images, target, _ = study
    seen = []
    classifier = tiny(epochs=3, patience=1, validation_fraction=0, schedule=None)
    classifier.fit(images, target, on_epoch=seen.append)
    assert classifier.validation_rows_ is None
    assert classifier.best_epoch_ == 2
    assert [epoch["epoch"] for epoch in seen] == [1, 2, 3]
    assert set(classifier.history_) == {"stage", "learning_rate", "loss", "accuracy", "seconds"}
    np.testing.assert_allclose(classifier.history_["learning_rate"], 0.01)


@pytest.mark.parametrize(
    ("architecture", "given", "used"), [("cnn3", None, 3), ("cnn3", 7, 7), ("cnn4", None, None)]
)
def test_patience_is_the_architectures_unless_given(monkeypatch, study, architecture, given, used):
    images, target, patients = study

    class SeenError(Exception):
        pass

    def stop(model, data, stages, **_):
        raise SeenError(stages[0].patience)

    monkeypatch.setattr("histcxr.reference.classifier.train_classes", stop)
    with pytest.raises(SeenError) as seen:
        ReferenceClassifier(architecture, patience=given).fit(images, target, groups=patients)
    assert seen.value.args == (used,)


def test_a_lost_loss_says_what_to_do(study):
    images, target, _ = study
    with pytest.raises(
        HistcxrError, match="the loss became nan in epoch 1; give a learning_rate below 1e\\+30"
    ):
        tiny(learning_rate=1e30, epochs=3).fit(images, target)


def test_weight_decay_and_small_batches(study):
    images, target, _ = study
    classifier = tiny(epochs=2, weight_decay=0.1, batch_size=1000).fit(images, target)
    plain = tiny(epochs=2, batch_size=1000).fit(images, target)
    size = [np.abs(c.weights_["0000/kernel"]).sum() for c in (classifier, plain)]
    assert size[0] < size[1]


def test_scikit_learn_sees_an_estimator(fitted, study):
    assert clone(fitted).get_params() == fitted.get_params()
    assert clone(fitted).set_params(epochs=3).epochs == 3
    assert fitted.__sklearn_tags__().input_tags.three_d_array
    with pytest.raises(NotFittedError):
        tiny().predict_proba(study[0])


def test_copies_score_alike(fitted, others):
    expected = fitted.predict_proba(others[0])
    for copied in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):  # noqa: S301
        np.testing.assert_array_equal(copied.predict_proba(others[0]), expected)


def test_the_keras_model_is_one_of_its_own(fitted, others):
    model = fitted.to_keras()
    images = others[0][:8]
    expected = fitted.predict_proba(images)
    np.testing.assert_allclose(model.predict_on_batch(images[..., None])[:, 0], expected[:, 1], atol=1e-6)
    model.set_weights([0 * weight for weight in model.get_weights()])
    np.testing.assert_array_equal(fitted.predict_proba(images), expected)


def test_lets_the_images_go(study):
    images, target, patients = (part.copy() for part in study)
    held = weakref.ref(images)
    classifier = tiny(epochs=2).fit(images, target, groups=patients)
    del images
    gc.collect()
    assert held() is None
    assert classifier.best_epoch_ >= 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "alexnet"}, "architecture must be one of cnn4"),
        ({"size": 32}, r"X must have images of 32 x 32 pixels, as size says; got shape \(80, 16, 16\)"),
        ({"inputs": InputSettings(24)}, "as the size of inputs says"),
        ({"inputs": "lungs"}, "inputs must be InputSettings or None"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"patience": 1.5}, "patience must be a whole number"),
        ({"learning_rate": -1}, "learning_rate must be a number above 0"),
        ({"second_stage_learning_rate": 1e-4}, "second_stage_learning_rate is of use with the weights"),
        ({"schedule": "steps"}, "schedule must be 'cosine', 'warmup', 'plateau' or None"),
        ({"schedule": "plateau", "patience": None}, "schedule='plateau' takes a patience"),
        ({"schedule": "plateau", "validation_fraction": 0}, "schedule='plateau' takes held-out images"),
        ({"augmentation": "all"}, "augmentation must be an Augmentation, 'published' or None; got 'all'"),
        ({"validation_fraction": 0.6}, "validation_fraction must be between 0 and 0.5"),
        (
            {"validation_fraction": 0.01},
            "100 folds take at least 100 patients of each class; class .* has 20",
        ),
        ({"head": HeadOptions(dense=(3,))}, "cnn4 has dense layers of its own"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
    ],
)
def test_wrong_parameters_are_named(study, settings, message):
    images, target, patients = study
    with pytest.raises(InputError, match=message):
        tiny(**settings).fit(images, target, groups=patients)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 16, 16)), [0, 1, 0, 1], "X must be uint8 grey levels .* got float64"),
        (np.zeros((4, 16, 16, 1), np.uint8), [0, 1, 0, 1], r"X must be uint8 .*\(4, 16, 16, 1\)"),
        (np.zeros((0, 16, 16), np.uint8), [], "X must be uint8"),
        (np.zeros((4, 16, 20), np.uint8), [0, 1, 0, 1], "X must have square images"),
        (np.zeros((4, 16, 16), np.uint8), [1, 1, 1, 1], "y must hold two classes or more; got one class: "),
        (np.zeros((4, 16, 16), np.uint8), None, "requires y to be passed"),
    ],
)
def test_wrong_data_are_named(X, y, message):
    with pytest.raises(InputError, match=message):
        tiny().fit(X, y)


def test_other_sizes_are_refused_at_prediction(fitted):
    with pytest.raises(InputError, match="X must have images of 16 x 16 pixels, as in fit"):
        fitted.predict_proba(np.zeros((2, 20, 20), np.uint8))


def test_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[neural\]'"):
        tiny().fit(study[0], study[1])


def test_fine_tuning_has_two_stages_and_trains_what_it_says(tmp_path):
    images, target, _ = chests(8, seed=5)
    images = images.repeat(2, axis=1).repeat(2, axis=2)
    start = backbone_of(build_architecture("vgg16", size=32, seed=9))
    start.save_weights(tmp_path / "start.weights.h5")
    classifier = ReferenceClassifier(
        "vgg16",
        weights=tmp_path / "start.weights.h5",
        unfrozen=2,
        epochs=1,
        batch_size=8,
        head=HeadOptions(dense=(4,)),
        learning_rate=1e-4,
        validation_fraction=0,
    ).fit(images, target)
    assert classifier.history_["stage"] == [1, 2]
    np.testing.assert_allclose(classifier.history_["learning_rate"], [1e-4, 1e-5])
    # The last two layers are a convolution and its pooling.
    before = get_weights(start)
    changed = [name for name, value in before.items() if (value != classifier.weights_[name]).any()]
    assert changed == list(before)[-2:]
    again = weights_from_bytes(weights_to_bytes(classifier))
    np.testing.assert_allclose(again.predict_proba(images), classifier.predict_proba(images), atol=1e-6)


def test_frozen_or_from_scratch_is_one_stage():
    for settings in ({"weights": None, "unfrozen": "all"}, {"weights": "imagenet", "unfrozen": 0}):
        stages = ReferenceClassifier("vgg16", **settings)._stages(ARCHITECTURES["vgg16"])
        assert [options.learning_rate for options in stages] == [1e-3]
    two = ReferenceClassifier("vgg16", weights="imagenet", unfrozen="all", second_stage_learning_rate=1e-6)
    assert [options.learning_rate for options in two._stages(ARCHITECTURES["vgg16"])] == [1e-3, 1e-6]


def test_saved_and_loaded_scores_are_equal(fitted, others):
    inputs = InputSettings(SIDE, "hidden", equalise=True)
    marked = copy.deepcopy(fitted).set_params(
        inputs=inputs, class_weight={0: 1.0, 1: 2.0}, augmentation=Augmentation(), random_state=0
    )
    marked.classes_ = np.arange(2)
    files = weights_to_bytes(marked)
    loaded = weights_from_bytes(files)
    np.testing.assert_array_equal(loaded.predict_proba(others[0]), fitted.predict_proba(others[0]))
    assert loaded.get_params() == marked.get_params()
    assert (loaded.history_, loaded.best_epoch_) == (fitted.history_, fitted.best_epoch_)
    assert fitted.validation_rows_ is not None
    assert loaded.validation_rows_ is None
    assert weights_to_bytes(loaded) == files
    marked.random_state = np.random.RandomState(3)
    assert weights_from_bytes(weights_to_bytes(marked)).random_state is None


def test_scores_are_means_over_views_and_know_no_neighbours(study, others):
    images, target, patients = study
    classifier = tiny(epochs=2).fit(images, target, groups=patients)
    one = classifier.predict_proba(others[0])
    again = classifier.predict_proba(seen_again(others[0], 1))
    np.testing.assert_allclose(
        classifier.set_params(views=2).predict_proba(others[0]), (one + again) / 2, atol=1e-6
    )
    alone = classifier.predict_proba(others[0][3:4])
    np.testing.assert_allclose(alone, classifier.predict_proba(others[0])[3:4], atol=1e-5)
    with pytest.raises(InputError, match="views must be"):
        classifier.set_params(views=0).predict_proba(others[0])


def test_parameters_are_checked_without_images():
    ReferenceClassifier("cnn3", size=32).check()
    for settings, message in (
        ({"architecture": "alexnet"}, "architecture must be one of"),
        ({"views": 0}, "views must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"size": 4}, "size must be at least 8 pixels"),
        ({"weights": "missing.keras"}, "there is no file missing.keras"),
        ({"learning_rate": -1.0}, "learning_rate must be a number above 0"),
    ):
        with pytest.raises(InputError, match=message):
            ReferenceClassifier(**({"architecture": "cnn3"} | settings)).check()
