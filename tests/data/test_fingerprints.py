"""One radiograph is known again in every dress; another patient is not taken for it."""

import cv2
import numpy as np
import pytest

from histcxr.data.fingerprints import (
    FINGERPRINT_BYTES,
    fine_copy,
    fingerprint,
    keyed_patients,
    near_duplicates,
    recognised,
)
from histcxr.exceptions import InputError
from histcxr.phantoms.anatomy import make_phantom

DRESSES = {
    "larger": lambda pixels: cv2.resize(pixels, (700, 700), interpolation=cv2.INTER_CUBIC),
    "smaller": lambda pixels: cv2.resize(pixels, (100, 100), interpolation=cv2.INTER_AREA),
    "squashed": lambda pixels: cv2.resize(pixels, (300, 200), interpolation=cv2.INTER_AREA),
    "compressed": lambda pixels: cv2.imdecode(cv2.imencode(".jpg", pixels, [1, 40])[1], 0),
    "re-exposed": lambda pixels: np.clip(pixels * 0.85 + 12, 0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, sick=seed % 2 == 0).image for seed in range(60)]


@pytest.fixture(scope="module")
def prints(phantoms):
    return np.stack([fingerprint(one) for one in phantoms])


@pytest.mark.parametrize("dress", DRESSES)
def test_known_again(phantoms, prints, dress):
    changed = np.stack([fingerprint(DRESSES[dress](one)) for one in phantoms])
    assert recognised(changed, prints).all()
    assert not (changed[:, :8] == prints[:, :8]).all(axis=1).any()  # not by equal pixels


def test_other_patients_are_not(prints):
    assert not recognised(prints[:30], prints[30:]).any()


@pytest.mark.parametrize("dress", DRESSES)
def test_pairs_are_found_and_confirmed(phantoms, dress):
    both = phantoms + [DRESSES[dress](one) for one in phantoms]
    prints, copies = (np.stack([of(one) for one in both]) for of in (fingerprint, fine_copy))
    expected = [[i, i + len(phantoms)] for i in range(len(phantoms))]
    assert near_duplicates(prints, copies).tolist() == expected
    others = np.roll(copies, 1, axis=0)  # hashes alone are not believed
    others[0] = copies[-1]
    assert near_duplicates(prints, np.where(np.arange(len(both))[:, None] < 60, others, copies)).size == 0
    assert near_duplicates(prints[:0], copies[:0]).shape == (0, 2)


def test_equal_pixels_are_enough(prints):
    scrambled = prints.copy()
    scrambled[:, 8:] ^= 0xFF
    assert recognised(scrambled, prints).all()


def test_the_share_of_signs_estimates_the_correlation():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (32, 32)).astype(np.float64)
    other = rng.integers(0, 256, (32, 32)).astype(np.float64)

    def code(pixels):
        fine = pixels.astype(np.float32) - cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 4.0)
        return (fine - fine.mean()).ravel()

    for weight in (0.1, 0.3, 0.6):
        mixed = np.clip((1 - weight) * base + weight * other, 0, 255).astype(np.uint8)
        plain = base.astype(np.uint8)
        correlation = np.corrcoef(code(plain), code(mixed))[0, 1]
        signs = np.unpackbits(fingerprint(plain)[8:]) != np.unpackbits(fingerprint(mixed)[8:])
        assert np.cos(np.pi * signs.mean()) == pytest.approx(correlation, abs=0.1)


def test_nothing_known_recognises_nothing(prints):
    assert not recognised(prints, np.empty((0, FINGERPRINT_BYTES), np.uint8)).any()


def test_wrong_arrays_are_refused(prints):
    with pytest.raises(InputError, match=r"known must be uint8 of shape \(n, 72\)"):
        recognised(prints, prints.astype(np.int64))


def test_patients_are_known_by_the_key_alone():
    one, other = keyed_patients(["anna", "béla"], "key"), keyed_patients(["anna", "béla"], "other key")
    assert one == keyed_patients(["anna", "béla"], "key")
    assert len({*one, *other}) == 4
    assert all(len(code) == 16 for code in one)
