"""The 1-D LeNet as a scikit-learn classifier: histograms of the lungs in, the probability of sick out.

Keras trains it, ONNX Runtime predicts: a fitted or loaded classifier scores without TensorFlow or Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    check_non_negative,
    column_or_1d,
    validate_data,
)

from histcxr.checks import whole_number
from histcxr.data.splits import validation_folds
from histcxr.exceptions import InputError
from histcxr.features.histograms import zone_names
from histcxr.features.transformers import has_three_dimensions
from histcxr.models.lenet_network import LeNetGraph, build_lenet, run_session, write_onnx
from histcxr.models.lenet_training import (
    REPRESENTATIONS,
    LeNetTrainer,
    TrainingOptions,
    check_counted,
    histogram_tensor,
)
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import set_weights
from histcxr.networks.onnx_model import open_session

__all__ = ["LeNetClassifier"]


class LeNetClassifier(ClassifierMixin, BaseEstimator):
    """A 1-D convolutional network over the bins of histograms, in the manner of LeNet-5.

    Parameters
    ----------
    zones : int, str or None, default=None
        Histograms an image, when ``X`` comes flat: a number, or a setting such as ``"1+6"``. None: one, or
        what a three-dimensional ``X`` shows.
    representation, smoothing, scale, areas
        What the network reads; see :func:`~histcxr.models.lenet_training.histogram_tensor`.
    bin_width : int, default=1
        Neighbouring bins that are joined into one: with many rows an image (bands), wider bins train several
        times as fast and lose little.
    filters, kernel_size, pool_size, pooling, activation, batch_norm, conv_dropout, dense, dense_dropout
        The layers; see :class:`~histcxr.models.lenet_network.LeNetGraph`. One number stands for all layers of a
        kind; the convolution blocks are as many as ``filters``.
    learning_rate, weight_decay, label_smoothing, batch_size, epochs, patience, shift, gamma, contrast
        See :class:`~histcxr.models.lenet_training.TrainingOptions`. ``shift``, ``gamma`` and ``contrast`` of 0
        turn the augmentation off.
    class_weight : "balanced", dict or None, default=None
        Weight of each class in training and validation loss.
    validation_fraction : float, default=0.1
        Share of the patients held out for early stopping, up to one half; 0 trains all epochs on everything.
    n_seeds : int, default=1
        Networks whose scores are averaged. Each starts from another seed and holds out another part, so that
        several of them together learn from every patient.
    random_state : int, RandomState instance or None, default=None
        Of everything random. The same integer gives the same weights on the same machine and backend.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The second one is the positive class.
    n_features_in_, n_zones_, n_bins_ : int
        Counts of an image, and the zones and bins that they are made of.
    members_ : list of dict of str to ndarray
        The weights of each network by name.
    history_ : list of dict of str to list of float
        The learning curves of each network; see :class:`~histcxr.models.lenet_training.TrainedNetwork`.
    best_epochs_ : list of int
        The epoch, from 0, whose weights each network kept.
    graph_ : dict
        The arguments of :class:`~histcxr.models.lenet_network.LeNetGraph`.

    Notes
    -----
    A fitted classifier consists of arrays, numbers, lists and dictionaries alone: it can be copied, sent to workers
    and stored by skops. At the first prediction it writes itself as ONNX, which ONNX Runtime opens.
    On a GPU, cuDNN may add numbers up in changing order; TensorFlow offers
    ``tf.config.experimental.enable_op_determinism()`` for the same weights twice there.

    Examples
    --------
    >>> network = LeNetClassifier(n_seeds=3, random_state=0)
    >>> network.fit(counts, sick, groups=patients)  # doctest: +SKIP
    """

    #: Keras uses all cores by itself, and must not be started in a worker process.
    fits_in_workers = False

    def __init__(
        self,
        *,
        zones: int | str | None = None,
        representation: str = "sqrt",
        smoothing: float = 0.0,
        scale: str = "raw",
        bin_width: int = 1,
        areas: bool | str = False,
        filters: Sequence[int] = (32, 64),
        kernel_size: int | Sequence[int] = (15, 7),
        pool_size: int | Sequence[int] = 4,
        pooling: str = "max",
        activation: str = "relu",
        batch_norm: bool = True,
        conv_dropout: float | Sequence[float] = 0.0,
        dense: Sequence[int] = (256,),
        dense_dropout: float | Sequence[float] = 0.3,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        label_smoothing: float = 0.0,
        batch_size: int = 128,
        epochs: int = 80,
        patience: int = 30,
        shift: float = 0.04,
        gamma: float = 0.15,
        contrast: float = 0.1,
        class_weight: str | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.1,
        n_seeds: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.zones = zones
        self.representation = representation
        self.smoothing = smoothing
        self.scale = scale
        self.bin_width = bin_width
        self.areas = areas
        self.filters = filters
        self.kernel_size = kernel_size
        self.pool_size = pool_size
        self.pooling = pooling
        self.activation = activation
        self.batch_norm = batch_norm
        self.conv_dropout = conv_dropout
        self.dense = dense
        self.dense_dropout = dense_dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.shift = shift
        self.gamma = gamma
        self.contrast = contrast
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.n_seeds = n_seeds
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None) -> LeNetClassifier:
        """Train the networks.

        Parameters
        ----------
        X : array-like, shape (n, zones, bins) or (n, zones * bins)
            Counts, not negative.
        y : array-like, shape (n,)
            Two classes.
        groups : array-like, shape (n,), optional
            The patient of each image, who is on one side of the held-out part. None: each image is its own.

        Raises
        ------
        InputError
            When a parameter or the layout of the data does not fit, or too few patients are given.
        MissingDependencyError
            When Keras or its backend is not installed.
        """
        whole_number(self.n_seeds, "n_seeds", least=1)
        if groups is not None:
            check_consistent_length(X, groups)
        trainer, target = self.make_trainer(X, y)
        entropy = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        folds = validation_folds(target, groups, self.validation_fraction, int(self.n_seeds), entropy)
        seeds = np.random.SeedSequence(entropy).generate_state(int(self.n_seeds)) >> 1
        trained = [
            trainer.train(rows, held_out, seed=int(seed))
            for seed, (rows, held_out) in zip(seeds, folds, strict=True)
        ]
        self.graph_ = asdict(trainer.graph)
        self.members_ = [network.weights for network in trained]
        self.history_ = [network.history for network in trained]
        self.best_epochs_ = [network.best_epoch for network in trained]
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, shape ``(n, 2)``, in the order of ``classes_``."""
        check_is_fitted(self)
        histograms = self._tensor(self._flatten(X, reset=False))
        positive = run_session(_session(self), histograms)
        return np.column_stack([1.0 - positive, positive])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the more probable class, shape ``(n,)``."""
        positive = self.predict_proba(X)[:, 1]
        return np.asarray(self.classes_[(positive >= 0.5).astype(int)])

    def to_onnx(self) -> bytes:
        """Return the fitted networks and their mean as one ONNX model; no package is needed for it.

        From ``histograms``, float32 ``(n, zones, bins)`` as ``histogram_tensor`` gives them, to ``score``, ``(n, 1)``.
        """
        check_is_fitted(self)
        return write_onnx(LeNetGraph(**self.graph_), self.members_)

    def to_keras(self) -> Any:
        """Return the fitted networks and their mean as one Keras model, e.g. to save it as ``.keras``.

        It takes ``(n, bins, zones)`` float32, transposed from what ``histogram_tensor`` gives, to ``(n, 1)`` scores.
        """
        check_is_fitted(self)
        keras = import_neural("keras", "to build the fitted LeNet")
        graph = LeNetGraph(**self.graph_)
        networks = [build_lenet(graph, seed=0, name=f"member{i + 1}") for i in range(len(self.members_))]
        for network, weights in zip(networks, self.members_, strict=True):
            set_weights(network, weights)
        inputs = keras.Input((graph.bins, graph.channels), name="histograms")
        scores = [network(inputs) for network in networks]
        score = keras.layers.Average(name="score")(scores) if len(scores) > 1 else scores[0]
        return keras.Model(inputs, score, name="lenet")

    def make_trainer(self, X: ArrayLike, y: ArrayLike) -> tuple[LeNetTrainer, NDArray[np.int8]]:
        """Check parameters and data, note the data's layout, and return a trainer that holds them, and the targets.

        :meth:`fit` begins with this; a search trains on from here in its own way. Targets are int8, 1 for the second
        of ``classes_``.
        """
        if self.representation not in REPRESENTATIONS:
            known = ", ".join(REPRESENTATIONS)
            raise InputError(f"representation must be one of {known}; got {self.representation!r}")
        training, layers = (self._options(kind) for kind in (TrainingOptions, LeNetGraph))
        options = TrainingOptions(exponent=REPRESENTATIONS[self.representation], **training)
        flat, target = self.check_data(X, y)
        graph = LeNetGraph.from_options(self.n_bins_ // self.bin_width, self.n_zones_, **layers)
        weight = None
        if self.class_weight is not None:
            weight = compute_sample_weight(self.class_weight, self.classes_[target])
        tensor = self._tensor(flat).transpose(0, 2, 1)
        return LeNetTrainer(graph, options, tensor, target, weight), target

    def _options(self, kind: type) -> dict[str, Any]:
        """Return the parameters that are fields of a table of settings, too."""
        own = self.get_params()
        return {field.name: own[field.name] for field in fields(kind) if field.name in own}

    def check_data(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """Return counts (n, zones * bins) and targets, checked; learn the layout and the classes."""
        if y is None:
            raise InputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        kind = type_of_target(labels, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise InputError(f"Only binary classification is supported. The type of the target is {kind}.")
        flat = self._flatten(X, reset=True)
        check_consistent_length(flat, labels)
        classes, target = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"y must hold two classes; got one class: {classes[0]!r}")
        self.classes_ = classes
        return flat, target.astype(np.int8)

    def _tensor(self, flat: NDArray[Any]) -> NDArray[np.float32]:
        cube = flat.reshape(len(flat), self.n_zones_, self.n_bins_ // self.bin_width, self.bin_width)
        return histogram_tensor(
            cube[..., 0] if self.bin_width == 1 else cube.sum(axis=3),
            self.representation,
            smoothing=self.smoothing,
            scale=self.scale,
            areas=self.areas,
        )

    def _flatten(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        """Return the counts as (n, zones * bins), checked; scikit-learn's own checks know two dimensions."""
        zones = self.zones
        rows = len(zone_names(zones)) if isinstance(zones, str) else zones
        if rows is not None and (not isinstance(rows, int | np.integer) or rows < 1):
            raise InputError(f"zones must be a number of at least 1, a zone setting or None; got {zones!r}")
        if has_three_dimensions(X):
            cube = check_array(X, allow_nd=True)
            expected = rows if reset else self.n_zones_
            if expected is not None and cube.shape[1] != expected:
                raise InputError(f"X must have {expected} histograms an image; got shape {cube.shape}")
            rows = cube.shape[1]
            X = cube.reshape(len(cube), -1)
        flat = validate_data(self, X, reset=reset)
        check_non_negative(flat, type(self).__name__)
        check_counted(flat)
        if reset:
            n_zones: int = 1 if rows is None else int(rows)
            if flat.shape[1] % n_zones:
                raise InputError(
                    f"X must have a multiple of {n_zones} columns (zones={zones!r}); got {flat.shape[1]}"
                )
            bins = flat.shape[1] // n_zones
            if bins % whole_number(self.bin_width, "bin_width", least=1):
                raise InputError(f"bin_width must divide the {bins} bins; got {self.bin_width!r}")
            self.n_zones_: int = n_zones
            self.n_bins_: int = bins
        return flat

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        return tags


# Open sessions of fitted classifiers, outside of them because they cannot be copied or stored.
_sessions: WeakKeyDictionary[LeNetClassifier, tuple[Any, Any]] = WeakKeyDictionary()


def _session(classifier: LeNetClassifier) -> Any:
    """Return the classifier's ONNX Runtime session, opened at the first prediction after each fit."""
    members, session = _sessions.get(classifier, (None, None))
    if members is not classifier.members_:
        session = open_session(classifier.to_onnx())
        _sessions[classifier] = (classifier.members_, session)
    return session
