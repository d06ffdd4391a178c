"""What triage needs of a model, whatever it looks at, and the way to load one of either kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import ThresholdChoice
from histcxr.features.measuring import Lungs, Pixels
from histcxr.store.folder import holds_network, load_model
from histcxr.store.model import Model

if TYPE_CHECKING:
    from histcxr.store.network import ReferenceModel

__all__ = ["Judge", "SavedModel", "load_judge"]

#: What can be trained, certified, measured and saved: :class:`Judge` says what triage needs of either.
SavedModel: TypeAlias = "Model | ReferenceModel"


class Judge(Protocol):
    """A model as triage sees it.

    :class:`~histcxr.store.model.Model` judges by the histograms of the lungs,
    :class:`~histcxr.store.network.ReferenceModel` by the image itself.
    """

    @property
    def name(self) -> str:
        """The classifier or the architecture; it appears in every row of a worklist."""

    @property
    def rule_out(self) -> ThresholdChoice:
        """The threshold under which an image is ruled out, certified or not."""

    @property
    def rule_in(self) -> ThresholdChoice:
        """The threshold above which an image is ruled in, certified or not."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that its scores depend on."""

    def fingerprint(self) -> str:
        """Return the SHA-256 that names it in worklists and audit trails."""

    def describe_input(self) -> dict[str, Any]:
        """Return what it reads from an image, under a name of its kind, ready for JSON."""

    def measure(self, pixels: Pixels, lungs: Lungs, name: str, /) -> NDArray[Any]:
        """Read what it needs from one image; called from several threads.

        Pixels are uint8 and lungs bool, both (height, width). Raises
        :class:`~histcxr.exceptions.UnjudgeableError` for what must not be judged.
        """

    def score(self, measured: NDArray[Any], /) -> NDArray[np.float64]:
        """Return the scores (n,) of several such measurements, stacked; called from one thread."""

    def unfamiliar(self, measured: NDArray[Any], /) -> NDArray[np.bool_]:
        """Tell which of them (n,) are unlike all that it was trained on."""

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say in sentences what a reader of its worklist must know.

        ``found`` images were scored by lungs that the network with the digest ``segmenter`` found.
        """


def load_judge(path: str | os.PathLike[str]) -> SavedModel:
    """Load a saved model of either kind, by what its folder holds.

    Parameters
    ----------
    path : path-like
        What :func:`~histcxr.store.folder.save_model` or
        :func:`~histcxr.store.network.save_reference` made.

    Raises
    ------
    ModelError
        The folder is refused, or neither kind.
    MissingDependencyError
        A network, and Keras or its backend is not installed.
    """
    if holds_network(path):
        from histcxr.store.network import load_reference  # the other kind does without its imports

        return load_reference(path)
    return load_model(path)
