"""Run aeon's classifiers of series on the signals of the histogram study, in an environment of their own.

    PYTHON histogram_study_rivals.py NAME SIGNALS.npz SCORES.npz [--seed 0] [--quick]

SIGNALS holds ``train`` (n, channels, length), ``sick`` (n,) and ``others``, further arrays ``other0, other1, …`` to
be scored; SCORES gets one array for each of them. This file imports nothing of histcxr, because aeon wants older
versions of NumPy and pandas than histcxr does::

    python -m venv /tmp/rivals && /tmp/rivals/bin/pip install aeon torch          # multirocket-hydra
    /tmp/rivals/bin/pip install tensorflow                                        # inception-time

MultiRocket-Hydra: Dempster, Schmidt and Webb, 2023. InceptionTime: Ismail Fawaz et al., 2020.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RIVALS = ("multirocket-hydra", "inception-time")
_Scorer = Callable[[Any], Any]


class _Margins:
    """Stands in for a fitted linear classifier, and gives its margins where classes are asked for."""

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def predict(self, X: Any) -> Any:
        return self.classifier.decision_function(X)


def multirocket_hydra(X: Any, sick: Any, seed: int, quick: bool) -> _Scorer:
    """Fit MultiRocket-Hydra; its scores are logistic in the margin of its ridge classifier.

    aeon's own ``predict_proba`` gives zeros and ones only, which make no ROC curve.
    """
    from aeon.classification.convolution_based import MultiRocketHydraClassifier

    groups = 4 if quick else 64
    model = MultiRocketHydraClassifier(n_groups=groups, random_state=seed).fit(X, sick.astype(int))
    model.classifier = _Margins(model.classifier)
    return lambda other: 1 / (1 + np.exp(-np.asarray(model.predict(other), dtype=np.float64)))


def inception_time(X: Any, sick: Any, seed: int, quick: bool) -> _Scorer:
    """Fit one InceptionTime network for few epochs: the paper's five for 1500 take a GPU."""
    from aeon.classification.deep_learning import InceptionTimeClassifier

    epochs = 1 if quick else 30
    model = InceptionTimeClassifier(n_classifiers=1, n_epochs=epochs, random_state=seed)
    model.fit(X, sick.astype(int))
    return lambda other: np.asarray(model.predict_proba(other), dtype=np.float64)[:, 1]


FITS = dict(zip(RIVALS, (multirocket_hydra, inception_time), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, score, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("signals")
    parser.add_argument("scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    with np.load(options.signals) as given:
        others = [given[f"other{number}"] for number in range(len(given.files) - 2)]
        train, sick = given["train"], given["sick"]
    try:
        score = FITS[options.name](train, sick, options.seed, options.quick)
    except ImportError as error:
        # aeon raises this too where torch or TensorFlow, on which a classifier builds, is missing.
        sys.exit(
            f"{options.name} cannot run with {sys.executable}: {error}\n"
            "Name the interpreter of an environment that has it, with --rivals PYTHON:\n"
            "  python -m venv /tmp/rivals && /tmp/rivals/bin/pip install aeon torch tensorflow"
        )
    np.savez(options.scores, **{f"other{number}": score(other) for number, other in enumerate(others)})


if __name__ == "__main__":
    main()
