"""The histogram study: slices against extraction, alterations by their properties, the script as a whole."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.extraction import extract_features
from histcxr.features.histograms import masked_histogram
from histcxr.features.recipe import Recipe
from histcxr.phantoms.studies import make_phantom, write_study
from histcxr.study.cohort import read_cohort, split_cohort

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("", "_models", "_regions", "_report", "_results", "_rivals", "_robustness")


@pytest.fixture(scope="module")
def study():
    """The study's modules: ``main`` and its siblings."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(FOLDER))
        modules = {name[1:] or "main": importlib.import_module(f"histogram_study{name}") for name in NAMES}
        yield SimpleNamespace(**modules)
        for name in NAMES:
            patched.delitem(sys.modules, f"histogram_study{name}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_study(
        tmp_path_factory.mktemp("data"), n_patients=60, size=(96, 96), mask_size=(96, 96), seed=3
    )


@pytest.fixture(scope="module")
def samples(study, data):
    parts, _ = split_cohort(read_cohort(data, study.regions.RECIPE))
    return {name: study.regions.Sample.of(part) for name, part in parts.items()}


@pytest.fixture
def run(study, data, tmp_path):
    """Run the script with little effort; return what the JSON file holds then."""

    def _run(*arguments):
        file = tmp_path / "study.json"
        study.main.main(["--data", str(data), "--json", str(file), "--quick", *arguments])
        return json.loads(file.read_text())["results"]

    return _run


# Regions and representations


@pytest.mark.parametrize("zones", [1, 2, 6, "1+2", "1+6"])
@pytest.mark.parametrize("bands", [False, True])
def test_a_slice_is_what_extraction_gives(study, data, zones, bands):
    manifest = read_manifest(data).head(6)
    region = study.regions.Region(zones, bands)
    counts = extract_features(manifest, study.regions.RECIPE).counts
    direct = extract_features(manifest, zones, bands="travel" if bands else ()).counts
    assert region.recipe == Recipe(zones, "travel" if bands else ())
    np.testing.assert_array_equal(study.regions.slice_region(counts, region), direct)


def test_counts_of_another_recipe_are_refused(study):
    with pytest.raises(InputError, match=r"counts must have the shape \(n, 28, 256\); got \(2, 7, 256\)"):
        study.regions.slice_region(np.ones((2, 7, 256), int), study.regions.Region(1))


