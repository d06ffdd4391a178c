import hashlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from histcxr.data.discovery import find_inputs
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import InputError, MaskError, RadiographError, Reason, UnjudgeableError
from histcxr.features import measuring
from histcxr.features.histograms import ZONES, masked_histogram
from histcxr.features.measuring import count_lungs, measure_batch, measure_image
from histcxr.features.recipe import BANDS_SIDE, EXTRACTION_VERSION, Recipe, band_histograms
from histcxr.files.writing import encode_image, write_image, write_mask
from histcxr.phantoms.studies import make_phantom, write_broken_files, write_unusual_files


def image_counts(image, mask, zones=1, **options):
    """One image's counts, and the digest of its file."""
    return measure_image(image, mask, partial(count_lungs, recipe=Recipe(zones)), **options)


def batch_counts(images, masks, zones=1, **options):
    return measure_batch(images, masks, partial(count_lungs, recipe=Recipe(zones)), **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A phantom as two files; the mask has another size than the image."""
    folder = tmp_path_factory.mktemp("pair")
    phantom = make_phantom(3)
    write_image(folder / "image.png", phantom.image)
    larger = cv2.resize(phantom.mask.astype(np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST)
    write_mask(folder / "mask.png", larger.astype(bool))
    return str(folder / "image.png"), str(folder / "mask.png")


@pytest.mark.parametrize("zones", ZONES)
def test_counts_are_those_of_the_pixels_read(pair, zones):
    pixels = read_radiograph(pair[0]).pixels
    expected = masked_histogram(pixels, read_mask(pair[1], pixels.shape), zones)
    np.testing.assert_array_equal(image_counts(*pair, zones)[0], expected)


def test_bands_are_those_of_blocks_of_four_pixels(pair):
    pixels, mask = read_radiograph(pair[0]).pixels, read_mask(pair[1], read_radiograph(pair[0]).pixels.shape)
    assert pixels.shape == (2 * BANDS_SIDE, 2 * BANDS_SIDE)
    halved = pixels.reshape(BANDS_SIDE, 2, BANDS_SIDE, 2).mean((1, 3))
    lungs = mask.reshape(BANDS_SIDE, 2, BANDS_SIDE, 2).mean((1, 3)) >= 0.5
    expected = band_histograms(np.floor(halved + 0.5).astype(np.uint8), lungs, 6, ["dog4", "dx2"])
    found = count_lungs(pixels, mask, recipe=Recipe(6, ["dog4", "dx2"]))
    np.testing.assert_array_equal(found[6:], expected.reshape(12, 256))
    np.testing.assert_array_equal(found[:6], masked_histogram(pixels, mask, 6))


def test_files_bytes_and_arrays_give_the_same(pair):
    image, mask = (Path(path).read_bytes() for path in pair)
    expected = image_counts(*pair, 6)[0]
    lungs = read_mask(pair[1], read_radiograph(pair[0]).pixels.shape)
    for sources in ((image, mask), (pair[0], mask), (image, pair[1]), (image, lungs), (pair[0], lungs)):
        np.testing.assert_array_equal(image_counts(*sources, 6)[0], expected)


def test_digest_is_that_of_the_images_file(pair):
    assert image_counts(*pair)[1] == ""
    data = Path(pair[0]).read_bytes()
    expected = hashlib.sha256(data).hexdigest()
    assert image_counts(*pair, digest=True)[1] == expected
    assert image_counts(data, pair[1], digest=True)[1] == expected
    assert batch_counts([pair[0]], [pair[1]], digest=True)[0][1] == expected


def test_every_broken_file_gives_its_reason(tmp_path):
    expected = write_broken_files(tmp_path)
    seen = {}
    for item in find_inputs(tmp_path):
        if item.problem is None and item.mask:
            with pytest.raises(UnjudgeableError) as raised:
                image_counts(item.path, item.mask)
            seen[item.relative] = raised.value.reason
    assert len(seen) >= 15
    assert seen == {name: reason for name, reason in expected.items() if name in seen}


def test_inverted_grey_levels_are_told_whoever_made_the_mask(pair):
    phantom = make_phantom(3)
    with pytest.raises(RadiographError) as raised:
        image_counts(encode_image(255 - phantom.image), phantom.mask)
    assert raised.value.reason is Reason.POLARITY
    lungs_only = np.where(phantom.mask, phantom.image, 0).astype(np.uint8)
    counts = image_counts(encode_image(lungs_only), phantom.mask)[0]
    np.testing.assert_array_equal(counts, image_counts(encode_image(phantom.image), phantom.mask)[0])


def test_every_unusual_file_is_counted(tmp_path):
    names = write_unusual_files(tmp_path)
    items = [item for item in find_inputs(tmp_path) if item.relative in names]
    assert len(items) == len(names) >= 5
    for result in batch_counts([item.path for item in items], [item.mask for item in items], 6):
        assert result[0].shape == (6, 256)
        assert result[0].sum() > 0


@pytest.mark.parametrize("group_pixels", [1, 100_000, 1 << 30])
def test_batch_is_its_images_one_by_one(tmp_path, monkeypatch, group_pixels):
    """Whatever the size of the groups, and with failures of the image, the mask and the lungs in between."""
    monkeypatch.setattr(measuring, "_BATCH_PIXELS", group_pixels)
    write_broken_files(tmp_path)
    write_unusual_files(tmp_path)
    items = [item for item in find_inputs(tmp_path) if item.problem is None]
    images, masks = [item.path for item in items], [item.mask for item in items]
    results = batch_counts(images, masks, 2, digest=True)
    assert len(results) == len(items)
    failed = 0
    for image, mask, result in zip(images, masks, results, strict=True):
        if isinstance(result, UnjudgeableError):
            failed += 1
            with pytest.raises(type(result)) as raised:
                image_counts(image, mask, 2)
            assert (raised.value.reason, raised.value.path, raised.value.detail) == (
                result.reason,
                result.path,
                result.detail,
            )
        else:
            np.testing.assert_array_equal(result[0], image_counts(image, mask, 2)[0])
            assert result[1] == hashlib.sha256(Path(image).read_bytes()).hexdigest()
    assert 10 <= failed < len(items) - 5


def test_batch_of_nothing():
    assert batch_counts([], []) == []


def test_groups_of_large_images_are_small(monkeypatch):
    """A group never holds much more than its budget of pixels, however many images come."""
    held = []
    real = measuring._measure_group
    monkeypatch.setattr(measuring, "_BATCH_PIXELS", 100 * 100 * 3)
    monkeypatch.setattr(
        measuring, "_measure_group", lambda group, *rest: (held.append(len(group)), real(group, *rest))
    )
    image = encode_image(np.tile(np.arange(100, dtype=np.uint8) * 2, (100, 1)))
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    results = batch_counts([image] * 10, [mask] * 10)
    assert [result[0].sum() for result in results] == [3600] * 10
    assert held == [3, 3, 3, 1]


def lungs_with(values, share):
    """An image and mask whose lungs hold ``values`` in the given share of their pixels, a ramp elsewhere."""
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:45] = mask[20:80, 55:80] = True
    inside = np.resize(np.arange(60, 160, dtype=np.uint8), int(mask.sum()))
    inside[: round(share * inside.size)] = np.resize(values, round(share * inside.size))
    image = np.full((100, 100), 30, np.uint8)
    image[mask] = inside
    return encode_image(image), mask


@pytest.mark.parametrize("values", [[0], [255], [0, 255]])
@pytest.mark.parametrize("zones", ZONES)
def test_lungs_mostly_black_or_white_show_nothing(values, zones):
    with pytest.raises(RadiographError, match="51% of the lungs are pure black or white") as raised:
        image_counts(*lungs_with(values, 0.51), zones)
    assert raised.value.reason is Reason.BLANK
    assert image_counts(*lungs_with(values, 0.49), zones)[0].sum() > 0


def test_lungs_of_one_grey_show_nothing():
    with pytest.raises(RadiographError, match="grey levels 100 to 101") as raised:
        image_counts(*lungs_with([100, 101], 1), path="pale.png")
    assert raised.value.reason is Reason.BLANK
    assert raised.value.path == "pale.png"


def test_missing_mask_has_its_reason(pair):
    for missing in ("", pair[1] + ".not_there"):
        with pytest.raises(MaskError) as raised:
            image_counts(pair[0], missing)
        assert raised.value.reason is Reason.MASK_MISSING


@pytest.mark.parametrize(
    "mask", [np.ones((10, 10), bool), np.ones((224, 224), np.uint8), np.ones((224, 224, 1), bool)]
)
def test_wrong_mask_arrays_are_refused(pair, mask):
    with pytest.raises(InputError, match=r"mask must be bool of shape \(224, 224\); got"):
        image_counts(pair[0], mask)


def test_mask_array_is_checked_like_a_file(pair):
    with pytest.raises(MaskError) as raised:
        image_counts(pair[0], np.zeros((224, 224), bool))
    assert raised.value.reason is Reason.MASK_EMPTY


def test_lengths_must_agree(pair):
    with pytest.raises(InputError, match="of one length; got 2, 1 and 2"):
        batch_counts([pair[0]] * 2, [pair[1]])
    with pytest.raises(InputError, match="of one length; got 1, 1 and 0"):
        batch_counts([pair[0]], [pair[1]], paths=[])


def test_known_answer():
    """Whoever changes how these files are read or counted must raise EXTRACTION_VERSION, or caches are trusted."""
    y, x = np.mgrid[:150, :170]
    image = ((3 * y + 5 * x + (y * x) % 7) % 254 + 1).astype(np.uint8)
    y, x = np.mgrid[:256, :256]
    mask = ((x - 80) / 30) ** 2 + ((y - 120) / 80) ** 2 < 1
    mask |= ((x - 180) / 35) ** 2 + ((y - 130) / 70) ** 2 < 1
    totals = []
    for made in (image, image.astype(np.uint16) * 256 + 77, np.dstack([image] * 3)):
        for bilevel in (True, False):
            lungs = encode_image(mask * np.uint8(255), bilevel=bilevel)
            counts = image_counts(encode_image(made), lungs, 6)[0]
            totals.append(int((counts * np.arange(1, counts.size + 1).reshape(counts.shape)).sum()))
    assert (EXTRACTION_VERSION, totals) == (3, [4551831] * 6)
