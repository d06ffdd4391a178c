import itertools

import cv2
import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.phantoms.studies import make_phantom
from histcxr.reference.architectures import ARCHITECTURES
from histcxr.reference.augmentation import STRENGTHS, Augmentation, augmented_batch, seen_again

NONE = {"translation": 0, "rotation": 0, "zoom": 0, "stretch": 0, "intensity": 0, "gamma": 0}


def only(**settings):
    return Augmentation(**(NONE | settings))


def many(augmentation, image, n=60):
    return [augmentation.apply(image, np.random.default_rng(seed)) for seed in range(n)]


def centroid(image):
    moments = cv2.moments(image)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


@pytest.fixture(scope="module")
def image():
    return make_phantom(0, size=(64, 64)).image


@pytest.fixture(scope="module")
def dots():
    """A large dot in the middle, a smaller one to its right."""
    picture = np.zeros((101, 101), np.uint8)
    cv2.circle(picture, (50, 50), 6, 255, -1)
    cv2.circle(picture, (75, 50), 3, 255, -1)
    return picture


def parts(picture):
    """Area and centre of the two dots, the larger first."""
    _, _, stats, centres = cv2.connectedComponentsWithStats((picture > 127).astype(np.uint8))
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA]) + 1
    return stats[order, cv2.CC_STAT_AREA], centres[order]


def test_nothing_asked_for_changes_nothing(image):
    for changed in many(only(), image, 5):
        np.testing.assert_array_equal(changed, image)
        assert not np.shares_memory(changed, image)


def test_translation_stays_within_its_share(dots):
    shifts = np.array([centroid(p) - centroid(dots) for p in many(only(translation=0.1), dots)])
    assert np.abs(shifts).max() <= 10.1 + 0.1
    assert (np.abs(shifts).max(axis=0) > 8).all()
    assert (np.abs(shifts.mean(axis=0)) < 3).all()


def test_rotation_turns_about_the_middle(dots):
    angles = []
    for picture in many(only(rotation=20), dots):
        _, (middle, side) = parts(picture)
        np.testing.assert_allclose(middle, [50, 50], atol=0.3)
        assert np.hypot(*(side - middle)) == pytest.approx(25, abs=0.5)
        angles.append(np.degrees(np.arctan2(side[1] - middle[1], side[0] - middle[0])))
    assert np.abs(angles).max() <= 20.5
    assert min(angles) < -15
    assert max(angles) > 15


def test_zoom_scales_about_the_middle(dots):
    scales = []
    for picture in many(only(zoom=0.15), dots):
        _, (middle, side) = parts(picture)
        np.testing.assert_allclose(middle, [50, 50], atol=0.3)
        scales.append(np.hypot(*(side - middle)) / 25)
    assert 0.84 <= min(scales) < 0.9
    assert 1.1 < max(scales) <= 1.16


def test_stretch_changes_the_aspect_ratio_and_keeps_the_area(dots):
    picture = dots.T.copy() + dots  # a dot to the right, one below, one in the middle
    ratios = []
    for changed in many(only(stretch=0.2), picture):
        areas, centres = parts(changed)
        assert areas.sum() == pytest.approx(parts(picture)[0].sum(), rel=0.08)
        right, below = centres[1:, 0].max() - 50, centres[1:, 1].max() - 50
        assert right * below == pytest.approx(25 * 25, rel=0.03)
        ratios.append(right / 25)
    assert 0.79 <= min(ratios) < 0.87
    assert 1.13 < max(ratios) <= 1.21


def test_gamma_bends_the_levels_between_black_and_white():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    bends = []
    for changed in many(only(gamma=0.3), levels):
        assert (changed[0, 0], changed[-1, -1]) == (0, 255)
        assert (np.diff(changed.ravel().astype(int)) >= 0).all()
        bends.append(np.log(changed[8, 0] / 255) / np.log(128 / 255))
        assert np.abs(255 * (levels / 255) ** bends[-1] - changed).max() < 2
    assert np.exp(-0.31) < min(bends) < np.exp(-0.2)
    assert np.exp(0.2) < max(bends) < np.exp(0.31)


