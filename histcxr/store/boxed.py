"""The model in the box: trained, certified and measured by ``make model``, ready after installation."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from histcxr.store import Model

__all__ = ["BOXED", "boxed_model"]

#: What the command line calls it.
BOXED: Final = "boxed"

_FOLDER: Final = "boxed.histcxr"


@functools.cache
def boxed_model() -> Model:
    """Load the model that comes with histcxr.

    It judges full frontal radiographs; its lungs are those that the network in the package finds. Its card
    (``histcxr models boxed``) names data, promises, figures and limits. Research use only.

    Raises
    ------
    ModelError
        When the installed files were changed, or the installed packages are of another major version.
    """
    from histcxr.store import load_model

    with resources.as_file(resources.files(__package__).joinpath(_FOLDER)) as folder:
        return load_model(folder)
