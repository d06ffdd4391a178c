"""What the tests of several rooms share."""

import numpy as np
import pytest

from histcxr.phantoms.studies import make_phantom


@pytest.fixture(scope="session")
def network():
    """A tiny network that sees whole phantoms, trained in seconds; both thresholds certified, modestly."""
    pytest.importorskip("keras")
    from histcxr.decision.thresholds import certify
    from histcxr.reference.classifier import ReferenceClassifier
    from histcxr.reference.preparation import InputSettings
    from histcxr.reference.small_networks import ConvOptions
    from histcxr.store import ReferenceModel

    sick, inputs = np.arange(40) % 2, InputSettings(32, "full")
    phantoms = [make_phantom(seed, sick=bool(one)) for seed, one in enumerate(sick)]
    pixels = np.stack([inputs.prepare(phantom.image, None) for phantom in phantoms])
    classifier = ReferenceClassifier(
        "cnn3", inputs=inputs, epochs=2, validation_fraction=0.0, options=ConvOptions(filters=(4, 8))
    ).fit(pixels, sick)
    scores = classifier.predict_proba(pixels)[:, 1]
    chosen = certify(scores, sick == 1, None, sensitivity=0.5, specificity=0.5, confidence=0.5)
    return ReferenceModel(classifier, ("normal", "sick"), "Normal", *chosen, training={"seconds": 1.5})