def test_intensity_multiplies_and_black_stays_black(image):
    picture = image.copy()
    picture[:20] = 0
    for changed in many(only(intensity=0.1), picture, 20):
        assert not changed[:20].any()
        factor = changed[20:].sum() / picture[20:].sum()
        assert 0.89 < factor < 1.11
        expected = np.clip(picture * factor, 0, 255)
        assert np.abs(changed - expected).max() < 1.5


def test_flipping_is_off_unless_asked_for(dots):
    sides = [parts(p)[1][1][0] > 50 for p in many(Augmentation(), dots)]
    assert all(sides)
    flipped = [parts(p)[1][1][0] > 50 for p in many(only(flip=True), dots)]
    assert 15 < sum(flipped) < 45
    mirrored = many(only(flip=True), dots)[flipped.index(False)]
    np.testing.assert_array_equal(mirrored, dots[:, ::-1])


def test_one_change_left_out_leaves_the_others(dots):
    full, dark = Augmentation(), Augmentation(intensity=0)
    for seed in range(5):
        a, b = (g.apply(dots, np.random.default_rng(seed)) for g in (full, dark))
        np.testing.assert_allclose(centroid(a), centroid(b), atol=0.2)


def test_what_comes_in_from_outside(image):
    bright = np.full_like(image, 200)
    assert min(p.min() for p in many(only(translation=0.3), bright, 10)) == 0
    for changed in many(Augmentation(intensity=0, fill="edge"), bright, 10):
        np.testing.assert_array_equal(changed, 200)


def test_follows_from_seed_epoch_and_row_alone(image):
    images = np.stack([make_phantom(i, size=(64, 64)).image for i in range(6)])
    whole = augmented_batch(images, range(6), Augmentation(), seed=1, epoch=2)
    order = [4, 0, 5]
    some = augmented_batch(images, order, Augmentation(), seed=1, epoch=2)
    np.testing.assert_array_equal(some, whole[order])
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert (augmented_batch(images, range(6), Augmentation(), **other) != whole).any(axis=(1, 2)).all()
    # Two copies of one image in two rows differ.
    twins = augmented_batch(images[[0, 0]], [0, 1], Augmentation(), seed=0, epoch=0)
    assert (twins[0] != twins[1]).any()


def test_without_augmentation_the_images_come_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8)).astype(np.uint8)
    batch = augmented_batch(images, [2, 0], None, seed=0, epoch=0)
    np.testing.assert_array_equal(batch, images[[2, 0]])
    assert not np.shares_memory(batch, images)


def test_every_published_setting_can_be_expressed():
    published = {name: a.augmentation for name, a in ARCHITECTURES.items() if a.augmentation}
    assert Augmentation(**published["cnn3"]) == only(rotation=20, zoom=0.1)
    for settings in published.values():
        assert not Augmentation(**settings).flip


def test_the_strong_setting_is_the_wider_one_in_everything():
    assert set(STRENGTHS) == {"none", "mild", "strong", "mixed"}
    assert STRENGTHS["none"] is None
    for name in NONE:
        mild, strong = (getattr(STRENGTHS[key], name) for key in ("mild", "strong"))
        assert strong > mild or (name == "translation" and strong == mild)


def test_an_image_is_seen_again_in_the_same_way_whatever_stands_beside_it():
    images = np.stack([make_phantom(i, size=(64, 64)).image for i in range(3)])
    np.testing.assert_array_equal(seen_again(images, 0), images)
    views = [seen_again(images, view) for view in range(4)]
    for one, other in itertools.combinations(views, 2):
        assert (one != other).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(seen_again(images[1:2], 3), views[3][1:2])
    for view, mirror in ((0, 1), (1, 3)):
        turned = seen_again(images, mirror, mirrored=True)
        np.testing.assert_array_equal(turned, seen_again(images[:, :, ::-1], view))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"translation": 1}, "translation must be a number from 0 to below 1; got 1"),
        ({"zoom": -0.1}, "zoom must be"),
        ({"stretch": 1.0}, "stretch must be"),
        ({"gamma": -1}, "gamma must be"),
        ({"intensity": float("nan")}, "intensity must be"),
        ({"intensity": True}, "intensity must be"),
        ({"rotation": 181}, "rotation must be a number of degrees from 0 to 180; got 181"),
        ({"rotation": "20"}, "rotation must be"),
        ({"flip": "yes"}, "flip must be True or False"),
        ({"fill": "white"}, "fill must be one of black, edge; got 'white'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**settings)
