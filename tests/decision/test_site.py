"""The folder test: mixtures of the certified groups pass, whatever the shares; another site does not."""

import json

import numpy as np
import pytest

from histcxr.decision.site import LEAST_IMAGES, TOLERANCE, SiteReference, fit_site
from histcxr.exceptions import InputError

D = 12
MIXING = np.random.default_rng(7).normal(size=(D, D))
CENTRES = {"normal": np.zeros(D), "covid": np.full(D, 1.0), "opacity": np.linspace(-2, 2, D)}


def patients(rng, **counts):
    """Descriptions of images of each group, with correlated features."""
    parts = [CENTRES[name] + rng.normal(size=(n, D)) @ MIXING for name, n in counts.items()]
    return np.concatenate(parts), np.repeat(list(counts), list(counts.values()))


@pytest.fixture(scope="module")
def reference():
    rows, groups = patients(np.random.default_rng(0), normal=600, covid=300, opacity=400)
    return fit_site(rows, groups, [f"feature {i}" for i in range(D)])


def outcome(reference, rows):
    folder = reference.sketch()
    for start in range(0, len(rows), 37):
        folder.add(reference.project(rows[start : start + 37]))
    return reference.test(folder)


@pytest.mark.parametrize("n", [40, 100, 400, 4000])
@pytest.mark.parametrize("sick", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_no_share_of_sick_is_an_alarm(reference, n, sick):
    rng = np.random.default_rng([n, int(100 * sick)])
    for _ in range(20):
        some = rng.binomial(round(n * sick), 0.5)
        rows, _ = patients(rng, covid=some, opacity=round(n * sick) - some, normal=n - round(n * sick))
        assert not outcome(reference, rows).differs


@pytest.mark.parametrize("n", [40, 400])
@pytest.mark.parametrize("sick", [0.05, 0.9])
def test_another_scanner_is_found(reference, n, sick):
    rng = np.random.default_rng([n, int(100 * sick)])
    shift = np.linalg.pinv(reference.axes.T) @ np.eye(len(reference.axes[0]))[0] * reference.scale
    found = 0
    for _ in range(20):
        rows, _ = patients(rng, covid=round(n * sick), normal=n - round(n * sick))
        result = outcome(reference, rows + 3.5 * shift)
        found += result.differs
    assert found >= 19
    assert result.distance > TOLERANCE
    assert result.p_value < 0.05


def test_a_difference_within_the_tolerance_is_no_alarm(reference):
    rng = np.random.default_rng(3)
    shift = np.linalg.pinv(reference.axes.T)[:, 0] * reference.scale  # one unit along the first axis
    alarms = 0
    for _ in range(100):
        rows, _ = patients(rng, covid=500, normal=500)
        alarms += outcome(reference, rows + np.sqrt(TOLERANCE) * shift).differs
    assert alarms <= 12  # 5 % of 100, and its chance


def test_shares_are_estimated(reference):
    rows, _ = patients(np.random.default_rng(5), normal=900, covid=100)
    shares = outcome(reference, rows).shares
    assert sum(shares.values()) == pytest.approx(1, abs=0.002)
    assert shares["normal"] == pytest.approx(0.9, abs=0.07)


def test_few_images_are_not_tested(reference):
    rows, _ = patients(np.random.default_rng(1), normal=LEAST_IMAGES - 1)
    result = outcome(reference, rows + 100)
    assert not result.tested
    assert not result.differs
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["distance"] is None


def test_the_sketch_does_not_depend_on_its_parts(reference):
    rows, _ = patients(np.random.default_rng(2), normal=100, covid=50)
    at_once = reference.sketch()
    at_once.add(reference.project(rows))
    assert reference.test(at_once).distance == pytest.approx(outcome(reference, rows).distance, rel=1e-9)


def test_it_survives_json(reference):
    rows, _ = patients(np.random.default_rng(4), normal=100)
    again = SiteReference.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False)))
    assert outcome(again, rows).distance == pytest.approx(outcome(reference, rows).distance, abs=1e-3)


@pytest.mark.parametrize("damage", ["features", "axes", "means", "scale"])
def test_damaged_references_are_refused(reference, damage):
    stored = reference.to_dict()
    stored[damage] = stored[damage][:-1]
    with pytest.raises(InputError, match="must be finite numbers of shape"):
        SiteReference.from_dict(stored)


def test_a_reference_takes_patients():
    with pytest.raises(InputError, match="at least 40 certification images"):
        fit_site(np.zeros((3, 2)), ["a", "a", "b"], ["x", "y"])


def test_small_groups_are_joined():
    rows, groups = patients(np.random.default_rng(6), normal=60, covid=30, opacity=10)
    assert fit_site(rows, groups, [str(i) for i in range(D)]).groups == ("covid", "normal", "other")


@pytest.mark.parametrize("distance", [4.0, 8.0])
def test_the_power_foretold_is_that_of_the_test(reference, distance):
    """Against folders at a known distance, in a direction that no mixture explains, through the test itself."""
    rng = np.random.default_rng(1)
    off = reference.means - reference.means[0]
    free = np.linalg.svd(off)[2][len(off) - 1 :]  # axes that no difference of the groups has a part in
    back = np.linalg.pinv(reference.axes)
    found = []
    for _ in range(150):
        towards = rng.normal(size=len(free)) @ free
        shift = np.sqrt(distance) * towards / np.linalg.norm(towards) @ back * reference.scale
        normal, covid, opacity = rng.multinomial(60, [6 / 13, 3 / 13, 4 / 13])
        rows, _ = patients(rng, normal=normal, covid=covid, opacity=opacity)
        found.append(outcome(reference, rows + shift).differs)
    assert reference.power(60, distance) == pytest.approx(np.mean(found), abs=0.1)


def test_more_images_and_longer_distances_are_found_more_often(reference):
    powers = [reference.power(n, 3.0) for n in (39, 40, 100, 400)]
    assert powers == sorted(powers)
    assert powers[0] == 0
    assert powers[-1] > 0.95
    assert reference.power(100, TOLERANCE / 2) < 0.05
