import cv2
import numpy as np
import pytest
from scipy import ndimage

from histcxr.data.radiograph import WORKING_SIDE, working_image
from histcxr.exceptions import InputError
from histcxr.features.filters import (
    FULL_BANDS,
    TRAVEL_BANDS,
    Band,
    as_bands,
    filtered_images,
)
from histcxr.features.histograms import ZONES, zone_labels, zone_names
from histcxr.features.recipe import BINS_PER_SPREAD, ZERO_BIN, band_histograms

EVERY = ("dog1", "dog4", "dx2", "dy3", "dxx2", "dyy4", "dxy2", "mag1.5", "std4")
SIGNED = tuple(name for name in EVERY if not name.startswith(("mag", "std")))


def lungs(size=WORKING_SIDE, seed=0):
    """Textured pixels, darker inside two ellipses, and the ellipses: the image's longer side is ``size``."""
    rng = np.random.default_rng(seed)
    scale = size / WORKING_SIDE
    height, width = round(200 * scale), size
    y, x = np.mgrid[:height, :width] / scale
    coarse = ndimage.gaussian_filter(rng.normal(size=(100, 112)), 2.5)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    mask = ((x - 65) / 32) ** 2 + ((y - 100) / 70) ** 2 < 1
    mask |= ((x - 160) / 28) ** 2 + ((y - 105) / 66) ** 2 < 1
    pixels = 150 - 50 * mask + 0.2 * y + 180 * texture
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask


def oracle(pixels, mask, band):
    """The filter written down again with SciPy, in float64, on the whole image."""
    image, weight = pixels.astype(float) * mask, mask.astype(float)

    def blur(array, sigma):
        return ndimage.gaussian_filter(array, sigma, mode="constant", truncate=4.0)

    def low(values, sigma):
        norm = blur(weight, sigma)
        return np.divide(blur(values, sigma), norm, out=np.zeros_like(norm), where=norm > 1e-10)

    s = band.scale
    if band.kind == "dog":
        return low(image, s) - low(image, 2 * s)
    if band.kind == "std":
        return np.sqrt(np.maximum(low(image * pixels, s) - low(image, s) ** 2, 0))
    # Outside the lungs' reach the low-pass has no value; one pixel beyond the mask it always has.
    smooth, slope, curve = np.array([1, 2, 1]) / 4, np.array([-1, 0, 1]) / 2, np.array([1, -2, 1])
    means = low(image, s)

    def separable(across, down):
        return ndimage.correlate1d(ndimage.correlate1d(means, across, axis=1), down, axis=0)

    if band.kind == "mag":
        return np.hypot(separable(slope, smooth), separable(smooth, slope))
    kernels = {
        "dx": (slope, smooth),
        "dy": (smooth, slope),
        "dxx": (curve, smooth),
        "dyy": (smooth, curve),
        "dxy": (slope, slope),
    }
    return separable(*kernels[band.kind])


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# ---- filters ----


@pytest.mark.parametrize("name", EVERY)
def test_filters_equal_scipys(name):
    pixels, mask = lungs()
    found = filtered_images(pixels, mask, [name])
    box = box_of(mask)
    np.testing.assert_array_equal(found.mask, mask[box])
    expected = oracle(pixels, mask, Band.parse(name))[mask]
    assert np.ptp(expected) > 0.5
    # The variance is a small difference of large numbers, in float32.
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-4, atol=5e-3 if "std" in name else 1e-3)


