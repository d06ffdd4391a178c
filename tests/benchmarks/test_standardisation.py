import json
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.studies import standardisation
from histcxr.data.manifest import read_manifest
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import InputError, RadiographError
from histcxr.features.extraction import extract_features
from histcxr.files.writing import write_image
from histcxr.phantoms.studies import make_phantom, write_study

REFERENCE = np.bincount(np.random.default_rng(0).binomial(255, 0.4, 20000), minlength=256)
MATCH = partial(standardisation.match, reference=REFERENCE)
ALL = {**standardisation.STANDARDISATIONS, "quantile mapping": MATCH}


@pytest.fixture(scope="module", params=range(3))
def phantom(request):
    return make_phantom(request.param, sick=request.param == 1)


def distribution(levels):
    return np.bincount(levels, minlength=256).cumsum() / levels.size


@pytest.mark.parametrize("name", ALL)
def test_outside_is_0_and_the_input_stays(phantom, name):
    pixels, mask = phantom.image.copy(), phantom.mask.copy()
    result = ALL[name](pixels, mask)
    assert result.dtype == np.uint8
    assert result.shape == pixels.shape
    assert not result[~mask].any()
    assert np.ptp(result[mask]) > 50
    np.testing.assert_array_equal(pixels, phantom.image)
    np.testing.assert_array_equal(mask, phantom.mask)


@pytest.mark.parametrize("name", [name for name in ALL if name != "outside tissue"])
def test_what_lies_outside_has_no_influence(phantom, name):
    lungs_only = np.where(phantom.mask, phantom.image, 0).astype(np.uint8)
    expected = ALL[name](phantom.image, phantom.mask)
    np.testing.assert_array_equal(ALL[name](lungs_only, phantom.mask), expected)


@pytest.mark.parametrize("name", [name for name in ALL if name != "CLAHE"])
def test_one_grey_level_becomes_one_and_the_order_stays(phantom, name):
    before, after = phantom.image[phantom.mask], ALL[name](phantom.image, phantom.mask)[phantom.mask]
    levels = pd.Series(after).groupby(before).agg(["min", "max"])
    assert (levels["min"] == levels["max"]).all()
    assert levels["min"].is_monotonic_increasing


