"""The 1-D LeNet as a scikit-learn classifier: histograms of the lungs in, the probability of sick out.

Keras trains it, ONNX Runtime predicts: a fitted or loaded classifier scores without TensorFlow or Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
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
from histcxr.features.formulas import REPRESENTATIONS, check_counted
from histcxr.features.histograms import zone_names
from histcxr.features.transformers import has_three_dimensions
from histcxr.models import scoring
from histcxr.models.lenet_network import (
    LeNetGraph,
    LeNetTrainer,
    TrainingOptions,
    build_lenet,
    write_onnx,
)
from histcxr.models.out_of_fold import two_classes
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import set_weights


@dataclass(eq=False, repr=False, kw_only=True)
class LeNetClassifier(ClassifierMixin, BaseEstimator):
    """A 1-D convolutional network over the bins of histograms, in the manner of LeNet-5.

    ``zones``: histograms an image, when ``X`` comes flat: a number, or a setting such as ``"1+6"`` (None: one, or what
    a three-dimensional ``X`` shows). ``representation, smoothing, scale, areas``: see
    :func:`~histcxr.features.formulas.histogram_tensor`.
    ``bin_width``: neighbouring bins joined into one, faster with many rows. ``filters`` to ``dense_dropout``: the
    layers, see :class:`~histcxr.models.lenet_network.LeNetGraph`; one number stands for all layers of a kind, and there
    are as many blocks as ``filters``. ``learning_rate`` to ``patience``, and ``shift, gamma, contrast``: see
    :class:`~histcxr.models.lenet_network.TrainingOptions`. ``class_weight``: in training and validation loss.
    ``validation_fraction``: share of the patients held out for early stopping, up to one half; 0 trains all epochs on
    everything. ``n_seeds``: networks whose scores are averaged, each with another part held out. ``random_state``:
    equal integers give equal weights on one machine and backend; on a GPU with
    ``tf.config.experimental.enable_op_determinism()``.

    Fitted: ``classes_`` (2,), the second is positive; ``n_features_in_, n_zones_, n_bins_``; of each network the
    weights by name in ``members_``, the curves of :class:`~histcxr.networks.fit.Fitted` in ``history_``, the epoch
    kept, from 0, in ``best_epochs_``; ``graph_``: arguments of LeNetGraph. All are arrays, numbers, lists and
    dictionaries, which skops can store.
    """

    #: Keras uses all cores by itself, and must not be started in a worker process.
    fits_in_workers = False

    zones: int | str | None = None
    representation: str = "sqrt"
    smoothing: float = 0.0
    scale: str = "raw"
    bin_width: int = 1
    areas: bool | str = False
    filters: Sequence[int] = (32, 64)
    kernel_size: int | Sequence[int] = (15, 7)
    pool_size: int | Sequence[int] = 4
    pooling: str = "max"
    activation: str = "relu"
    batch_norm: bool = True
    conv_dropout: float | Sequence[float] = 0.0
    dense: Sequence[int] = (256,)
    dense_dropout: float | Sequence[float] = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    label_smoothing: float = 0.0
    batch_size: int = 128
    epochs: int = 80
    patience: int = 30
    shift: float = 0.04
    gamma: float = 0.15
    contrast: float = 0.1
    class_weight: str | Mapping[Any, float] | None = None
    validation_fraction: float = 0.1
    n_seeds: int = 1
    random_state: int | np.random.RandomState | None = None

    def fit(self, X: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None) -> LeNetClassifier:
        """Train on counts, shape (n, zones, bins) or (n, zones * bins), of two classes in ``y``.

        ``groups``: patients, each on one side of the held-out part (None: each image is its own). InputError: a
        parameter, the layout or the number of patients does not fit; MissingDependencyError: no Keras or backend.
        """
        whole_number(self.n_seeds, "n_seeds", least=1)
        if groups is not None:
            check_consistent_length(X, groups)
        trainer, target = self._trainer(X, y)
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
        positive = scoring.network(self, self._flatten(X, reset=False))
        return np.column_stack([1.0 - positive, positive])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the more probable class, shape ``(n,)``."""
        positive = self.predict_proba(X)[:, 1]
        return np.asarray(self.classes_[(positive >= 0.5).astype(int)])

    def to_onnx(self) -> bytes:
        """Return the fitted networks and their mean as one ONNX model, for which no package is needed.

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

    def _trainer(self, X: ArrayLike, y: ArrayLike) -> tuple[LeNetTrainer, NDArray[np.int8]]:
        """Check parameters and data; learn layout and classes; return a trainer of both, and the targets."""
        if y is None:
            raise InputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        self.classes_, encoded = two_classes(labels)
        flat, target = self._flatten(X, reset=True), encoded.astype(np.int8)
        check_consistent_length(flat, labels)
        tensor = scoring.network_input(self, flat).transpose(0, 2, 1)
        own = self.get_params()
        training, layers = (
            {field.name: own[field.name] for field in fields(kind) if field.name in own}
            for kind in (TrainingOptions, LeNetGraph)
        )
        options = TrainingOptions(exponent=REPRESENTATIONS[self.representation], **training)
        graph = LeNetGraph.from_options(tensor.shape[1], self.n_zones_, **layers)
        weight = None
        if self.class_weight is not None:
            weight = compute_sample_weight(self.class_weight, labels)
        return LeNetTrainer(graph, options, tensor, target, weight), target

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
