"""Phantoms look like radiographs to an algorithm, repeat by their seed, and are neither trivial nor hopeless."""

import time

import cv2
import numpy as np
import pytest
from scipy.ndimage import label as connected
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histcxr.data.masks import check_mask
from histcxr.data.radiograph import check_lungs
from histcxr.exceptions import InputError
from histcxr.phantoms.anatomy import make_phantom


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sick", [False, True])
def test_anatomy(seed, sick):
    phantom = make_phantom(seed, sick=sick)
    image, mask = phantom.image, phantom.mask
    assert (image.dtype, image.shape, mask.dtype, mask.shape) == (np.uint8, (224, 224), np.bool_, (224, 224))
    assert connected(mask)[1] == 2  # two lungs that do not touch
    check_mask(mask)
    check_lungs(image, mask)
    around = cv2.dilate(mask.view(np.uint8), np.ones((25, 25))).astype(bool) & ~mask
    assert image[mask].mean() < image[around].mean() - 20  # lungs are dark
    assert image[:, 100:124][120:160].mean() > image[mask].mean() + 60  # the heart and spine are bright
    assert (image[mask] == 0).mean() < 0.001  # nothing is cut off
    assert (image[mask] == 255).mean() < 0.02
    assert (phantom.findings != ()) == sick == phantom.sick


def test_seeds_and_exposures():
    first, again, other = make_phantom(1), make_phantom(1), make_phantom(2)
    assert (first.image == again.image).all()
    assert (first.mask == again.mask).all()
    assert (first.image != other.image).mean() > 0.5
    sick = make_phantom(1, sick=True)
    assert (sick.mask == first.mask).all()  # the mask does not betray the illness
    outside = ~cv2.dilate(first.mask.view(np.uint8), np.ones((25, 25))).astype(bool)
    assert (sick.image == first.image)[outside].mean() > 0.98  # and stays inside
    second = make_phantom(1, sick=True, exposure=1)
    assert second.findings == sick.findings
    assert (second.image != sick.image).mean() > 0.5


def test_severity():
    normal = make_phantom(4)
    none, half, full = (make_phantom(4, sick=True, severity=s).image[normal.mask] for s in (0.0, 0.5, 1.0))
    assert (none == normal.image[normal.mask]).all()
    assert none.mean() + 3 < half.mean() < full.mean() - 3


def test_other_sizes():
    phantom = make_phantom(0, size=(300, 260))
    assert phantom.image.shape == phantom.mask.shape == (300, 260)
    for size in ((63, 100), (100, 63)):
        with pytest.raises(InputError, match="size must be at least 64 x 64"):
            make_phantom(0, size=size)
    with pytest.raises(InputError, match="severity must be between 0 and 1; it is 2"):
        make_phantom(0, severity=2)


def test_drawing_is_quick():
    make_phantom(0)
    times = []
    for seed in range(20):
        start = time.thread_time()
        make_phantom(seed, sick=True)
        times.append(time.thread_time() - start)
    assert min(times) < 0.1  # about 0.01 on a quiet core


def test_illness_can_be_learnt_but_not_perfectly():
    sick = np.arange(240) % 2 == 1
    phantoms = [make_phantom(1000 + seed, sick=bool(s), size=(112, 112)) for seed, s in enumerate(sick)]
    levels = np.linspace(0.02, 0.98, 15)
    curves = np.array([np.quantile(p.image[p.mask], levels) for p in phantoms])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    auc = cross_val_score(model, curves, sick, cv=5, scoring="roc_auc").mean()
    assert 0.8 < auc < 0.985
    areas = np.array([[p.mask.mean()] for p in phantoms])
    assert abs(cross_val_score(model, areas, sick, cv=5, scoring="roc_auc").mean() - 0.5) < 0.15
