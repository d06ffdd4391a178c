"""Plots with scikit-learn's habits: the public name of :mod:`histcxr.reports.displays`."""

import sys

from histcxr.reports import displays
from histcxr.reports.displays import *  # noqa: F403 - what checkers and editors see

sys.modules[__name__] = displays
