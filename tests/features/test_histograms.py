import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histcxr.exceptions import InputError
from histcxr.features.histograms import (
    BINS,
    HISTOGRAM_VERSION,
    ZONES,
    check_zones,
    masked_histogram,
    zone_labels,
    zone_names,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)


@st.composite
def images_and_masks(draw):
    """Any image with any mask: noise, blobs, stripes; most of them like no lung at all."""
    shape = draw(SHAPES)
    image = draw(hnp.arrays(np.uint8, shape))
    if draw(st.booleans()):
        return image, draw(hnp.arrays(np.bool_, shape))
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(0, 4))):
        y, x = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        mask[y : y + draw(st.integers(1, 30)), x : x + draw(st.integers(1, 30))] = True
    return image, mask


def lungs(size=224, angle=0.0, joined=False, only=None):
    """Two ellipses like lungs; turned about the image's centre, joined by a bridge, or only one of them."""
    y, x = (np.mgrid[:size, :size] + 0.5) * (224 / size) - 112
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x, y = x * cos - y * sin, x * sin + y * cos
    mask = np.zeros((size, size), bool)
    for side, centre in (("right", -47), ("left", 47)):
        if only in (None, side):
            mask |= ((x - centre) / 30) ** 2 + ((y + 2) / 75) ** 2 <= 1
    if joined:
        mask |= (np.abs(x) < 47) & (np.abs(y + 9) < 3)
    return mask


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---- counts against numpy ----


@given(images_and_masks())
@settings(max_examples=150, deadline=None)
def test_counts_equal_numpy_for_every_zone_setting(pair):
    image, mask = pair
    whole = np.bincount(image[mask], minlength=BINS)
    for zones in ZONES:
        counts = masked_histogram(image, mask, zones)
        assert counts.dtype == np.int64
        assert counts.shape == (len(zone_names(zones)), BINS)
        labels = zone_labels(mask, zones)
        parts = counts[1:] if isinstance(zones, str) else counts
        for zone, row in enumerate(parts, start=1):
            np.testing.assert_array_equal(row, np.bincount(image[labels == zone], minlength=BINS))
        np.testing.assert_array_equal(parts.sum(axis=0), whole)
        if isinstance(zones, str):
            np.testing.assert_array_equal(counts[0], whole)


@given(images_and_masks(), st.sampled_from(ZONES))
@settings(max_examples=150, deadline=None)
def test_labels_partition_the_mask(pair, zones):
    _, mask = pair
    labels = zone_labels(mask, zones)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels > 0, mask)
    assert labels.max(initial=0) <= (zones if isinstance(zones, int) else int(zones[-1]))


@given(images_and_masks(), st.sampled_from(ZONES))
@settings(max_examples=80, deadline=None)
def test_pixels_outside_the_mask_do_not_matter(pair, zones):
    image, mask = pair
    other = np.where(mask, image, image[::-1, ::-1] ^ 0x5A)
    np.testing.assert_array_equal(masked_histogram(other, mask, zones), masked_histogram(image, mask, zones))


@given(images_and_masks(), st.integers(1, 80), st.sampled_from(ZONES))
@settings(max_examples=80, deadline=None)
def test_shifted_intensity_shifts_bins(pair, shift, zones):
    image, mask = pair
    image = np.minimum(image, 255 - shift).astype(np.uint8)
    shifted = masked_histogram(image + np.uint8(shift), mask, zones)
    np.testing.assert_array_equal(shifted, np.roll(masked_histogram(image, mask, zones), shift, axis=1))


def test_large_image_is_counted_exactly():
    """More equal pixels than float32 can count one by one."""
    image = np.full((4100, 4100), 7, np.uint8)
    image[0, 0] = 9
    counts = masked_histogram(image, np.ones(image.shape, bool))
    assert counts[0, 7] == 4100 * 4100 - 1
    assert counts[0, 9] == 1


@pytest.mark.parametrize("zones", ZONES)
def test_views_of_other_layouts_give_the_same(zones):
    image, mask = noise((224, 224)), lungs()
    expected = masked_histogram(image, mask, zones)
    wide_image, wide_mask = np.repeat(image, 2, axis=1), np.repeat(mask, 2, axis=1)
    np.testing.assert_array_equal(masked_histogram(wide_image[:, ::2], wide_mask[:, ::2], zones), expected)
    fortran = masked_histogram(np.asfortranarray(image), np.asfortranarray(mask), zones)
    np.testing.assert_array_equal(fortran, expected)
    readonly_image, readonly_mask = image.copy(), mask.copy()
    readonly_image.flags.writeable = readonly_mask.flags.writeable = False
    np.testing.assert_array_equal(masked_histogram(readonly_image, readonly_mask, zones), expected)


