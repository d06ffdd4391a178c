"""The histogram study: slices against extraction, alterations by their properties, the script as a whole."""

import json

import numpy as np
import pytest

from benchmarks.studies import altered, histogram_study, histogram_study_report
from benchmarks.studies import histogram_study_cells as cells
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.extraction import extract_features
from histcxr.features.histograms import masked_histogram
from histcxr.phantoms.studies import make_phantom, write_study


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_study(
        tmp_path_factory.mktemp("data"), n_patients=60, size=(96, 96), mask_size=(96, 96), seed=3
    )


@pytest.fixture(scope="module")
def study(data):
    return histogram_study.read_study(str(data), None, cells.QUICK, 1, 1)


@pytest.fixture
def run(data, tmp_path, capsys):
    """Run the script with little effort; return its records and what it printed."""

    def _run(*arguments):
        file = tmp_path / "study.json"
        histogram_study.main(["--data", str(data), "--json", str(file), "--quick", *arguments])
        return json.loads(file.read_text())["results"], capsys.readouterr()

    return _run


@pytest.mark.parametrize("name", cells.REGIONS)
def test_a_slice_is_what_extraction_gives(data, name):
    manifest = read_manifest(data).head(6)
    region = cells.REGIONS[name]
    counts = extract_features(manifest, cells.RECIPE).counts
    direct = extract_features(manifest, region.zones, bands="travel" if region.bands else ()).counts
    np.testing.assert_array_equal(cells.slice_region(counts, region), direct)