@pytest.mark.parametrize("name", ["equalised", "quantile mapping"])
def test_ranks_do_not_know_brightness_and_contrast(phantom, name):
    darker = (phantom.image // 2).astype(np.uint8)
    brighter = (darker * 1.9 + 9).astype(np.uint8)  # different levels stay different
    np.testing.assert_array_equal(ALL[name](brighter, phantom.mask), ALL[name](darker, phantom.mask))


def test_mapping_to_its_own_histogram_changes_nothing(phantom):
    own = np.bincount(phantom.image[phantom.mask], minlength=256)
    for scale in (1, 7):
        result = standardisation.match(phantom.image, phantom.mask, reference=own * scale)
        np.testing.assert_array_equal(result[phantom.mask], phantom.image[phantom.mask])


def test_mapped_lungs_have_the_references_distribution(phantom):
    before = phantom.image[phantom.mask]
    wanted = REFERENCE.cumsum() / REFERENCE.sum()
    ties = np.bincount(before).max() / before.size + REFERENCE.max() / REFERENCE.sum()
    assert np.abs(distribution(before) - wanted).max() > 2 * ties
    assert np.abs(distribution(MATCH(phantom.image, phantom.mask)[phantom.mask]) - wanted).max() <= ties


def test_equalised_lungs_are_uniform_but_for_ties(phantom):
    before = phantom.image[phantom.mask]
    after = standardisation.equalise(phantom.image, phantom.mask)[phantom.mask]
    ties = np.bincount(before).max() / before.size
    uniform = np.arange(1, 257) / 256
    assert np.abs(distribution(before) - uniform).max() > 2 * ties
    assert np.abs(distribution(after) - uniform).max() <= ties + 1 / 256


def test_equalised_levels_are_mean_ranks(phantom):
    before = phantom.image[phantom.mask]
    expected = (stats.rankdata(before) - 0.5) * 255 / before.size
    after = standardisation.equalise(phantom.image, phantom.mask)[phantom.mask]
    assert np.abs(after - expected).max() <= 0.5 + 1e-9


def test_clahe_of_a_full_mask_is_that_of_opencv(phantom):
    expected = cv2.createCLAHE(standardisation.CLIP_LIMIT, standardisation.TILES).apply(phantom.image)
    everything = np.ones_like(phantom.mask)
    np.testing.assert_array_equal(standardisation.clahe(phantom.image, everything), expected)


def test_outside_tissue_takes_out_brightness_and_contrast(phantom):
    result = standardisation.by_outside_tissue(phantom.image, phantom.mask)[phantom.mask]
    changed = np.rint(phantom.image * 0.6 + 10).astype(np.uint8)
    other = standardisation.by_outside_tissue(changed, phantom.mask)[phantom.mask]
    assert np.abs(result - other.astype(int)).mean() < 4
    assert np.abs(phantom.image[phantom.mask] - changed[phantom.mask].astype(int)).mean() > 8


def test_outside_tissue_refuses_lungs_only(phantom):
    lungs_only = np.where(phantom.mask, phantom.image, 0).astype(np.uint8)
    with pytest.raises(RadiographError, match="outside of the lungs is 0"):
        standardisation.by_outside_tissue(lungs_only, phantom.mask)


def roster(classes, n=40):
    """A manifest without files: sources with the classes they hold, patients of two images."""
    rows = [
        (f"{source}-{i}.png", label, f"{source}-{i // 2}", source, ("train", "val", "test")[i // 2 % 3])
        for source, labels in classes.items()
        for i, label in enumerate(labels * (n // len(labels)))
    ]
    return pd.DataFrame(rows, columns=["image", "label", "patient_id", "source", "split"])


@pytest.fixture
def three_sources():
    table = roster({"a": ["Normal", "Normal", "Sick", "Sick"], "b": ["Sick", "Sick", "Normal", "Normal"]})
    table = pd.concat([table, roster({"c": ["Sick"]})], ignore_index=True)
    # One patient was seen at a (for training) and at b.
    table.loc[table["patient_id"] == "a-0", "patient_id"] = "b-1"
    return table


def test_folds_leave_sources_and_patients_out(three_sources):
    table = three_sources
    folds = standardisation.make_folds(table)
    assert {fold.trained_on for fold in folds} == {
        *(("a",), ("b",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c"))
    }
    for fold in folds:
        training = table[fold.rows]
        assert (training["split"] == "train").all()
        assert set(training["source"]) == set(fold.trained_on)
        for test in fold.tests:
            tested = table[test.rows]
            assert not set(tested["patient_id"]) & set(training["patient_id"])
            if test.name in ("a", "b") and len(fold.trained_on) < 3:
                assert set(tested["source"]) == {test.name}
                assert test.name not in fold.trained_on
                assert len(tested) == (table["source"] == test.name).sum() or test.part == "test"
            if test.part == "test":
                assert (tested["split"] == "test").all()
    by_name = {fold.trained_on: fold for fold in folds}
    # b-1 stands at both: it leaves the training rows of a wherever b is tested.
    assert (
        by_name[("a",)].rows.sum()
        == ((table["source"] == "a") & (table["split"] == "train") & (table["patient_id"] != "b-1")).sum()
    )


def test_a_source_of_one_class_meets_test_normals_only(three_sources):
    fold = {fold.trained_on: fold for fold in standardisation.make_folds(three_sources)}[("a", "b")]
    names = [(test.name, test.part) for test in fold.tests]
    against = ("a + b normals", "a normals", "b normals")
    assert names == [(f"c against {name}", part) for name in against for part in ("test", "all")]
    for test in fold.tests:
        tested = three_sources[test.rows]
        assert set(tested.loc[tested["label"] == "Sick", "source"]) == {"c"}
        normals = tested[tested["label"] == "Normal"]
        assert (normals["split"] == "test").all()
        assert " + ".join(sorted(set(normals["source"]))) + " normals" in test.name
    everyone = three_sources[fold.tests[1].rows]
    assert (everyone["source"] == "c").sum() == (three_sources["source"] == "c").sum()


def test_one_source_alone_is_measured_at_home_only():
    folds = standardisation.make_folds(roster({"a": ["Normal", "Normal", "Sick", "Sick"]}))
    assert [(fold.trained_on, [test.part for test in fold.tests]) for fold in folds] == [(("a",), ["test"])]


def test_sources_that_are_classes_are_refused():
    with pytest.raises(InputError, match="tell sources apart"):
        standardisation.make_folds(roster({"a": ["Normal"], "c": ["Sick"]}))


def test_every_image_needs_a_source():
    with pytest.raises(InputError, match="source must be given for every image; 2 have none"):
        standardisation.make_folds(roster({"a": ["Normal", "Sick"], "": ["Sick"]}, n=2))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two hospitals with both classes and one of the sick only, images of the lungs only."""
    top = write_study(tmp_path_factory.mktemp("study"), n_patients=50, size=(96, 96), mask_size=(96, 96))
    table = pd.read_csv(top / "manifest.csv", keep_default_na=False)
    number = pd.factorize(table["patient_id"])[0]
    only_sick = (table["label"] != "Normal") & (number % 5 == 4)
    table["source"] = np.where(only_sick, "c", np.where(number % 2 == 0, "a", "b"))
    table.to_csv(top / "manifest.csv", index=False)
    for image, mask in zip(table["image"], table["mask"], strict=True):
        lungs = cv2.imread(str(top / mask), cv2.IMREAD_GRAYSCALE) > 0
        write_image(top / image, np.where(lungs, read_radiograph(top / image).pixels, 0).astype(np.uint8))
    return top


def test_none_counts_as_the_library_does(study):
    table = read_manifest(study).head(8)
    counts, reasons = standardisation.count(table, standardisation.none, n_jobs=2)
    expected = extract_features(table, standardisation.RECIPE)
    np.testing.assert_array_equal(counts, expected.counts)
    assert reasons == [""] * 8


def test_an_image_that_cannot_be_used_says_why(study):
    table = read_manifest(study).head(2)
    table.loc[0, "mask"] = str(study / "nowhere.png")
    counts, reasons = standardisation.count(table, standardisation.none, n_jobs=1)
    assert reasons[0]
    assert not counts[0].any()
    assert reasons[1] == ""


@pytest.fixture
def small_trees(monkeypatch):
    original = standardisation.classifiers

    def fewer(n_jobs):
        found = original(n_jobs)
        found["xgboost"].set_params(estimator__n_estimators=10)
        return found

    monkeypatch.setattr(standardisation, "classifiers", fewer)


@pytest.mark.usefixtures("small_trees")
def test_from_folder_to_tables(study, tmp_path, capsys):
    standardisation.main(["--data", str(study), "--json", str(tmp_path / "found.json")])
    printed = capsys.readouterr().out
    assert "outside tissue: not possible: outside of the lungs is 0" in printed
    result = json.loads((tmp_path / "found.json").read_text())
    assert result["unusable"] == 0
    rows = pd.DataFrame(result["rows"])
    assert set(rows["standardisation"]) == set(ALL) - {"outside tissue"}
    assert not rows.duplicated(
        ["trained_on", "tested_on", "part", "standardisation", "features", "classifier"]
    ).any()
    assert rows.groupby(["trained_on", "tested_on", "part"]).size().eq(4 * 4 * 2).all()
    assert rows["auc"].between(rows["auc_low"], rows["auc_high"]).all()
    # The paired differences are those of the areas.
    keys = ["trained_on", "tested_on", "part", "features", "classifier"]
    base = rows[rows["standardisation"] == "none"].set_index(keys)["auc"]
    changed = rows[rows["standardisation"] != "none"].set_index(keys)
    gaps = np.array([gap["value"] for gap in changed["to_none"]])
    np.testing.assert_allclose(gaps, changed["auc"] - base.loc[changed.index], atol=1e-12)
    # Learnt at the other hospital, the logistic regression is better than chance.
    across = rows[rows["tested_on"].isin(["a", "b"]) & (rows["part"] == "all")]
    assert (
        across.query("features == 'own' and classifier == 'logistic' and standardisation == 'none'")["auc"]
        .gt(0.6)
        .all()
    )