def test_filters_equal_scipys_in_small_images():
    pixels, mask = lungs(WORKING_SIDE // 2)
    for name in ("dog4", "dx4", "dyy4", "std8"):
        band = Band.parse(name)
        # In pixels of an image half the working size, scales are half as long, and slopes twice as steep.
        expected = oracle(pixels, mask, Band(band.kind, band.scale / 2))
        expected *= {"dx": 0.5, "dyy": 0.25}.get(band.kind, 1)
        found = filtered_images(pixels, mask, [band]).values[0]
        np.testing.assert_allclose(found, expected[mask], rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("size", [150, WORKING_SIDE, 500, 1000])
def test_pixels_outside_the_mask_never_matter(size):
    pixels, mask = lungs(size)
    noise = np.random.default_rng(1).integers(0, 256, pixels.shape, dtype=np.uint8)
    other = np.where(mask, pixels, noise)
    assert (other != pixels).any()
    first, second = (filtered_images(image, mask, EVERY) for image in (pixels, other))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(
        band_histograms(pixels, mask, 6, EVERY), band_histograms(other, mask, 6, EVERY)
    )


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("size", [150, 500])
def test_constant_lungs_have_no_response(level, size):
    pixels, mask = lungs(size)
    pixels[mask] = level
    assert not filtered_images(pixels, mask, EVERY).values.any()
    counts = band_histograms(pixels, mask, 6, EVERY)
    for name, rows in zip(EVERY, counts, strict=True):
        zero = ZERO_BIN if name in SIGNED else 0
        assert rows[:, zero].sum() == rows.sum() > 0


@pytest.mark.parametrize("size", [150, WORKING_SIDE, 500])
def test_a_shift_of_the_intensities_changes_nothing(size):
    pixels, mask = lungs(size)
    pixels = np.clip(pixels, 40, 200)
    for shift in (-40, 7, 55):
        moved = (pixels.astype(int) + shift).astype(np.uint8)
        first, second = (filtered_images(image, mask, EVERY).values for image in (pixels, moved))
        np.testing.assert_array_equal(first, second)


def test_contrast_drops_out_of_the_counts():
    pixels, mask = lungs()
    pixels = (pixels // 2).astype(np.uint8)
    found, doubled = (band_histograms(image, mask, 6, EVERY) for image in (pixels, pixels * 2))
    moved = np.abs(np.cumsum(found - doubled, axis=2)).max(axis=2)
    # Only responses between two bins may change theirs.
    assert moved.max() <= 3
    assert np.abs(found - doubled).sum() < 0.01 * found.sum()


def test_a_known_ramp_has_its_slope_and_no_curvature():
    x = np.arange(200)
    pixels = np.tile((x // 2 + 40).astype(np.uint8), (180, 1))
    mask = np.zeros(pixels.shape, bool)
    mask[10:170, 10:190] = True
    wide = np.pad(pixels, ((22, 22), (12, 12))), np.pad(mask, ((22, 22), (12, 12)))
    found = filtered_images(*wide, ["dx4", "dy4", "dxx4"]).values
    across, down, curved = found.reshape(3, 160, 180)  # the mask fills its box
    inner = np.s_[40:-40, 40:-40]
    np.testing.assert_allclose(across[inner], 0.5, atol=0.01)
    np.testing.assert_allclose(down[inner], 0, atol=1e-4)
    np.testing.assert_allclose(curved[inner], 0, atol=0.01)


def shares(counts):
    return np.cumsum(counts / counts.sum(axis=2, keepdims=True), axis=2)


@pytest.mark.parametrize("size", [448, 1000, 2240])
def test_resolution_does_not_matter(size):
    pixels, mask = lungs(size)
    small = working_image(mask.astype(np.uint8) * 255) > 127
    reference = band_histograms(*lungs(), 6, TRAVEL_BANDS)
    found = band_histograms(working_image(pixels), small, 6, TRAVEL_BANDS)
    # Kolmogorov's distance between the distributions, and the number of pixels counted.
    assert np.abs(shares(reference) - shares(found)).max() < 0.07
    assert abs(found.sum() / reference.sum() - 1) < 0.02


def test_scales_grow_with_images_that_are_larger_than_the_working_image():
    reference, found = (band_histograms(*lungs(size), 6, ["dog4", "dog8"]) for size in (WORKING_SIDE, 448))
    assert np.abs(shares(reference) - shares(found)).max() < 0.05


# ---- histograms ----


@pytest.mark.parametrize("zones", ZONES)
def test_histograms_equal_numpys(zones):
    pixels, mask = lungs()
    counts = band_histograms(pixels, mask, zones, EVERY)
    assert counts.shape == (len(EVERY), len(zone_names(zones)), 256)
    assert counts.dtype == np.int64
    filtered = filtered_images(pixels, mask, EVERY)
    labels = zone_labels(filtered.mask, zones)[filtered.mask]
    for name, image, rows in zip(EVERY, filtered.values, counts, strict=True):
        values = np.sort(image.astype(float))
        n = len(values)
        if name in SIGNED:
            spread, zero = values[n - 1 - n // 4] - values[n // 4], ZERO_BIN
        else:
            spread, zero = values[n // 2], 0
        edges = (np.arange(257) - 0.5 - zero) / BINS_PER_SPREAD * spread
        edges[0], edges[-1] = -np.inf, np.inf
        parts = [
            np.histogram(image[labels == label].astype(float), edges)[0]
            for label in range(1, labels.max() + 1)
        ]
        if isinstance(zones, str):
            parts = [np.sum(parts, axis=0), *parts]
        # A response on the edge of two bins, to the last bit of float32, may lie in either.
        assert np.abs(np.cumsum(rows - np.array(parts), axis=1)).max() <= 2
        np.testing.assert_array_equal(rows.sum(axis=1), np.sum(parts, axis=1))


def test_zones_add_up():
    pixels, mask = lungs()
    whole = band_histograms(pixels, mask, 1, EVERY)
    np.testing.assert_array_equal(whole[:, 0].sum(axis=1), mask.sum())
    for zones in (2, 6):
        parts = band_histograms(pixels, mask, zones, EVERY)
        np.testing.assert_array_equal(parts.sum(axis=1, keepdims=True), whole)
        both = band_histograms(pixels, mask, f"1+{zones}", EVERY)
        np.testing.assert_array_equal(both, np.concatenate([whole, parts], axis=1))


def test_a_rib_in_one_lung_is_seen_there_only():
    pixels, mask = lungs()
    ribbed = pixels.copy()
    ribbed[60:66, 40:95] = np.where(mask[60:66, 40:95], 255, pixels[60:66, 40:95])
    smooth, found = (band_histograms(image, mask, 2, ["dog2"])[0] for image in (pixels, ribbed))
    high = np.s_[ZERO_BIN + 2 * BINS_PER_SPREAD :]
    assert found[0][high].sum() > smooth[0][high].sum() + 100
    assert found[1][high].sum() <= smooth[1][high].sum() + 20


@pytest.mark.parametrize("dtype_of_view", ["flipped", "strided", "fortran", "read-only"])
def test_views_count_like_copies(dtype_of_view):
    pixels, mask = lungs()
    if dtype_of_view == "flipped":
        views = pixels[::-1, ::-1], mask[::-1, ::-1]
    elif dtype_of_view == "strided":
        views = pixels[:, ::2], mask[:, ::2]
    elif dtype_of_view == "fortran":
        views = np.asfortranarray(pixels), np.asfortranarray(mask)
    else:
        pixels.flags.writeable = mask.flags.writeable = False
        views = pixels, mask
    found = band_histograms(*views, "1+6", EVERY)
    copies = (np.array(view, order="C") for view in views)
    np.testing.assert_array_equal(found, band_histograms(*copies, "1+6", EVERY))


def test_inputs_are_left_alone():
    pixels, mask = lungs()
    before = pixels.copy(), mask.copy()
    band_histograms(pixels, mask, 6, EVERY)
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("size", [40, WORKING_SIDE, 3000])
@pytest.mark.parametrize("corner", [(0, 0), (-1, -1)])
def test_single_pixels_and_empty_masks(size, corner):
    pixels = np.full((size, size), 77, np.uint8)
    mask = np.zeros(pixels.shape, bool)
    assert not band_histograms(pixels, mask, 6, EVERY).any()
    mask[corner] = True
    counts = band_histograms(pixels, mask, "1+2", EVERY)
    np.testing.assert_array_equal(counts.sum(axis=2)[:, 0], 1)


def test_lungs_that_fill_the_image_to_its_edge():
    pixels, _ = lungs()
    mask = np.ones(pixels.shape, bool)
    found = filtered_images(pixels, mask, ["dx2", "dog4"])
    padded = filtered_images(np.pad(pixels, 12)[:, 12:-12], np.pad(mask, 12)[:, 12:-12], ["dx2", "dog4"])
    np.testing.assert_allclose(found.values, padded.values, atol=1e-3)


# ---- names and errors ----


def test_bands_by_name():
    assert as_bands(True) == as_bands("travel") == as_bands(TRAVEL_BANDS)
    assert as_bands(False) == as_bands("") == ()
    assert [band.name for band in as_bands("full")] == list(FULL_BANDS)
    assert as_bands("dog4, dx1.50") == (Band("dog", 4), Band("dx", 1.5))
    assert as_bands([Band("mag", 2), "std2"]) == (Band("mag", 2), Band("std", 2))
    for name in EVERY:
        assert Band.parse(name).name == name


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["cat4"], "kind must be one of dog, dx, .*got 'cat'"),
        (["dog"], "as 'dog4'; got 'dog'"),
        (["dog-4"], "got 'dog-4'"),
        ([4], "as 'dog4'; got 4"),
        (4, "bands must be a bool, names, or Band objects; got int"),
        (["dog0.1"], "scale must be a number from 0.5 to 64; got 0.1"),
        (["dog65"], "got 65"),
        (["dog4", "dog4.0"], "must all differ; got dog4, dog4"),
    ],
)
def test_unknown_bands_are_refused(bands, message):
    with pytest.raises(InputError, match=message):
        as_bands(bands)


@pytest.mark.parametrize("function", [filtered_images, band_histograms])
def test_wrong_arrays_are_refused(function):
    pixels, mask = lungs()
    with pytest.raises(InputError, match="pixels must be a 2-D array of uint8; got float64"):
        function(pixels.astype(float), mask)
    with pytest.raises(InputError, match="pixels must be a 2-D array of uint8; got list"):
        function(pixels.tolist(), mask)
    with pytest.raises(
        InputError, match=r"mask must be a 2-D array of bool; got uint8 of shape \(200, 224\)"
    ):
        function(pixels, mask.astype(np.uint8))
    with pytest.raises(InputError, match=r"one shape; got \(200, 224\) and \(199, 224\)"):
        function(pixels, mask[1:])


def test_filtering_needs_a_mask():
    pixels, mask = lungs()
    with pytest.raises(InputError, match="mask must have at least one pixel"):
        filtered_images(pixels, np.zeros_like(mask))
    with pytest.raises(InputError, match="zones must be one of"):
        band_histograms(pixels, mask, 3)