def test_representations_are_what_they_say(study, samples):
    region = study.regions.REGIONS["whole+zones+bands"]
    counts = samples["val"].region(region).counts
    found = {name: study.regions.signals(counts, region, name) for name in study.regions.REPRESENTATIONS}
    np.testing.assert_array_equal(found["raw"], counts)
    np.testing.assert_allclose(found["density"], counts / counts.sum(axis=2, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found["sqrt"] ** 2, found["density"], atol=1e-6)
    np.testing.assert_allclose(found["cumulative"], np.cumsum(found["density"], axis=2), atol=1e-5)
    np.testing.assert_allclose(found["smoothed"].sum(axis=2), 1, rtol=1e-5)
    assert found["quantile"].shape == (len(counts), 28, 32)
    assert (np.diff(found["quantile"], axis=2) >= 0).all()
    with pytest.raises(InputError, match="representation must be one of raw, .*; got 'fourier'"):
        study.regions.signals(counts, region, "fourier")


def test_a_missing_zone_takes_the_whole_of_its_own_channel(study, samples):
    region = study.regions.REGIONS["whole+zones+bands"]
    counts = samples["val"].region(region).counts.copy()
    for channel in (0, 7):  # one zone, in the intensity and in the first band
        counts[0, channel] -= counts[0, channel + 3]
        counts[0, channel + 3] = 0
    density = study.regions.signals(counts, region, "density")
    by_lenet = study.regions.filled(counts, region)
    for channel in (0, 7):
        np.testing.assert_allclose(density[0, channel + 3], density[0, channel], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(
            by_lenet[0, channel + 3] / by_lenet[0, channel + 3].sum(), density[0, channel], atol=1e-6
        )
    np.testing.assert_array_equal(by_lenet[1:], counts[1:])


# Classifiers


def test_members_from_the_stack_are_the_members_by_themselves(study, samples):
    models = study.models
    region = study.regions.REGIONS["zones"]
    train, val = samples["train"].region(region), samples["val"].region(region)
    together = models.fit_scores(
        [*models.MEMBERS, "stack"], region, "sqrt", train, [val], effort=models.QUICK, seed=1
    )
    alone = models.fit_scores(models.MEMBERS, region, "sqrt", train, [val], effort=models.QUICK, seed=1)
    assert set(together) == {*models.MEMBERS, "stack"}
    for name in models.MEMBERS:
        np.testing.assert_allclose(together[name][0], alone[name][0], atol=1e-6)
    assert len({tuple(scores[0].round(6)) for scores in together.values()}) == 5  # five different models


@pytest.mark.parametrize("shape", [(400, 32), (60, 300)])
def test_members_fit_few_features_and_few_images(study, shape):
    rng = np.random.default_rng(0)
    X, y = rng.random(shape), np.arange(shape[0]) % 2
    for name in study.models.MEMBERS:
        model = study.models.make_member(name, study.models.FULL, shape=shape, seed=0, n_jobs=1)
        half = model.fit(X[::2], y[: shape[0] // 2])  # as in a fold of the stack
        assert ((scores := study.models.probability(half, X)) >= 0).all()
        assert (scores <= 1).all()


def test_an_unknown_classifier_is_refused(study, samples):
    region = study.regions.REGIONS["whole"]
    train = samples["train"].region(region)
    with pytest.raises(InputError, match="classifier must be one of knn, .*; got 'oracle'"):
        study.models.fit_scores(["oracle"], region, "sqrt", train, [train])


def test_the_threshold_comes_from_validation_alone(study):
    rng = np.random.default_rng(0)
    sick = np.arange(400) % 2 == 0
    sample = study.regions.Sample(np.zeros((400, 1, 256)), sick, np.arange(400).astype(object))
    val, test = (rng.random(400) + 0.5 * sick for _ in range(2))
    found = study.models.figures(sample, val, sample, test)
    other = study.models.figures(sample, val, sample, test + 1)
    assert found["threshold"] == other["threshold"]
    assert (val[sick] >= found["threshold"]).mean() >= 0.95
    assert (val[sick] > found["threshold"]).mean() < 0.95  # and no lower than it must be
    assert found["sensitivity"] == (test[sick] >= found["threshold"]).mean()
    assert found["specificity"] == (test[~sick] < found["threshold"]).mean()
    assert other["sensitivity"] == 1.0
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    assert found["accuracy"] == ((test >= 0.5) == sick).mean()


def test_training_sets_grow_by_whole_patients(study):
    patients = np.random.default_rng(1).integers(0, 80, 200).astype(str).astype(object)
    sizes = [20, 60, 120, 200]
    subsets = study.regions.nested_subsets(patients, sizes, seed=4)
    for size, rows in zip(sizes, subsets, strict=True):
        inside, outside = set(patients[rows]), set(np.delete(patients, rows))
        assert not inside & outside
        assert size <= len(rows) < size + 10
        assert len(set(rows)) == len(rows)
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert set(smaller) < set(larger)
    assert set(subsets[0]) != set(study.regions.nested_subsets(patients, [20], seed=5)[0])
    np.testing.assert_array_equal(subsets[-1], np.arange(200))
    with pytest.raises(InputError, match="between 1 and 200 images; got 201"):
        study.regions.nested_subsets(patients, [201], seed=4)


# Alterations


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(5, sick=True, size=(128, 128))


def test_alterations_touch_the_lungs_or_the_mask_but_not_both(study, phantom):
    for name, alter in study.robustness.ALTERATIONS.items():
        pixels, lungs = alter(phantom.image.copy(), phantom.mask.copy())
        assert pixels.dtype == np.uint8
        assert lungs.dtype == bool
        np.testing.assert_array_equal(pixels[~phantom.mask], phantom.image[~phantom.mask])
        same = np.array_equal(pixels, phantom.image), np.array_equal(lungs, phantom.mask)
        assert same == (name == "none" or name.startswith("mask"), not name.startswith("mask")), name


def test_masks_shrink_and_grow_within_each_other(study, phantom):
    masks = [study.robustness.resized_mask(phantom.image, phantom.mask, by=by)[1] for by in (-4, -2, 2, 4)]
    nested = [*masks[:2], phantom.mask, *masks[2:]]
    for inner, outer in zip(nested, nested[1:], strict=False):
        assert (inner <= outer).all()
        assert inner.sum() < outer.sum()
    everything = np.ones((20, 20), bool)
    eroded = study.robustness.resized_mask(np.zeros((20, 20), np.uint8), everything, by=-2)[1]
    assert eroded.sum() == 16 * 16  # beyond the image there are no lungs


def test_brightness_moves_the_histogram(study, phantom):
    pixels = np.clip(phantom.image, 30, 200)
    moved, _ = study.robustness.brightness(pixels, phantom.mask, step=20)
    before, after = (masked_histogram(image, phantom.mask)[0] for image in (pixels, moved))
    np.testing.assert_array_equal(after[20:], before[:-20])
    low, _ = study.robustness.brightness(pixels, phantom.mask, step=-300)
    assert not low[phantom.mask].any()


@pytest.mark.parametrize(
    ("name", "option", "there", "back"),
    [("gamma", "exponent", 0.7, 1 / 0.7), ("contrast", "factor", 0.8, 1.25)],
)
def test_levels_keep_their_order_and_come_back(study, phantom, name, option, there, back):
    alter = getattr(study.robustness, name)
    ramp, all_lungs = np.arange(256, dtype=np.uint8)[None], np.ones((1, 256), bool)
    changed, _ = alter(ramp, all_lungs, **{option: there})
    assert (np.diff(changed[0].astype(int)) >= 0).all()
    again, _ = alter(changed, all_lungs, **{option: back})
    assert np.abs(again.astype(int) - ramp).max() <= 2


def test_equalised_lungs_use_all_levels_alike(study, phantom):
    pixels, _ = study.robustness.equalised(phantom.image, phantom.mask)
    inside = np.sort(pixels[phantom.mask])
    even = np.linspace(0, 255, inside.size)
    assert np.abs(inside - even).mean() < 6
    assert np.abs(np.sort(phantom.image[phantom.mask]) - even).mean() > 20  # and they did not before
    flat = np.full_like(phantom.image, 80)
    assert len(np.unique(study.robustness.equalised(flat, phantom.mask)[0][phantom.mask])) == 1
    nothing = np.zeros_like(phantom.mask)
    np.testing.assert_array_equal(study.robustness.equalised(phantom.image, nothing)[0], phantom.image)


def test_a_blur_smooths_the_lungs_and_lets_nothing_in(study, phantom):
    only_lungs = np.where(phantom.mask, 90, 0).astype(np.uint8)
    blurred, _ = study.robustness.blurred(only_lungs, phantom.mask, sigma=2)
    np.testing.assert_array_equal(blurred, only_lungs)
    rough = [
        np.abs(np.diff(study.robustness.blurred(phantom.image, phantom.mask, sigma=s)[0].astype(int))).mean()
        for s in (0.5, 1, 2)
    ]
    assert rough[0] > rough[1] > rough[2]


def test_altered_images_go_through_the_usual_extraction(study, data):
    manifest = read_manifest(data).head(8)
    recipe = Recipe("1+6", "travel")
    counts, usable = study.robustness.altered_counts(manifest, study.robustness.ALTERATIONS["none"], recipe)
    np.testing.assert_array_equal(counts, extract_features(manifest, recipe).counts)
    assert usable.all()

    def third_is_lost(pixels, lungs, seen=iter(range(8))):  # noqa: B008
        return pixels, lungs & (next(seen) != 2)

    counts, usable = study.robustness.altered_counts(manifest, third_is_lost, recipe)
    assert usable.tolist() == [row != 2 for row in range(8)]
    assert not counts[2].any()


def test_nothing_altered_is_nothing_lost(study):
    rng = np.random.default_rng(0)
    sick = np.arange(100) < 50
    scores, patients = rng.random(100) * 0.5 + 0.5 * sick, np.arange(100).astype(object)
    same = study.robustness.losses(scores, scores, sick, patients, 0.4)
    assert (same["auc_lost"], same["lost_low"], same["lost_high"]) == (0, 0, 0)
    # Two sick images change places, and no sick one with a normal one: nothing is lost, with no variance.
    swapped = scores.copy()
    swapped[np.argsort(scores)[-2:]] = np.sort(scores)[[-1, -2]]
    unchanged = study.robustness.losses(scores, swapped, sick, patients, 0.4)
    assert unchanged["auc_lost"] == 0
    assert unchanged["lost_method"] == study.robustness.ANY_DISTRIBUTION
    worse = study.robustness.losses(scores, rng.random(100), sick, patients, 0.4)
    assert worse["auc_lost"] > 0.2
    assert worse["lost_method"] != study.robustness.ANY_DISTRIBUTION
    assert worse["lost_low"] < worse["auc_lost"] < worse["lost_high"]
    assert worse["auc"] + worse["auc_lost"] == pytest.approx(same["auc"])


# The script


def test_a_stopped_study_goes_on_where_it_was(study, run, tmp_path, monkeypatch):
    fits = []
    real = study.models.fit_scores

    def counted(classifiers, region, representation, *rest, **options):
        if stop and fits:
            raise KeyboardInterrupt
        fits.append((region.zones, representation, tuple(classifiers)))
        return real(classifiers, region, representation, *rest, **options)

    monkeypatch.setattr(study.models, "fit_scores", counted)
    cells = ["--only", "grid/zones/sqrt/knn", "--only", "grid/lungs/sqrt/svm", "--only", "grid/zones/raw/svm"]
    stop = True
    with pytest.raises(KeyboardInterrupt):
        run(*cells)
    assert fits == [(2, "sqrt", ("svm",))]
    kept = json.loads((tmp_path / "study.json").read_text())["results"]
    assert list(kept) == ["grid/lungs/sqrt/svm"]

    stop = False
    fits.clear()
    done = run(*cells, "--markdown", str(tmp_path / "study.md"))
    assert fits == [(6, "raw", ("svm",)), (6, "sqrt", ("knn",))]
    assert done["grid/lungs/sqrt/svm"] == kept["grid/lungs/sqrt/svm"]
    assert run(*cells) == done
    assert len(fits) == 2
    assert not list(tmp_path.glob("*.partial"))
    text = (tmp_path / "study.md").read_text()
    assert "### lungs" in text
    assert f"{done['grid/zones/sqrt/knn']['auc']:.3f}" in text


def test_learning_and_robustness_from_the_command_line(study, run, tmp_path, monkeypatch):
    monkeypatch.setattr(study.main, "SIZES", (30, 1000))
    done = run(
        "--only", "learning/whole/svm/*", "--only", "robustness/zones/svm/none",
        "--only", "robustness/zones/svm/mask eroded 4 px", "--markdown", str(tmp_path / "study.md"),
    )  # fmt: skip
    learning = {key: record for key, record in done.items() if key.startswith("learning")}
    assert sorted(int(key.split("/")[3]) for key in learning)[:3] == [30, 30, 30]
    assert len(learning) == 4  # three small ones, and everything once; 1000 is more than there are
    assert all(record["images"] >= int(key.split("/")[3]) for key, record in learning.items())
    clean, eroded = done["robustness/zones/svm/none"], done["robustness/zones/svm/mask eroded 4 px"]
    assert clean["auc_lost"] == 0
    assert clean["refused"] == 0
    assert eroded["auc"] + eroded["auc_lost"] == pytest.approx(clean["auc"])
    text = (tmp_path / "study.md").read_text()
    assert "mask eroded 4 px" in text
    assert "reaches the zeros" in text


def test_the_lenet_fills_its_cells(study, run):
    pytest.importorskip("keras")
    done = run("--only", "grid/zones/raw/lenet", "--only", "grid/whole/quantile/lenet",
               "--only", "grid/whole/smoothed/lenet", "--only", "learning/whole/lenet+augmentation/*/0")  # fmt: skip
    assert len(done) >= 4
    assert all(0 <= record["auc"] <= 1 for record in done.values())


def test_augmentation_is_for_histograms_of_intensity(study, samples):
    region = study.regions.REGIONS["whole"]
    train = samples["train"].region(region)
    with pytest.raises(InputError, match="augment is for intensities"):
        study.models.fit_scores(["lenet"], region, "quantile", train, [train], augment=True)


def test_without_keras_the_other_cells_are_filled(study, run, capsys, tmp_path, monkeypatch):
    def missing(name, purpose):
        raise MissingDependencyError(f"{name} is needed {purpose}")

    monkeypatch.setattr(study.main, "import_neural", missing)
    done = run("--only", "grid/whole/sqrt/knn", "--only", "grid/whole/sqrt/lenet")
    assert list(done) == ["grid/whole/sqrt/knn"]
    assert "the LeNet's cells stay empty: keras is needed" in capsys.readouterr().err


def test_results_of_another_study_are_kept(study, run, tmp_path, capsys):
    run("--only", "grid/whole/sqrt/knn")
    file = tmp_path / "study.json"
    before = file.read_text()
    with pytest.raises(SystemExit):
        run("--only", "grid/whole/sqrt/knn", "--seed", "1")
    assert "give another --json, or remove the file" in capsys.readouterr().err
    assert file.read_text() == before
    file.write_text("[]")
    with pytest.raises(SystemExit):
        run("--only", "grid/whole/sqrt/knn")
    assert "must be a JSON file of this benchmark" in capsys.readouterr().err


def test_a_pattern_must_match(run, capsys):
    with pytest.raises(SystemExit):
        run("--only", "grid/zone/*")
    assert "'grid/zone/*' matches none of" in capsys.readouterr().err


def test_every_part_is_planned_once(study):
    keys = study.main.plan(5000, rivals=True)
    assert len(keys) == len(set(keys))
    assert sum(key.startswith("grid/") for key in keys) == 5 * 6 * 6
    assert sum(key.startswith("robustness/") for key in keys) == 14 * 4
    assert not any(key.startswith("rivals/") for key in study.main.plan(5000, rivals=False))


def test_means_compare_like_with_like(study):
    def cell(auc, val_auc):
        return {"auc": auc, "auc_low": auc, "auc_high": auc, "val_auc": val_auc, "accuracy": 0.5,
                "sensitivity": 0.5, "specificity": 0.5}  # fmt: skip

    records = {
        "grid/whole/sqrt/knn": cell(0.6, 0.9),
        "grid/zones/sqrt/knn": cell(0.8, 0.7),
        "grid/zones/raw/knn": cell(0.1, 0.6),  # has no fellow in the other region
    }
    described = {"data": {"test": {"images": 1}}, "effort": {"trees": 1}, "seed": 0}
    text = study.report.markdown(described, records)
    region_means = text.split("| region |")[1] if "| region |" in text else text.split("| region")[1]
    assert "whole  |    0.600" in region_means
    assert "zones  |    0.800" in region_means
    chosen = text.split("## Chosen")[1]
    assert "whole" in chosen  # by validation, though another cell is better on test
    assert "0.900" in chosen
    assert "0.800" not in chosen


def test_plots_show_what_is_known(study, run, tmp_path):
    pytest.importorskip("matplotlib")
    run("--only", "grid/whole/sqrt/knn", "--only", "learning/whole/svm/*",
        "--only", "robustness/zones/svm/blur*", "--plots", str(tmp_path / "plots"))  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "grid.png", "learning.png", "robustness.png",
    ]  # fmt: skip


def test_missing_matplotlib_is_said_before_the_work(study, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        run("--only", "grid/whole/sqrt/knn", "--plots", str(tmp_path / "plots"))
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "study.json").exists()


# Rivals

FAKE_AEON = """
import numpy as np
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


def _fake_aeon(folder, content, monkeypatch):
    package = folder / "fake" / "aeon" / "classification"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").write_text("")
    (package / "convolution_based.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder / "fake"))


def test_a_rival_runs_in_its_own_interpreter(run, tmp_path, monkeypatch):
    _fake_aeon(tmp_path, FAKE_AEON, monkeypatch)
    key = "rivals/zones/sqrt/multirocket-hydra"
    done = run("--rivals", "--only", key, "--markdown", str(tmp_path / "study.md"))
    assert 0 <= done[key]["auc"] <= 1
    assert 0 < done[key]["threshold"] < 1
    assert "multirocket-hydra" in (tmp_path / "study.md").read_text()


def test_a_missing_rival_is_named_with_the_way_to_it(run, tmp_path, monkeypatch, capsys):
    _fake_aeon(tmp_path, "raise ImportError('torch is missing')", monkeypatch)
    with pytest.raises(SystemExit):
        run("--rivals", "--only", "rivals/zones/sqrt/multirocket-hydra")
    error = capsys.readouterr().err
    assert "multirocket-hydra cannot run with" in error
    assert "torch is missing" in error
    assert "pip install aeon torch" in error
