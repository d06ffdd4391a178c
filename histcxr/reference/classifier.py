"""The reference networks as a scikit-learn classifier: images in, the probability of each class out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from histcxr.checks import whole_number
from histcxr.data.splits import hold_out
from histcxr.exceptions import InputError
from histcxr.networks.fit import FitOptions
from histcxr.networks.training import TrainingData, class_scores, named_part, train_classes
from histcxr.reference.architectures import (
    DEFAULT_HEAD,
    Architecture,
    HeadOptions,
    build_architecture,
    find_architecture,
)
from histcxr.reference.augmentation import PUBLISHED, Augmentation, augmented_batch, seen_again
from histcxr.reference.backbones import unfreeze
from histcxr.reference.frozen import on_kept_maps
from histcxr.reference.images import InputSettings
from histcxr.reference.small_networks import SmallOptions


class ReferenceClassifier(ClassifierMixin, BaseEstimator):
    """A two-dimensional network over whole radiographs.

    ``architecture``: one of :data:`~histcxr.reference.architectures.ARCHITECTURES`; ``size``: side in pixels, to be
    sure of it, None for that of ``X``; ``weights, head, options``: see
    :func:`~histcxr.reference.architectures.build_architecture`. ``epochs, batch_size, learning_rate, patience``: None
    for the published ones; each stage has so many epochs at most and ends after ``patience`` without a lower validation
    loss.

    ``unfrozen``: layers of a backbone that are trained, from its end, or ``"all"``. With ``weights`` there are two
    stages: the new layers on the frozen backbone, then, from its best epoch and at ``second_stage_learning_rate``
    (None: a tenth), what is unfrozen, too. Without, ``"all"`` trains from scratch in one stage.

    ``augmentation``: an Augmentation, ``"published"`` as the architecture's report did, or None; a head that is trained
    before what is unfrozen sees the images as they are. ``averaged``: the last stage keeps the moving average of its
    weights (see :class:`~histcxr.networks.fit.FitOptions`) and runs all of its epochs.
    ``validation_fraction``: share of the patients held out for early stopping, up to one half; 0 trains all epochs on
    everything. ``class_weight``: in training and validation loss. ``schedule, weight_decay, verbose``: see
    :class:`~histcxr.networks.fit.FitOptions`. ``views``: how often an image is seen, with fixed slight changes
    (every second one mirrored, where training mirrored); scores are means and cost so many times more. ``inputs``: how
    ``X`` was prepared; only checked and kept. ``random_state``: equal integers give equal scores on one machine and
    backend.

    Fitted: ``classes_`` (k,), of two the second is positive; ``n_features_in_``: pixels of an image; ``image_shape_``:
    (height, width); ``graph_``: arguments of ``build_architecture``; ``weights_``: arrays by name; ``history_``: one
    value an epoch of ``stage`` (from 1), ``accuracy`` and :class:`~histcxr.networks.fit.Fitted`'s curves;
    ``best_epoch_``: from 0, whose weights were kept; ``validation_rows_``: rows of ``X`` held out, or None. All are
    arrays, numbers and text; the Keras model is built at the first prediction.
    """

    #: Of one that an earlier version saved.
    averaged: bool = False

    #: Keras uses all cores by itself, and must not be started in a worker process.
    fits_in_workers = False

    def __init__(
        self,
        architecture: str = "resnet-small",
        *,
        size: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        second_stage_learning_rate: float | None = None,
        unfrozen: int | str = 0,
        weights: str | PathLike[str] | None = None,
        head: HeadOptions | None = None,
        options: SmallOptions | None = None,
        augmentation: Augmentation | str | None = None,
        patience: int | None = None,
        validation_fraction: float = 0.2,
        class_weight: str | Mapping[Any, float] | None = None,
        schedule: str | None = "cosine",
        weight_decay: float = 0.0,
        averaged: bool = False,
        views: int = 1,
        inputs: InputSettings | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.architecture = architecture
        self.size = size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.second_stage_learning_rate = second_stage_learning_rate
        self.unfrozen = unfrozen
        self.weights = weights
        self.head = head
        self.options = options
        self.augmentation = augmentation
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.averaged = averaged
        self.views = views
        self.inputs = inputs
        self.random_state = random_state
        self.verbose = verbose

    def check(self) -> None:
        """Refuse what :meth:`fit` would refuse, without images: InputError, or MissingDependencyError without Keras."""
        architecture = find_architecture(self.architecture)
        self.augmentation_of(architecture)
        whole_number(self.views, "views", least=1)
        start: Any = 0 if len(self._stages(architecture)) > 1 else self.unfrozen
        size = self.size if self.inputs is None else self.inputs.size
        for unfrozen in {start, self.unfrozen}:
            build_architecture(
                self.architecture,
                size=size,
                head=DEFAULT_HEAD if self.head is None else self.head,
                options=self.options,
                weights=self.weights,
                unfrozen=unfrozen,
            )

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        validation: ArrayLike | None = None,
        cache: str | PathLike[str] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> ReferenceClassifier:
        """Train on uint8 images (n, side, side), as ``read_images`` gives them; they are not copied.

        ``y``, shape (n,), has two classes or more. ``groups``, (n,): patients, each on one side of the held-out part
        (None: each image is its own). ``validation``, bool (n,): images to hold out (None: ``validation_fraction`` of
        the patients). ``cache``: a folder that keeps what a backbone's frozen layers make of ``X`` for other trainings
        (:mod:`~histcxr.reference.frozen`); equal with it and without. ``on_epoch`` is called with each epoch's values.

        InputError: a parameter or the data do not fit, or too few patients. HistcxrError: the loss is no longer a
        number. MissingDependencyError: no Keras or backend.
        """
        architecture = find_architecture(self.architecture)
        stages, augmentation = self._stages(architecture), self.augmentation_of(architecture)
        whole_number(self.views, "views", least=1)
        images = self._checked(X)
        targets = self._learn_classes(images, y)
        self._check_size(images)
        entropy = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        check_consistent_length(targets, groups, validation)
        if validation is None:
            rows, held_out = hold_out(targets, groups, self.validation_fraction, entropy)
        else:
            rows, held_out = named_part(targets, groups, validation)
        if held_out is None and self.schedule == "plateau":
            raise InputError(
                "schedule='plateau' takes held-out images; give another or a validation_fraction"
            )
        weights = None
        if self.class_weight is not None:
            weights = compute_sample_weight(self.class_weight, self.classes_[targets])
        graph = {
            "name": self.architecture,
            "size": images.shape[1],
            "n_classes": len(self.classes_),
            "head": DEFAULT_HEAD if self.head is None else self.head,
            "options": self.options,
        }
        start: Any = 0 if len(stages) > 1 else self.unfrozen
        model = self._build(graph, weights=self.weights, unfrozen=start, seed=entropy)

        def augment(rows: NDArray[np.intp], epoch: int) -> NDArray[np.uint8]:
            # Bytes, a quarter of the copying: the network turns them into float32 itself.
            return augmented_batch(images, rows, augmentation, seed=entropy, epoch=epoch)[..., None]

        plain = TrainingData(images[..., None], targets, rows, held_out, weights)
        mixup = 0.0 if augmentation is None else augmentation.mixup
        changed = plain if augmentation is None else replace(plain, augment=augment, mixup=mixup)

        def stage(data: TrainingData) -> tuple[Any, TrainingData]:
            how = None if data is plain else augmentation
            return on_kept_maps(model, data, how, seed=entropy, cache=cache)

        def thaw() -> tuple[Any, TrainingData]:
            unfreeze(model, self.unfrozen)  # type: ignore[arg-type]  # which refuses other text
            return stage(changed)

        begin = stage(changed if len(stages) == 1 else plain)
        training = train_classes(*begin, stages, seed=entropy, thaw=thaw, on_epoch=on_epoch)
        self.n_features_in_ = int(np.prod(images.shape[1:]))
        self.image_shape_ = images.shape[1:]
        self.graph_ = graph
        self.weights_ = get_weights(model)
        self.history_ = training.history
        self.best_epoch_ = training.best_epoch
        self.__dict__.pop("recalibration_", None)
        self.validation_rows_ = held_out
        _models[self] = (self.weights_, model)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k) in the order of ``classes_``, for ``X`` as in :meth:`fit`."""
        check_is_fitted(self, "weights_")
        images = self._checked(X)
        if images.shape[1:] != self.image_shape_:
            raise InputError(
                f"X must have images of {self.image_shape_[0]} x {self.image_shape_[1]} pixels, as in fit; got "
                f"shape {images.shape}; give read_images this size"
            )
        model, views = _model(self), whole_number(self.views, "views", least=1)
        augmentation = self.augmentation_of(find_architecture(self.architecture))
        turned = augmentation is not None and augmentation.flip
        seen = (
            class_scores(model, seen_again(images, view, mirrored=turned)[..., None]) for view in range(views)
        )
        found = np.asarray(sum(seen) / views)
        return found if self.recalibration_ is None else _recalibrated(found, *self.recalibration_)

    #: Slope and intercept on the logit of all classes but the first, where a hospital's own patients gave them.
    recalibration_: tuple[float, float] | None = None

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class, shape ``(n,)``."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def to_keras(self) -> Any:
        """Return the fitted network as a Keras model of its own, e.g. for Grad-CAM or an export."""
        check_is_fitted(self, "weights_")
        return _rebuilt(self)

    def augmentation_of(self, architecture: Architecture) -> Augmentation | None:
        """Return how its pictures are changed in training, None for not at all; InputError where it is none."""
        given = self.augmentation
        if isinstance(given, str) and given == PUBLISHED:
            published: Any = architecture.augmentation
            return None if published is None else Augmentation(**published)
        if given is not None and not isinstance(given, Augmentation):
            raise InputError(f"augmentation must be an Augmentation, 'published' or None; got {given!r}")
        return given

    def _stages(self, architecture: Architecture) -> list[FitOptions]:
        """Return the stages of training: one, or two where a backbone starts from weights and is unfrozen."""
        own = {
            name: getattr(architecture if getattr(self, name) is None else self, name)
            for name in ("epochs", "batch_size", "learning_rate", "patience")
        }
        first = FitOptions(
            **own, schedule=self.schedule, weight_decay=self.weight_decay, verbose=self.verbose
        )
        rate, unfrozen = self.second_stage_learning_rate, self.unfrozen
        if not architecture.transfer or self.weights is None or unfrozen == 0:
            if rate is not None:
                raise InputError(
                    "second_stage_learning_rate is of use with the weights of a backbone of which layers are "
                    f"unfrozen; {self.architecture} has weights={self.weights!r}, unfrozen={unfrozen!r}"
                )
            return [replace(first, averaged=self.averaged)]
        # a tenth, so that what was learnt elsewhere is only adjusted
        rate = 0.1 * first.learning_rate if rate is None else rate
        return [first, replace(first, learning_rate=rate, averaged=self.averaged)]

    def _learn_classes(self, images: NDArray[np.uint8], y: ArrayLike) -> NDArray[np.int64]:
        if y is None:
            raise InputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        check_consistent_length(images, labels)
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"y must hold two classes or more; got one class: {classes[0]!r}")
        self.classes_ = classes
        return targets.astype(np.int64)

    def _build(self, graph: Mapping[str, Any], **how: Any) -> Any:
        return build_architecture(**graph, **how)

    def _checked(self, X: ArrayLike) -> NDArray[Any]:
        """Return what is trained on or scored, as an array; InputError where it is not of this classifier's kind."""
        return check_images(X)

    def _check_size(self, images: NDArray[np.uint8]) -> None:
        asked = {"size": self.size}
        if self.inputs is not None:
            if not isinstance(self.inputs, InputSettings):
                raise InputError(f"inputs must be InputSettings or None; got {self.inputs!r}")
            asked["the size of inputs"] = self.inputs.size
        height, width = images.shape[1:]
        for name, size in asked.items():
            if size is not None and (height, width) != (size, size):
                raise InputError(
                    f"X must have images of {size} x {size} pixels, as {name} says; got shape {images.shape}"
                )
        if height != width:
            raise InputError(
                f"X must have square images; got shape {images.shape}; read_images makes them so"
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True
        return tags


def _recalibrated(scores: NDArray[np.float64], slope: float, intercept: float) -> NDArray[np.float64]:
    """Recalibrate P(not the first class); the other classes keep their shares of it."""
    edge = 1e-7  # a network's float32 may reach 0 and 1
    sick = np.clip(1 - scores[:, :1], edge, 1 - edge)
    moved = expit(slope * logit(sick) + intercept)
    return np.hstack(
        [1 - moved, scores[:, 1:] * moved / np.maximum(scores[:, 1:].sum(axis=1, keepdims=True), edge)]
    )


def get_weights(model: Any) -> dict[str, NDArray[Any]]:
    """Return a network's weights by number and variable, ``"0003/kernel"``: Keras numbers layers' own names anew."""
    return {
        f"{number:04d}/{variable.name}": np.array(value)
        for number, (variable, value) in enumerate(zip(model.weights, model.get_weights(), strict=True))
    }


def _rebuilt(classifier: ReferenceClassifier) -> Any:
    model = classifier._build(classifier.graph_)
    model.set_weights(list(classifier.weights_.values()))
    return model


# Keras models of fitted classifiers, outside of them because they cannot be copied or stored.
_models: WeakKeyDictionary[ReferenceClassifier, tuple[Any, Any]] = WeakKeyDictionary()


def _model(classifier: ReferenceClassifier) -> Any:
    """Return the classifier's Keras model, built at the first prediction after each fit."""
    weights, model = _models.get(classifier, (None, None))
    if weights is not classifier.weights_:
        model = _rebuilt(classifier)
        _models[classifier] = (classifier.weights_, model)
    return model


def check_images(X: Any) -> NDArray[np.uint8]:
    """Return images as an array; refuse what is not uint8 (n, height, width), or empty."""
    images = np.asarray(X)
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        raise InputError(
            "X must be uint8 grey levels (n, side, side), as read_images gives; got "
            f"{images.dtype} of shape {images.shape}"
        )
    return images
