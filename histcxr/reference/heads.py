"""The head of a frozen backbone by itself, so that heads are tried in seconds on what the backbone made once."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.exceptions import InputError
from histcxr.networks.backend import import_neural, seeded
from histcxr.reference.architectures import (
    DEFAULT_HEAD,
    add_head,
    add_output,
    build_architecture,
    find_architecture,
)
from histcxr.reference.classifier import ReferenceClassifier, check_images
from histcxr.reference.frozen import Halves


class HeadClassifier(ReferenceClassifier):
    """The dense layers of :class:`~histcxr.reference.classifier.ReferenceClassifier` on what a backbone gives.

    ``X`` are the numbers of :func:`frozen_features`, (n, d). Parameters of pictures have no meaning; all else is as it
    is there, and a head trained here scores as the same head does on the frozen backbone.
    """

    @classmethod
    def of(cls, network: ReferenceClassifier) -> HeadClassifier:
        """Return the head of a network whose backbone stays frozen; not fitted."""
        return cls(**{**network.get_params(deep=False), "unfrozen": 0, "augmentation": None, "views": 1})

    def _build(self, graph: Mapping[str, Any], *, seed: int = 0, **_: Any) -> Any:
        keras = import_neural("keras", "to build a network")
        with seeded(seed):
            x = inputs = keras.Input((graph["size"], 1))
            x = add_head(keras, keras.layers.Flatten()(x), graph["head"])
            return keras.Model(inputs, add_output(keras, x, graph["n_classes"], sigmoid=False))

    def _checked(self, X: ArrayLike) -> NDArray[Any]:
        features = np.asarray(X)
        if features.ndim != 2 or features.dtype.kind != "f" or not features.size:
            raise InputError(
                f"X must be what a backbone gives, (n, d) numbers; got {features.dtype} of shape {features.shape}"
            )
        return features

    def _check_size(self, images: NDArray[Any]) -> None:
        """Every length will do."""


def stays_frozen(network: ReferenceClassifier) -> bool:
    """Tell whether a network, fitted or not, trains a head alone on what a backbone makes of unchanged pictures."""
    architecture = find_architecture(network.architecture)
    trained = not architecture.transfer or network.weights is None or network.unfrozen != 0
    return not trained and network.augmentation_of(architecture) is None


def frozen_features(
    network: ReferenceClassifier,
    X: ArrayLike,
    *,
    cache: str | PathLike[str] | None = None,
    progress: bool = False,
) -> NDArray[np.float16]:
    """Return what a network's backbone makes of images, float16 (n, d): the mean of each of its last maps.

    ``network``: of which ``architecture`` and ``weights`` are used, fitted or not; ``X``: squares, uint8 (n, side,
    side); ``cache``: a folder that keeps them, by the content of a square, architecture and weights. InputError: no
    backbone, no such weights.
    """
    images = check_images(X)
    model = build_architecture(
        network.architecture,
        size=images.shape[1],
        weights=network.weights,
        head=DEFAULT_HEAD if network.head is None else network.head,
    )
    return np.asarray(Halves(model).run_front(images, cache=cache, progress=progress))