def test_inputs_are_not_changed():
    image, mask = noise((224, 224)), lungs(joined=True)
    before = image.copy(), mask.copy()
    for zones in ZONES:
        masked_histogram(image, mask, zones)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("zones", ZONES)
def test_empty_mask_gives_zeros(zones):
    mask = np.zeros((30, 40), bool)
    assert not masked_histogram(noise((30, 40)), mask, zones).any()
    assert not zone_labels(mask, zones).any()


# ---- where the zones lie ----


def test_right_lung_is_left_in_the_image():
    labels = zone_labels(lungs(), 2)
    assert zone_names(2) == ("right", "left")
    assert set(np.unique(labels[:, :110])) == {0, 1}
    assert set(np.unique(labels[:, 115:])) == {0, 2}


def test_thirds_are_thirds_of_each_lungs_own_height():
    mask = np.zeros((200, 200), bool)
    mask[10:100, 20:60] = True  # the right lung: rows 10 to 99
    mask[40:190, 130:170] = True  # the left lung: rows 40 to 189
    labels = zone_labels(mask, 6)
    for zone, (first, stop) in enumerate([(10, 40), (40, 70), (70, 100), (40, 90), (90, 140), (140, 190)], 1):
        rows = np.flatnonzero((labels == zone).any(axis=1))
        assert (rows[0], rows[-1] + 1) == (first, stop), zone_names(6)[zone - 1]


@pytest.mark.parametrize("height", range(1, 15))
def test_thirds_are_as_equal_as_can_be_and_the_same_upside_down(height):
    mask = np.zeros((20, 20), bool)
    mask[3 : 3 + height, 2:8] = mask[3 : 3 + height, 12:18] = True
    rows = [int((zone_labels(mask, 6) == zone).any(axis=1).sum()) for zone in (1, 2, 3)]
    assert sum(rows) == height
    assert max(rows) - min(rows) <= 1
    assert rows == rows[::-1]


@pytest.mark.parametrize("joined", [False, True])
def test_flip_swaps_lungs(joined):
    image, mask = noise((224, 224)), lungs(joined=joined)
    for zones, swap in ((2, [1, 0]), (6, [3, 4, 5, 0, 1, 2]), ("1+2", [0, 2, 1]), (1, [0])):
        there = masked_histogram(image, mask, zones)
        back = masked_histogram(image[:, ::-1], mask[:, ::-1], zones)[swap]
        # A cut through joined lungs gives the pixels on the line itself to one side.
        assert np.abs(there - back).sum() <= (12 if joined else 0)


def test_upside_down_swaps_thirds():
    image, mask = noise((224, 224)), lungs()
    there = masked_histogram(image, mask, 6)
    back = masked_histogram(image[::-1], mask[::-1], 6)[[2, 1, 0, 5, 4, 3]]
    np.testing.assert_array_equal(there, back)


@pytest.mark.parametrize("angle", [-40, -25, -12, 12, 25, 40])
def test_rotated_patient_keeps_whole_lungs(angle):
    """Turned lungs share columns, so no vertical line parts them; each must stay whole all the same."""
    mask = lungs(angle=angle)
    labels = zone_labels(mask, 2)
    n, components = cv2.connectedComponents(mask.astype(np.uint8))
    assert n == 3
    for component in (1, 2):
        assert len(np.unique(labels[components == component])) == 1
    x = [np.nonzero(labels == zone)[1].mean() for zone in (1, 2)]
    assert x[0] < x[1]


@pytest.mark.parametrize("angle", [0, -15, 15])
def test_touching_lungs_are_cut_between_them(angle):
    joined, apart = lungs(joined=True, angle=angle), lungs(angle=angle)
    assert cv2.connectedComponents(joined.astype(np.uint8))[0] == 2
    got, expected = zone_labels(joined, 2), zone_labels(apart, 2)
    assert (got[apart] == expected[apart]).mean() > 0.999


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("angle", [0, 10])
def test_one_lung_alone(side, angle):
    mask = lungs(only=side, angle=angle)
    counts = masked_histogram(noise((224, 224)), mask, 2)
    present = zone_names(2).index(side)
    assert counts[present].sum() == mask.sum()
    assert counts[1 - present].sum() == 0
    sixths = masked_histogram(noise((224, 224)), mask, 6).sum(axis=1)
    assert (sixths > 0).sum() == 3


