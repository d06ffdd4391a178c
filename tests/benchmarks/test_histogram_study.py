"""The histogram study: slices against extraction, the script as a whole."""

import json

import numpy as np
import pytest

from benchmarks.studies import histogram_study as cells
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.extraction import extract_features
from histcxr.phantoms.studies import write_study


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_study(
        tmp_path_factory.mktemp("data"), n_patients=60, size=(96, 96), mask_size=(96, 96), seed=3
    )


@pytest.fixture(scope="module")
def samples(data):
    return cells.read_samples(str(data), None, 1, 1)


@pytest.fixture
def run(data, tmp_path, capsys):
    """Run the script with little effort; return its records and what it printed."""

    def _run(*arguments):
        file = tmp_path / "study.json"
        cells.main(["--data", str(data), "--json", str(file), "--quick", *arguments])
        return json.loads(file.read_text())["results"], capsys.readouterr()

    return _run


@pytest.mark.parametrize("name", cells.REGIONS)
def test_a_slice_is_what_extraction_gives(data, name):
    manifest = read_manifest(data).head(6)
    region = cells.REGIONS[name]
    counts = extract_features(manifest, cells.RECIPE).counts
    direct = extract_features(manifest, region.zones, bands="travel" if region.bands else ()).counts
    np.testing.assert_array_equal(cells.slice_region(counts, region), direct)


def test_representations_are_what_they_say(samples):
    region = cells.REGIONS["whole+zones+bands"]
    counts = samples["val"].region(region).counts
    found = {name: cells.signals(counts, region, name) for name in cells.REPRESENTATIONS}
    np.testing.assert_array_equal(found["raw"], counts)
    np.testing.assert_allclose(found["density"], counts / counts.sum(axis=2, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found["sqrt"] ** 2, found["density"], atol=1e-6)
    np.testing.assert_allclose(found["cumulative"], np.cumsum(found["density"], axis=2), atol=1e-5)
    np.testing.assert_allclose(found["smoothed"].sum(axis=2), 1, rtol=1e-5)
    assert found["quantile"].shape == (len(counts), 28, 32)
    assert (np.diff(found["quantile"], axis=2) >= 0).all()


def test_a_missing_zone_takes_the_whole_of_its_own_channel(samples):
    region = cells.REGIONS["whole+zones+bands"]
    counts = samples["val"].region(region).counts.copy()
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


def test_members_from_the_stack_are_the_members_by_themselves(samples):
    region = cells.REGIONS["zones"]
    how = (region, "sqrt", [samples[part].region(region) for part in ("train", "val")], cells.QUICK, 1, 1)
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


# The script


def test_from_folder_to_tables(run):
    done, printed = run("--only", "*/sqrt/knn", "--only", "lungs/*/svm")
    assert len(done) == 5 + 6
    assert all(0 <= record["auc"] <= 1 for record in done.values())
    assert f"| sqrt           | {done['zones/sqrt/knn']['auc']:.3f} |" in printed.out


def test_the_lenet_fills_its_cells(run):
    pytest.importorskip("keras")
    keys = ["zones/raw/lenet", "whole/quantile/lenet", "whole/smoothed/lenet"]
    done, _ = run(*(part for key in keys for part in ("--only", key)))
    assert sorted(done) == sorted(keys)
    assert all(0 <= record["auc"] <= 1 for record in done.values())


def test_without_keras_the_other_cells_are_filled(run, monkeypatch):
    def missing(name, purpose):
        raise MissingDependencyError(f"{name} is needed {purpose}")

    monkeypatch.setattr(cells, "import_neural", missing)
    done, printed = run("--only", "whole/sqrt/knn", "--only", "whole/sqrt/lenet")
    assert list(done) == ["whole/sqrt/knn"]
    assert "the LeNet's cells stay empty: keras is needed" in printed.err


def test_every_cell_is_planned_once_and_a_pattern_must_match():
    keys = cells.chosen([])
    assert len(keys) == len(set(keys)) == 5 * 6 * 6
    with pytest.raises(InputError, match="'zone/.' matches none of"):
        cells.chosen(["zone/*"])


def test_means_compare_like_with_like():
    def cell(auc, val_auc):
        return {"val_auc": val_auc, **dict.fromkeys(("auc", "auc_low", "auc_high"), auc),
                **dict.fromkeys(("accuracy", "sensitivity", "specificity"), 0.5)}  # fmt: skip

    records = {
        "whole/sqrt/knn": cell(0.6, 0.9),
        "zones/sqrt/knn": cell(0.8, 0.7),
        "zones/raw/knn": cell(0.1, 0.6),  # has no fellow in the other region
    }
    text = cells.markdown(records)
    _, means, by_val = text.split("\n## ")
    region = means.split("| region")[1]
    assert "whole  |    0.600" in region
    assert "zones  |    0.800" in region
    assert "whole" in by_val  # by validation, though another cell is better on test
    assert "0.900" in by_val
    assert "0.800" not in by_val