def test_representations_are_what_they_say(study):
    region = cells.REGIONS["whole+zones+bands"]
    counts = study.val.region(region).counts
    found = {name: cells.signals(counts, region, name) for name in cells.REPRESENTATIONS}
    np.testing.assert_array_equal(found["raw"], counts)
    np.testing.assert_allclose(found["density"], counts / counts.sum(axis=2, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found["sqrt"] ** 2, found["density"], atol=1e-6)
    np.testing.assert_allclose(found["cumulative"], np.cumsum(found["density"], axis=2), atol=1e-5)
    np.testing.assert_allclose(found["smoothed"].sum(axis=2), 1, rtol=1e-5)
    assert found["quantile"].shape == (len(counts), 28, 32)
    assert (np.diff(found["quantile"], axis=2) >= 0).all()


def test_a_missing_zone_takes_the_whole_of_its_own_channel(study):
    region = cells.REGIONS["whole+zones+bands"]
    counts = study.val.region(region).counts.copy()
    for channel in (0, 7):  # one zone, in the intensity and in the first band
        counts[0, channel] -= counts[0, channel + 3]
        counts[0, channel + 3] = 0
    density = cells.signals(counts, region, "density")
    by_lenet = cells.filled(counts, region)
    for channel in (0, 7):
        np.testing.assert_allclose(density[0, channel + 3], density[0, channel], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(
            by_lenet[0, channel + 3] / by_lenet[0, channel + 3].sum(), density[0, channel], atol=1e-6
        )
    np.testing.assert_array_equal(by_lenet[1:], counts[1:])


def test_members_from_the_stack_are_the_members_by_themselves(study):
    region = cells.REGIONS["zones"]
    train, val, _ = study.region("zones")
    how = (region, "sqrt", train, [val], cells.QUICK, 1, 1)
    together = cells.fit_scores([*cells.MEMBERS, "stack"], *how)
    alone = cells.fit_scores(cells.MEMBERS, *how)
    assert set(together) == {*cells.MEMBERS, "stack"}
    for name in cells.MEMBERS:
        np.testing.assert_allclose(together[name][0], alone[name][0], atol=1e-6)
    assert len({tuple(scores[0].round(6)) for scores in together.values()}) == 5  # five different models


def test_the_threshold_comes_from_validation_alone():
    rng = np.random.default_rng(0)
    sick = np.arange(400) % 2 == 0
    sample = cells.Sample(np.zeros((400, 1, 256)), sick, np.arange(400).astype(object))
    val, test = (rng.random(400) + 0.5 * sick for _ in range(2))
    found = cells.figures(sample, val, sample, test)
    other = cells.figures(sample, val, sample, test + 1)
    assert found["threshold"] == other["threshold"]
    assert (val[sick] >= found["threshold"]).mean() >= 0.95
    assert (val[sick] > found["threshold"]).mean() < 0.95  # and no lower than it must be
    assert found["sensitivity"] == (test[sick] >= found["threshold"]).mean()
    assert found["specificity"] == (test[~sick] < found["threshold"]).mean()
    assert other["sensitivity"] == 1.0
    assert found["auc_low"] < found["auc"] < found["auc_high"]


def test_training_sets_grow_by_whole_patients():
    patients = np.random.default_rng(1).integers(0, 80, 200).astype(str).astype(object)
    sizes = [20, 60, 120, 200]
    subsets = [histogram_study.nested_subset(patients, size, seed=4) for size in sizes]
    for size, rows in zip(sizes, subsets, strict=True):
        assert not set(patients[rows]) & set(np.delete(patients, rows))
        assert size <= len(set(rows)) == len(rows) < size + 10
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert set(smaller) < set(larger)
    assert set(subsets[0]) != set(histogram_study.nested_subset(patients, 20, seed=5))
    np.testing.assert_array_equal(subsets[-1], np.arange(200))


# Alterations


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(5, sick=True, size=(128, 128))


def test_alterations_touch_the_lungs_or_the_mask_but_not_both(phantom):
    for name, alter in altered.ALTERATIONS.items():
        pixels, lungs = alter(phantom.image.copy(), phantom.mask.copy())
        assert pixels.dtype == np.uint8
        assert lungs.dtype == bool
        np.testing.assert_array_equal(pixels[~phantom.mask], phantom.image[~phantom.mask])
        same = np.array_equal(pixels, phantom.image), np.array_equal(lungs, phantom.mask)
        assert same == (name == "none" or name.startswith("mask"), not name.startswith("mask")), name


def test_masks_shrink_and_grow_within_each_other(phantom):
    masks = [altered.resized_mask(phantom.image, phantom.mask, by=by)[1] for by in (-4, -2, 2, 4)]
    nested = [*masks[:2], phantom.mask, *masks[2:]]
    for inner, outer in zip(nested, nested[1:], strict=False):
        assert (inner <= outer).all()
        assert inner.sum() < outer.sum()
    everything = np.ones((20, 20), bool)
    eroded = altered.resized_mask(np.zeros((20, 20), np.uint8), everything, by=-2)[1]
    assert eroded.sum() == 16 * 16  # beyond the image there are no lungs


def test_brightness_moves_the_histogram(phantom):
    pixels = np.clip(phantom.image, 30, 200)
    moved, _ = altered.ALTERATIONS["brightness +20"](pixels, phantom.mask)
    before, after = (masked_histogram(image, phantom.mask)[0] for image in (pixels, moved))
    np.testing.assert_array_equal(after[20:], before[:-20])


@pytest.mark.parametrize(("there", "back"), [("contrast x0.8", "contrast x1.25"), ("gamma 0.7", "gamma 1.4")])
def test_levels_keep_their_order_and_come_back(there, back):
    ramp, all_lungs = np.arange(256, dtype=np.uint8)[None], np.ones((1, 256), bool)
    changed, _ = altered.ALTERATIONS[there](ramp, all_lungs)
    assert (np.diff(changed[0].astype(int)) >= 0).all()
    again, _ = altered.ALTERATIONS[back](changed, all_lungs)
    assert np.abs(again.astype(int) - ramp).max() <= 3  # 0.7 times 1.4 is 0.98


def test_equalised_lungs_use_all_levels_alike(phantom):
    pixels, _ = altered.equalised(phantom.image, phantom.mask)
    inside = np.sort(pixels[phantom.mask])
    even = np.linspace(0, 255, inside.size)
    assert np.abs(inside - even).mean() < 6
    assert np.abs(np.sort(phantom.image[phantom.mask]) - even).mean() > 20  # and they did not before


def test_a_blur_smooths_the_lungs_and_lets_nothing_in(phantom):
    only_lungs = np.where(phantom.mask, 90, 0).astype(np.uint8)
    blurred, _ = altered.blurred(only_lungs, phantom.mask, sigma=2)
    np.testing.assert_array_equal(blurred, only_lungs)
    rough = [
        np.abs(np.diff(altered.blurred(phantom.image, phantom.mask, sigma=s)[0].astype(int))).mean()
        for s in (0.5, 1, 2)
    ]
    assert rough[0] > rough[1] > rough[2]


def test_altered_images_are_counted_as_any_image(data):
    manifest = read_manifest(data).head(8)
    counts, reasons = altered.count_altered(manifest, altered.ALTERATIONS["none"], cells.RECIPE, 2)
    np.testing.assert_array_equal(counts, extract_features(manifest, cells.RECIPE).counts)
    assert reasons == [""] * 8
    turn = iter(range(8))
    counts, reasons = altered.count_altered(
        manifest, lambda pixels, lungs: (pixels, lungs & (next(turn) != 2)), cells.RECIPE, 1
    )
    assert [bool(reason) for reason in reasons] == [row == 2 for row in range(8)]
    assert not counts[2].any()


def test_nothing_altered_is_nothing_lost():
    rng = np.random.default_rng(0)
    sick = np.arange(100) < 50
    scores = rng.random(100) * 0.5 + 0.5 * sick
    sample = cells.Sample(np.zeros((100, 1, 256)), sick, np.arange(100).astype(object))
    same = histogram_study.losses(scores, scores, sample, 0.4)
    assert (same["auc_lost"], same["lost_low"], same["lost_high"]) == (0, 0, 0)
    # Two sick images change places, and no sick one with a normal one: nothing is lost, with no variance.
    swapped = scores.copy()
    swapped[np.argsort(scores)[-2:]] = np.sort(scores)[[-1, -2]]
    unchanged = histogram_study.losses(scores, swapped, sample, 0.4) | {"refused": 0}
    assert unchanged["auc_lost"] == 0
    text = histogram_study_report.markdown({"robustness/zones/svm/swapped": unchanged})
    assert "0.000 (no interval)" in text
    worse = histogram_study.losses(scores, rng.random(100), sample, 0.4)
    assert worse["lost_low"] < worse["auc_lost"] < worse["lost_high"]
    assert worse["auc"] + worse["auc_lost"] == pytest.approx(same["auc"])


# The script


def test_from_folder_to_tables(run, monkeypatch):
    monkeypatch.setattr(histogram_study, "SIZES", (30, 1000))
    done, printed = run(
        *("--only", "grid/*/sqrt/knn", "--only", "grid/lungs/*/svm", "--only", "learning/whole/svm/*"),
        *("--only", "robustness/zones/svm/none", "--only", "robustness/zones/svm/mask eroded 4 px"),
    )
    assert (
        len(done) == 5 + 6 + 4 + 2
    )  # three small training sets, and everything once; 1000 is more than there are
    assert all(0 <= record["auc"] <= 1 for record in done.values())
    assert f"| sqrt           | {done['grid/zones/sqrt/knn']['auc']:.3f} |" in printed.out
    learning = {key: record for key, record in done.items() if key.startswith("learning")}
    assert all(record["images"] >= int(key.split("/")[3]) for key, record in learning.items())
    clean, eroded = done["robustness/zones/svm/none"], done["robustness/zones/svm/mask eroded 4 px"]
    assert clean["auc_lost"] == clean["refused"] == 0
    assert eroded["auc"] + eroded["auc_lost"] == pytest.approx(clean["auc"])
    assert "### zones, svm" in printed.out


def test_the_lenet_fills_its_cells(run):
    pytest.importorskip("keras")
    keys = ("grid/zones/raw/lenet", "grid/whole/quantile/lenet", "learning/whole/lenet+augmentation/*/0")
    done, _ = run(*(part for key in keys for part in ("--only", key)))
    assert len(done) >= 3
    assert all(0 <= record["auc"] <= 1 for record in done.values())


def test_without_keras_the_other_cells_are_filled(run, monkeypatch):
    def missing(name, purpose):
        raise MissingDependencyError(f"{name} is needed {purpose}")

    monkeypatch.setattr(histogram_study, "import_neural", missing)
    done, printed = run("--only", "grid/whole/sqrt/knn", "--only", "grid/whole/sqrt/lenet")
    assert list(done) == ["grid/whole/sqrt/knn"]
    assert "the LeNet's cells stay empty: keras is needed" in printed.err


def test_every_part_is_planned_once_and_a_pattern_must_match():
    keys = histogram_study.plan(5000, rivals=True)
    assert len(keys) == len(set(keys))
    assert sum(key.startswith("grid/") for key in keys) == 5 * 6 * 6
    assert sum(key.startswith("robustness/") for key in keys) == 14 * 4
    assert not any(key.startswith("rivals/") for key in histogram_study.plan(5000, rivals=False))
    with pytest.raises(InputError, match="'grid/zone/.' matches none of"):
        histogram_study.chosen(keys, ["grid/zone/*"])


def test_means_compare_like_with_like():
    def cell(auc, val_auc):
        return {"val_auc": val_auc, **dict.fromkeys(("auc", "auc_low", "auc_high"), auc),
                **dict.fromkeys(("accuracy", "sensitivity", "specificity"), 0.5)}  # fmt: skip

    records = {
        "grid/whole/sqrt/knn": cell(0.6, 0.9),
        "grid/zones/sqrt/knn": cell(0.8, 0.7),
        "grid/zones/raw/knn": cell(0.1, 0.6),  # has no fellow in the other region
    }
    text = histogram_study_report.markdown(records)
    _, means, by_val = text.split("\n## ")
    region = means.split("| region")[1]
    assert "whole  |    0.600" in region
    assert "zones  |    0.800" in region
    assert "whole" in by_val  # by validation, though another cell is better on test
    assert "0.900" in by_val
    assert "0.800" not in by_val


FAKE_AEON = """
from sklearn.linear_model import RidgeClassifierCV

class MultiRocketHydraClassifier:
    def __init__(self, n_groups=64, random_state=None):
        assert n_groups == 4 and random_state == 0
    def fit(self, X, y):
        assert X.ndim == 3 and X.shape[1:] == (6, 256) and set(y) == {0, 1}
        self.classifier = RidgeClassifierCV().fit(X.reshape(len(X), -1), y)
        return self
    def predict(self, X):
        return self.classifier.predict(X.reshape(len(X), -1))
"""


@pytest.mark.parametrize("content", [FAKE_AEON, "raise ImportError('torch is missing')"])
def test_a_rival_runs_in_its_own_interpreter(run, tmp_path, monkeypatch, content):
    package = tmp_path / "fake" / "aeon" / "classification"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").write_text("")
    (package / "convolution_based.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    key = "rivals/zones/sqrt/multirocket-hydra"
    if content != FAKE_AEON:
        with pytest.raises(MissingDependencyError, match="torch is missing.*pip install aeon torch"):
            run("--rivals", "--only", key)
        return
    done, printed = run("--rivals", "--only", key)
    assert 0 < done[key]["threshold"] < 1
    assert "multirocket-hydra" in printed.out
