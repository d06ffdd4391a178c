"""Run aeon's MultiRocket-Hydra on the signals of the histogram study, in an environment of its own.

    PYTHON histogram_study_rivals.py SIGNALS.npz SCORES.npz SEED GROUPS

SIGNALS holds ``train`` (n, channels, length), ``sick`` (n,), and ``val`` and ``test`` to be scored; SCORES gets an
array for each of these two. This file imports nothing of histcxr, because aeon wants older versions of NumPy::

    python -m venv /tmp/rivals && /tmp/rivals/bin/pip install aeon torch

Dempster, Schmidt and Webb, 2023.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


class _Margins:
    """Stands in for a fitted linear classifier, and gives its margins where classes are asked for.

    aeon's own ``predict_proba`` gives zeros and ones only, which make no ROC curve.
    """

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def predict(self, X: Any) -> Any:
        return self.classifier.decision_function(X)


def main(signals: str, scores: str, seed: str, groups: str) -> None:
    """Fit, score, write; scores are logistic in the margin of the ridge classifier."""
    try:  # aeon raises this too where torch is missing
        from aeon.classification.convolution_based import MultiRocketHydraClassifier

        model = MultiRocketHydraClassifier(n_groups=int(groups), random_state=int(seed))
        with np.load(signals) as given:
            model.fit(given["train"], given["sick"].astype(int))
            model.classifier = _Margins(model.classifier)
            margins = {part: np.asarray(model.predict(given[part]), np.float64) for part in ("val", "test")}
    except ImportError as error:
        sys.exit(
            f"MultiRocket-Hydra cannot run with {sys.executable}: {error}; name an interpreter that has it, with "
            "--rivals PYTHON: python -m venv /tmp/rivals && /tmp/rivals/bin/pip install aeon torch"
        )
    np.savez(scores, **{part: 1 / (1 + np.exp(-margin)) for part, margin in margins.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