@pytest.mark.parametrize(("centre", "zone"), [(100, 1), (105, 1), (118, 2), (124, 2)])
def test_one_lung_across_the_middle_stays_whole(centre, zone):
    """As in a picture cut to one lung, or of a patient beside the middle."""
    y, x = np.mgrid[:224, :224]
    mask = ((x - centre) / 35) ** 2 + ((y - 110) / 80) ** 2 <= 1
    assert mask[:, 111].any()
    assert mask[:, 112].any()
    assert set(np.unique(zone_labels(mask, 2))) == {0, zone}


def test_remnant_of_the_other_lung_is_the_other_lung():
    mask = lungs(only="right")
    mask[150:158, 150:160] = True  # 80 of 7,000 pixels
    labels = zone_labels(mask, 2)
    assert (labels[150:158, 150:160] == 2).all()
    assert (labels[:, :110][mask[:, :110]] == 1).all()


def test_lung_in_pieces_stays_one_lung():
    mask = lungs(only="left")
    mask[105:112] = False
    labels = zone_labels(mask, 2)
    assert set(np.unique(labels)) == {0, 2}


def test_specks_do_not_move_the_thirds():
    clean = lungs()
    dirty = clean.copy()
    dirty[2:4, 60:63] = True
    dirty[218:221, 150:155] = True
    labels, expected = zone_labels(dirty, 6), zone_labels(clean, 6)
    np.testing.assert_array_equal(labels[clean], expected[clean])
    assert (labels[2:4, 60:63] == 1).all()  # the nearest third: right upper
    assert (labels[218:221, 150:155] == 6).all()  # left lower


def test_speck_between_the_lungs_goes_to_one_of_them():
    clean = lungs(angle=12)
    dirty = clean.copy()
    dirty[20:200, 112] = True  # as a tube or the edge of the spine would be marked
    labels = zone_labels(dirty, 2)
    np.testing.assert_array_equal(labels[clean], zone_labels(clean, 2)[clean])
    assert labels[20:200, 112].all()


@pytest.mark.parametrize("size", [64, 224, 512, 1024])
def test_zone_shares_do_not_depend_on_resolution(size):
    expected = masked_histogram(noise((224, 224)), lungs(), 6).sum(axis=1) / lungs().sum()
    mask = lungs(size)
    found = masked_histogram(noise((size, size)), mask, 6).sum(axis=1) / mask.sum()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_known_answer():
    """Whoever changes the counts of this image must raise HISTOGRAM_VERSION, or old caches are trusted."""
    image = (np.add.outer(np.arange(224) * 3, np.arange(224) * 5) % 251).astype(np.uint8)
    masks = (lungs(), lungs(angle=25), lungs(joined=True), lungs(only="left"))
    counts = np.concatenate([masked_histogram(image, mask, 6) for mask in masks])
    weights = np.arange(1, counts.size + 1).reshape(counts.shape)
    assert (HISTOGRAM_VERSION, int((counts * weights).sum())) == (1, 139230536)


# ---- errors ----


@pytest.mark.parametrize("zones", [1, 2, 6, "1+2", "1+6", "6", np.int64(2)])
def test_zone_settings_are_understood(zones):
    assert check_zones(zones) in ZONES


@pytest.mark.parametrize("zones", [0, 3, -1, True, 2.0, "two", "1+3", None, [1], np.array([1, 2])])
def test_unknown_zones_are_refused(zones):
    with pytest.raises(InputError, match="zones must be one of 1, 2, 6, '1\\+2', '1\\+6'; got"):
        check_zones(zones)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4), np.uint16), "uint16 of shape"),
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint8), r"\(4, 4, 3\)"),
        ([[0] * 4] * 4, "list"),
    ],
)
def test_wrong_image_is_refused(image, found):
    with pytest.raises(InputError, match=f"image must be a 2-D array of uint8; got .*{found}"):
        masked_histogram(image, np.ones((4, 4), bool))


@pytest.mark.parametrize(
    "mask", [np.ones((4, 4), np.uint8), np.ones((4, 4, 1), bool), np.ones(16, bool), None]
)
def test_wrong_mask_is_refused(mask):
    with pytest.raises(InputError, match="mask must be a 2-D array of bool"):
        masked_histogram(np.zeros((4, 4), np.uint8), mask)
    with pytest.raises(InputError, match="mask must be a 2-D array of bool"):
        zone_labels(mask)


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"one shape; got \(4, 5\) and \(5, 4\)"):
        masked_histogram(np.zeros((4, 5), np.uint8), np.ones((5, 4), bool))


def test_array_without_pixels_is_refused():
    with pytest.raises(InputError, match="at least one pixel"):
        masked_histogram(np.zeros((0, 4), np.uint8), np.ones((0, 4), bool))
