"""What triage needs of a model, whatever it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.site import SiteReference
from histcxr.decision.thresholds import ThresholdChoice
from histcxr.features.measuring import Lungs, Pixels

if TYPE_CHECKING:
    from histcxr.store.cascade import Cascade
    from histcxr.store.model import Model, ReferenceModel

__all__ = ["Judge", "SavedModel"]

#: What can be trained, certified, measured and saved: :class:`Judge` says what triage needs of any.
SavedModel: TypeAlias = "Model | ReferenceModel | Cascade"


class Judge(Protocol):
    """A model as triage sees it.

    :class:`~histcxr.store.model.Model` judges by the histograms of the lungs,
    :class:`~histcxr.store.model.ReferenceModel` by the image itself, and :class:`~histcxr.store.cascade.Cascade` by the
    one and then the other.
    """

    @property
    def name(self) -> str:
        """The classifier or the architecture."""

    @property
    def rule_out(self) -> ThresholdChoice:
        """The threshold under which an image is ruled out, certified or not."""

    @property
    def rule_in(self) -> ThresholdChoice:
        """The threshold above which an image is ruled in, certified or not."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that its scores depend on."""

    @property
    def hash(self) -> str:
        """The hash of the folder that it was loaded from, "" for none; see :func:`~histcxr.store.folder.model_hash`."""

    def describe_input(self) -> dict[str, Any]:
        """Return what it reads from an image, under a name of its kind, ready for JSON."""

    @property
    def side(self) -> int:
        """The longer side, in pixels, of the working image that it measures."""

    def measure(self, pixels: Pixels, lungs: Lungs, name: str, /) -> NDArray[Any]:
        """Read what it needs from one working image; called from several threads.

        Pixels are uint8 and lungs bool, both (height, width). Raises
        :class:`~histcxr.exceptions.UnjudgeableError` for what must not be judged.
        """

    def score(self, measured: NDArray[Any], /) -> NDArray[np.float64]:
        """Return the scores (n,) of several such measurements, stacked; called from one thread."""

    def unfamiliar(self, measured: NDArray[Any], /) -> NDArray[np.bool_]:
        """Tell which of them (n,) are unlike all that it was trained on."""

    @property
    def site(self) -> SiteReference | None:
        """What the certified population looks like; None where nobody knows, so that no folder is tested."""

    def site_numbers(self, measured: NDArray[Any], /) -> NDArray[np.float64]:
        """Return of several measurements what tells one site from another, (n, d)."""

    def drawers(
        self, scores: NDArray[np.float64], known: Mapping[str, NDArray[Any]] | None = None, /
    ) -> NDArray[np.str_]:
        """Put scores (n,) into drawers; ``known`` are the groups of each image, column to values (n,)."""

    def caveats(self, found: int, segmenter: str | None) -> tuple[str, ...]:
        """Say in sentences what a reader of its worklist must know.

        ``found`` images were scored by lungs that the network with the digest ``segmenter`` found.
        """
