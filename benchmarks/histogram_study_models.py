"""What learns in the histogram study, with how much effort, and what is reported of it.

Everything here is plain on purpose: each classifier has one set of settings for all regions and representations,
fixed beforehand, so that a cell of the grid tells what region and representation are worth and not how long
somebody searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from histogram_study_regions import SIGMA, Region, Sample, filled, signals
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from histcxr.data.splits import validation_folds
from histcxr.decision.auc import auc
from histcxr.decision.curves import specificity_at_sensitivity
from histcxr.exceptions import InputError
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_network import LeNetGraph, run_session, write_onnx
from histcxr.models.lenet_training import LeNetTrainer, TrainingOptions
from histcxr.models.stack import StackedClassifier
from histcxr.networks.onnx_model import open_session

SENSITIVITY = 0.95
MEMBERS = ("knn", "svm", "random-forest", "xgboost")
CLASSIFIERS = (*MEMBERS, "lenet", "stack")
#: Shift, gamma and contrast, where the LeNet varies them: those of its own defaults.
AUGMENTATION = (0.04, 0.15, 0.1)
# What LeNetClassifier computes by itself, and with how wide a window; the others are handed over as signals.
_LENET = {
    "density": ("density", 0.0),
    "cumulative": ("cumulative", 0.0),
    "sqrt": ("sqrt", 0.0),
    "smoothed": ("density", SIGMA),
}


@dataclass(frozen=True)
class Effort:
    """How long the classifiers may work: the same for every cell."""

    trees: int = 200
    rounds: int = 300
    components: int = 60
    folds: int = 2
    epochs: int = 12
    patience: int = 5


FULL = Effort()
QUICK = Effort(trees=20, rounds=20, components=8, folds=2, epochs=2, patience=2)


class SignalNetwork:
    """The LeNet on signals of any kind, where :class:`~histcxr.models.lenet.LeNetClassifier` wants counts.

    The same layers, training and early stopping on a fifth of the training patients, without augmentation,
    which only means something on histograms. Signals are standardised by one mean and one standard deviation
    over all values of the training set.

    Parameters
    ----------
    epochs, patience : int
    random_state : int
    """

    def __init__(self, *, epochs: int, patience: int, random_state: int) -> None:
        self.seed = random_state
        self.template = LeNetClassifier(
            epochs=epochs, patience=patience, shift=0.0, gamma=0.0, contrast=0.0, random_state=random_state
        )

    def fit(
        self, X: NDArray[np.float32], y: NDArray[np.bool_], *, groups: NDArray[np.object_]
    ) -> SignalNetwork:
        """Train on signals (n, rows, length)."""
        like = self.template
        self.mean_, self.spread_ = float(X.mean(dtype=np.float64)), float(X.std(dtype=np.float64))
        graph = LeNetGraph.from_options(
            X.shape[2],
            X.shape[1],
            filters=like.filters,
            kernel_size=like.kernel_size,
            pool_size=like.pool_size,
            conv_dropout=like.conv_dropout,
            dense=like.dense,
            dense_dropout=like.dense_dropout,
            activation=like.activation,
            pooling=like.pooling,
            batch_norm=like.batch_norm,
        )
        options = TrainingOptions(
            epochs=like.epochs,
            patience=like.patience,
            batch_size=like.batch_size,
            learning_rate=like.learning_rate,
            weight_decay=like.weight_decay,
        )
        trainer = LeNetTrainer(graph, options, self._scaled(X).transpose(0, 2, 1), y.astype(np.int8))
        [(rows, held_out)] = validation_folds(y, groups, like.validation_fraction, 1, self.seed)
        network = trainer.train(rows, held_out, seed=self.seed)
        self._session = open_session(write_onnx(graph, [network.weights]))
        return self

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each class, shape (n, 2)."""
        positive = run_session(self._session, self._scaled(X))
        return np.column_stack([1.0 - positive, positive])

    def _scaled(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((X - self.mean_) / self.spread_).astype(np.float32)


def make_member(name: str, effort: Effort, *, shape: tuple[int, int], seed: int, n_jobs: int) -> Any:
    """Build one of :data:`MEMBERS`, unfitted, for flat features of a shape: training images and features.

    Nearest neighbours take the representation's own Euclidean distance (Hellinger's for ``sqrt``); trees need no
    scale; the support vector machine gets standardised features, reduced to their main components.
    """
    # Folds of the stack hold fewer rows than the whole: half of them at least.
    n_train, n_features = shape
    if name == "knn":
        return KNeighborsClassifier(
            min(25, n_train // 4), weights="distance", algorithm="brute", n_jobs=n_jobs
        )
    if name == "svm":
        components = min(effort.components, n_train // 4, n_features)
        return make_pipeline(StandardScaler(), PCA(components, random_state=seed), SVC())
    if name == "random-forest":
        return RandomForestClassifier(
            effort.trees, min_samples_leaf=2, max_samples=0.5, random_state=seed, n_jobs=n_jobs
        )
    if name == "xgboost":
        return XGBClassifier(
            n_estimators=effort.rounds,
            max_depth=4,
            learning_rate=0.1,
            subsample=0.8,
            colsample_bytree=0.1,
            max_bin=64,
            tree_method="hist",
            random_state=seed,
            n_jobs=n_jobs,
        )
    raise InputError(f"classifier must be one of {', '.join(MEMBERS)}; got {name!r}")


def probability(model: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return a score in [0, 1]; a decision function enters the logistic curve, so that its zero is 0.5."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X), dtype=np.float64)[:, 1]
    return np.asarray(expit(model.decision_function(X)), dtype=np.float64)


#: Scores of each sample, in the order given, for each classifier.
Scores = dict[str, list[NDArray[np.float64]]]


def fit_scores(
    classifiers: Sequence[str],
    region: Region,
    representation: str,
    train: Sample,
    others: Sequence[Sample],
    *,
    effort: Effort = FULL,
    seed: int = 0,
    n_jobs: int = 1,
    augment: bool = False,
) -> Scores:
    """Fit classifiers on one sample and score others.

    The stack fits its members on everything anyway, so where it is wanted they are taken from it.

    Parameters
    ----------
    classifiers : sequence of str
        Of :data:`CLASSIFIERS`.
    region, representation
        What to learn from.
    train, others : Sample
        With the region's counts.
    effort, seed, n_jobs
        The same for every cell.
    augment : bool
        Whether the LeNet varies brightness, gamma and contrast in training: only for intensities in a
        representation that it computes itself.

    Returns
    -------
    dict of str to list of ndarray
    """
    scores: Scores = {}
    classical = [name for name in classifiers if name != "lenet"]
    if classical:
        flat = [
            signals(part.counts, region, representation).reshape(len(part.sick), -1)
            for part in (train, *others)
        ]
        names = MEMBERS if "stack" in classical else classical
        members = {
            name: make_member(name, effort, shape=flat[0].shape, seed=seed, n_jobs=n_jobs) for name in names
        }
        if "stack" in classical:
            stack = StackedClassifier(list(members.items()), cv=effort.folds, random_state=seed)
            stack.fit(flat[0], train.sick, groups=train.patients)
            fitted = dict(zip(names, stack.estimators_, strict=True)) | {"stack": stack}
        else:
            fitted = {name: model.fit(flat[0], train.sick.astype(int)) for name, model in members.items()}
        scores |= {name: [probability(fitted[name], X) for X in flat[1:]] for name in classical}
    if "lenet" in classifiers:
        scores["lenet"] = _lenet_scores(region, representation, train, others, effort, seed, augment)
    return scores


def _lenet_scores(
    region: Region,
    representation: str,
    train: Sample,
    others: Sequence[Sample],
    effort: Effort,
    seed: int,
    augment: bool,
) -> list[NDArray[np.float64]]:
    known = _LENET.get(representation)
    if augment and (known is None or region.bands):
        raise InputError("augment is for intensities in a representation that the LeNet computes itself")
    prepare: Callable[[Sample], NDArray[Any]]
    network: Any
    if known is None:
        network = SignalNetwork(epochs=effort.epochs, patience=effort.patience, random_state=seed)

        def prepare(part: Sample) -> NDArray[Any]:
            return signals(part.counts, region, representation)

    else:
        shift, gamma, contrast = AUGMENTATION if augment else (0.0, 0.0, 0.0)
        network = LeNetClassifier(
            representation=known[0],
            smoothing=known[1],
            epochs=effort.epochs,
            patience=effort.patience,
            shift=shift,
            gamma=gamma,
            contrast=contrast,
            random_state=seed,
        )

        def prepare(part: Sample) -> NDArray[Any]:
            return filled(part.counts, region)

    network.fit(prepare(train), train.sick, groups=train.patients)
    return [probability(network, prepare(part)) for part in others]


def figures(
    val: Sample, val_scores: NDArray[np.float64], test: Sample, test_scores: NDArray[np.float64]
) -> dict[str, Any]:
    """Return what is reported of a fitted classifier, ready for JSON.

    The threshold is the highest that reaches 95 % sensitivity on the validation part; sensitivity and specificity
    are those of the test part under it. The AUC's interval keeps the images of a patient together.
    """
    area = auc(test_scores, test.sick, patient_ids=test.patients)
    point = specificity_at_sensitivity(val_scores, val.sick, sensitivity=SENSITIVITY, draws=100)
    called = test_scores >= point.threshold
    return {
        "auc": area.value,
        "auc_low": area.low,
        "auc_high": area.high,
        "val_auc": auc(val_scores, val.sick, patient_ids=val.patients).value,
        "accuracy": float(((test_scores >= 0.5) == test.sick).mean()),
        "threshold": point.threshold,
        "sensitivity": float(called[test.sick].mean()),
        "specificity": float((~called[~test.sick]).mean()),
    }
