"""What the 1-D LeNet reads of counts, and how it learns from that, on any backend of Keras 3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.models.lenet_network import LeNetGraph, build_lenet
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import FitOptions, Weights, get_weights
from histcxr.networks.training import TrainingData, train_classes

__all__ = [
    "REPRESENTATIONS",
    "LeNetTrainer",
    "TrainedNetwork",
    "TrainingOptions",
    "check_counted",
    "histogram_jitter",
    "histogram_tensor",
]

#: The representations there are, each with its exponent: where an intensity axis is stretched by ``s``, the
#: values at a place are multiplied by ``s ** -exponent`` (a density thins out, a share of pixels does not).
REPRESENTATIONS: Final[dict[str, float]] = {"density": 1.0, "sqrt": 0.5, "cumulative": 0.0}

# Pixels of a row that count as much as a density that sums to 1; the lungs of a small radiograph have about as many.
_SIZE = 10_000.0

# Rows worked on at a time: bounds the float64 copies that lie between counts and tensor.
_BLOCK = 1024


def histogram_tensor(
    counts: NDArray[np.number],
    representation: str = "sqrt",
    *,
    smoothing: float = 0.0,
    scale: str = "raw",
    areas: bool | str = False,
) -> NDArray[np.float32]:
    """Turn counts into network inputs of about unit size, each image by itself.

    Parameters
    ----------
    counts : ndarray, shape (n, rows, bins)
        Not negative; of one or several histograms an image (zones, bands).
    representation : {"density", "sqrt", "cumulative"}, default="sqrt"
        ``bins * density``, the square root of that, or twice the cumulative density minus 1. Constants make
        their size about 1; no statistic of other images enters.
    smoothing : float, default=0
        Standard deviation in bins of a Gaussian window over the density; 0 for none.
    scale : {"raw", "own"}, default="raw"
        ``"raw"`` keeps the intensity axis. ``"own"`` lays it out anew around the image's own median: the same
        number of bins over 3 interquartile ranges to either side.
    areas : {False, True, "size"}, default=False
        What each row is divided by. False: its own sum. True: the mean sum of the image's rows, so that the
        rows' areas remain visible. ``"size"``: 10,000 pixels, so that the lungs' size remains visible, too, as in
        raw counts; then images must have one size. Masks from models betray the class by shape and size, so
        off by default.

    Returns
    -------
    ndarray of float32, shape (n, rows, bins)
        A row without counts (a lung that is missing) takes the distribution of all rows together.

    Raises
    ------
    InputError
        When an option is unknown or an image has no counts at all.
    """
    if representation not in REPRESENTATIONS:
        raise InputError(
            f"representation must be one of {', '.join(REPRESENTATIONS)}; got {representation!r}"
        )
    if scale not in ("raw", "own"):
        raise InputError(f"scale must be 'raw' or 'own'; got {scale!r}")
    if areas not in (False, True, "size"):
        raise InputError(f"areas must be False, True or 'size'; got {areas!r}")
    check_counted(counts)
    tensor = np.empty(counts.shape, np.float32)
    for start in range(0, len(counts), _BLOCK):
        block = counts[start : start + _BLOCK].astype(np.float64)
        tensor[start : start + _BLOCK] = _block(block, representation, smoothing, scale, areas)
    return tensor


def check_counted(counts: NDArray[np.number]) -> None:
    """Refuse images without a single count, of which there is nothing to read."""
    empty = np.flatnonzero(counts.reshape(len(counts), -1).sum(axis=1) <= 0)
    if empty.size:
        raise InputError(f"X must have counts in every image; image {int(empty[0])} has none")


def _block(
    counts: NDArray[np.float64], representation: str, smoothing: float, scale: str, areas: bool | str
) -> NDArray[np.float64]:
    whole, sums = counts.sum(axis=1), counts.sum(axis=2, keepdims=True)
    bins = counts.shape[2]
    density = curves.density(curves.fill_empty(counts, whole))
    if scale == "own":
        median, spread = curves.centre_and_spread(whole)
        density = curves.resample(density, median, spread, 3.0, bins)
    if smoothing:
        density = curves.smooth(density, smoothing)
    if areas:
        whole_size = _SIZE if areas == "size" else sums.mean(axis=1, keepdims=True)
        density = density * (sums / whole_size)
    if representation == "cumulative":
        return 2.0 * np.cumsum(density, axis=2) - 1.0
    return np.sqrt(density * bins) if representation == "sqrt" else density * bins


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """How a LeNet is trained; see :class:`~histcxr.networks.fit.FitOptions` for what it has in common with others.

    Parameters
    ----------
    label_smoothing : float
        Share of each label moved to one half.
    shift, gamma, contrast : float
        Half-widths of the augmentation; see :func:`histogram_jitter`.
    exponent : float
        Of the representation, for the augmentation.

    Raises
    ------
    InputError
        When a number is out of its range.
    """

    schedule: str | None = "cosine"
    label_smoothing: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    exponent: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shift", "gamma", "contrast"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite; got {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1; got {self.label_smoothing!r}")


@dataclass(frozen=True)
class TrainedNetwork:
    """What training gives.

    Its history and best epoch are those of :class:`~histcxr.networks.fit.Fitted`; the weights are the best epoch's.
    """

    weights: Weights
    history: dict[str, list[float]]
    best_epoch: int


@dataclass(frozen=True)
class LeNetTrainer:
    """A network's description with its data, ready to be trained from any seed.

    Parameters
    ----------
    graph : LeNetGraph
    options : TrainingOptions
    X : ndarray of float32, shape (n, bins, channels)
    y : ndarray, shape (n,)
        1 for sick, 0 for normal.
    weight : ndarray, shape (n,), optional
        Of each row in the loss, training and validation alike.
    """

    graph: LeNetGraph
    options: TrainingOptions
    X: NDArray[np.float32]
    y: NDArray[Any]
    weight: NDArray[Any] | None = None

    @property
    def n_parameters(self) -> int:
        """Numbers in the network, learned ones and running statistics."""
        return sum(math.prod(shape) for shape in self.graph.shapes().values())

    def train(
        self, rows: NDArray[np.integer], validation: NDArray[np.integer] | None = None, *, seed: int
    ) -> TrainedNetwork:
        """Train from new weights.

        Parameters
        ----------
        rows, validation : ndarray of int
            Rows of ``X`` to learn from and to judge by. Without the latter all epochs are run.
        seed : int
            Of the weights, the order of rows, dropout and augmentation. No global generator is touched.
        """
        network = build_lenet(self.graph, seed=seed)
        options, jitter = self.options, None
        if options.shift or options.gamma or options.contrast:
            jitter = histogram_jitter(options, seed=seed)
        fitted = train_classes(
            network,
            TrainingData(np.ascontiguousarray(self.X), self.y, rows, validation, self.weight),
            [options],
            seed=seed,
            entry=jitter,
            label_smoothing=options.label_smoothing,
        )
        # A stored network tells no time: equal seeds give equal files.
        history = {name: curve for name, curve in fitted.history.items() if name not in ("seconds", "stage")}
        return TrainedNetwork(get_weights(network), history, fitted.best_epoch)


def histogram_jitter(options: TrainingOptions, *, seed: int) -> Any:
    """Return a Keras layer that moves histograms as a change of brightness, contrast or gamma would, at random.

    With intensities ``v`` in [0, 1], each image's becomes ``(v ** g - 0.5) * c + 0.5 + s``, where ``s`` is uniform
    within ``±shift``, ``log g`` within ``±gamma``, ``log c`` within ``±contrast``. The histogram of the changed image
    follows by resampling the bins and multiplying by the local stretch to the power ``exponent``; all rows of an image
    move together. What would leave the range is lost, as in an overexposed film. Only training moves anything.

    Its input and output have the shape ``(batch, bins, channels)``.
    """
    return _jitter_class()((options.shift, options.gamma, options.contrast), options.exponent, seed)


@cache
def _jitter_class() -> Any:
    """Return the kind of layer, made once: Keras is imported late. It uses ``keras.ops`` alone."""
    keras: Any = import_neural("keras", "to train a LeNet")
    ops = keras.ops

    class HistogramJitter(keras.layers.Layer):
        def __init__(self, widths: tuple[float, float, float], exponent: float, seed: int) -> None:
            super().__init__(name="histogram_jitter")
            self.widths = np.array(widths, np.float32)
            self.exponent = exponent
            self.seed_generator = keras.random.SeedGenerator(seed)

        def call(self, histograms: Any, training: bool = False) -> Any:
            if not training:
                return histograms
            n, (bins, channels) = ops.shape(histograms)[0], histograms.shape[1:]
            change = keras.random.uniform((n, 3), -1.0, 1.0, seed=self.seed_generator)
            change = change * ops.convert_to_tensor(self.widths)
            shift, gamma, contrast = change[:, :1], ops.exp(change[:, 1:2]), ops.exp(change[:, 2:])
            # Edges of the new bins, carried back to the old axis in units of bins.
            numbers = (np.arange(bins + 1) - 0.5) / max(bins - 1, 1)
            edges = ops.convert_to_tensor(numbers.astype(np.float32)[None])
            straight = (edges - 0.5 - shift) / contrast + 0.5
            old = ops.power(ops.clip(straight, 1e-6, 1.0), 1.0 / gamma) * (bins - 1)
            stretch = old[:, 1:] - old[:, :-1]
            place = 0.5 * (old[:, 1:] + old[:, :-1])
            low = ops.clip(ops.floor(place), 0, max(bins - 2, 0))
            weight = (place - low)[..., None]
            # Whole rows of channels are gathered from one flat table: twice as fast as along an axis.
            flat = ops.reshape(histograms, (-1, channels))
            index = ops.cast(low, "int32") + bins * ops.arange(n, dtype="int32")[:, None]
            below, above = (ops.take(flat, index + step, axis=0) for step in (0, int(bins > 1)))
            moved = (1.0 - weight) * below + weight * above
            if self.exponent:
                moved = moved * ops.power(ops.maximum(stretch, 1e-9), self.exponent)[..., None]
            return moved

        def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return input_shape

    return HistogramJitter
