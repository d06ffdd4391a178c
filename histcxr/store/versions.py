"""The versions of the packages that a model was saved with, and of those that are installed."""

from __future__ import annotations

import contextlib
import platform
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from histcxr import __version__
from histcxr.exceptions import HistcxrWarning, ModelError


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of histcxr, Python and those of the packages that are installed."""
    found = {"histcxr": __version__, "python": platform.python_version()}
    for package in packages:
        for name in (package, "xgboost-cpu") if package == "xgboost" else (package,):  # one without GPU code
            with contextlib.suppress(PackageNotFoundError):
                found.setdefault(package, version(name))
    return found


def check_versions(saved: dict[str, str], packages: Sequence[str]) -> None:
    """Refuse another major version of the packages whose objects the model holds; warn of a minor one.

    Not of XGBoost's: boosters are kept in its own JSON, which later versions read alike, and the probe compares.
    """
    here = installed_versions(packages)
    for package in packages:
        then, now = saved[package], here.get(package, "none")
        if then.split(".")[0] != now.split(".")[0]:
            raise ModelError(
                f"was saved with {package} {then}, here is {now}; install {package} {then.split('.')[0]}.x "
                "or train the model anew"
            )
        if package != "xgboost" and then.split(".")[:2] != now.split(".")[:2]:
            warnings.warn(
                f"the model was saved with {package} {then}, here is {now}; its scores on the probe are "
                "compared, but only the saving version is certain to agree everywhere",
                HistcxrWarning,
                stacklevel=4,
            )
