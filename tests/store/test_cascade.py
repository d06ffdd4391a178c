import json
from dataclasses import replace

import numpy as np
import pytest

from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.exceptions import InputError, ModelError
from histcxr.reports.card import model_card
from histcxr.store import Cascade, load_model, model_hash, save_model
from histcxr.store.cascade import PLACES, judged_by


@pytest.fixture(scope="module")
def cascade(plain_model, network):
    return replace(Cascade.of(plain_model, network), low=0.2, high=0.7)


@pytest.fixture(scope="module")
def measured(cascade, study, network):
    rng = np.random.default_rng(3)
    counts = study[0]
    squares = rng.integers(0, 256, (len(counts), network.inputs.size, network.inputs.size), np.uint8)
    return counts, squares, cascade.pack(counts, squares)


def test_histograms_decide_outside_and_the_network_between(cascade, measured, monkeypatch):
    counts, squares, packed = measured
    own, theirs = cascade.first.score(counts), cascade.then.score(squares)
    between = (own >= 0.2) & (own <= 0.7)
    assert min(between.sum(), (own < 0.2).sum(), (own > 0.7).sum()) > 5
    seen = []
    real = type(cascade.then).score
    monkeypatch.setattr(type(cascade.then), "score", lambda self, x: seen.append(len(x)) or real(self, x))
    scores = cascade.score(packed)
    assert seen == [between.sum()]  # the others cost the network nothing
    inside = (scores >= PLACES[0]) & (scores <= PLACES[1])
    np.testing.assert_array_equal(inside, between)
    np.testing.assert_allclose(scores[between], 0.25 + 0.5 * theirs[between], atol=1e-5)
    for place, part in ((own < 0.2, (0, 0.25)), (own > 0.7, (0.75, 1))):
        assert part[0] <= scores[place].min() <= scores[place].max() <= part[1]
        assert (np.diff(scores[place][np.argsort(own[place])]) >= 0).all()  # the order stays
    names = (
        {judged_by(score) for score in scores[between]},
        {judged_by(score) for score in scores[~between]},
    )
    assert names == ({"then"}, {"first"})
    assert cascade.name == "linear then cnn3"


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (1, 1), (0.5, 0.5)])
def test_any_limits_give_scores_in_order(cascade, low, high, monkeypatch):
    cascade = replace(cascade, low=low, high=high)
    own = np.array([0.0, np.nextafter(0.5, 0), 0.5, np.nextafter(0.5, 1), 1.0, np.nan, -0.1, 1.1])
    monkeypatch.setattr(type(cascade), "unpack", lambda self, x: (x, x))
    monkeypatch.setattr(type(cascade.first), "score", lambda self, x: x)
    monkeypatch.setattr(type(cascade.then), "score", lambda self, x: np.linspace(0, 1, len(x)))
    scores = cascade.score(own)
    assert np.isnan(scores[5:]).all()
    assert ((scores[:5] >= 0) & (scores[:5] <= 1)).all()
    assert (np.diff(scores[:5]) >= 0).all()
    by_network = [judged_by(score) == "then" for score in scores[:5]]
    assert by_network == cascade.open(own[:5]).tolist()


def test_a_network_that_fails_gives_no_number(cascade, measured, monkeypatch):
    monkeypatch.setattr(type(cascade.then), "score", lambda self, x: np.full(len(x), np.nan))
    scores = cascade.score(measured[2])
    np.testing.assert_array_equal(np.isnan(scores), cascade.open(cascade.first.score(measured[0])))


def test_the_certificate_holds_for_the_pair(cascade, measured, study):
    """One exact statement on the one score: missed as often as allowed among future patients, not more."""
    rng = np.random.default_rng(11)
    own, theirs = rng.beta(4, 2, 100_000), rng.beta(5, 2, 100_000)  # of the sick
    score = np.where(own < 0.3, own / 0.3 * 0.25, np.where(own > 0.8, own, 0.25 + 0.5 * theirs))
    missed = []
    for _ in range(400):
        threshold = rule_out_threshold(rng.choice(score, 150), sensitivity=0.9, confidence=0.9).threshold
        missed.append((score < threshold).mean())
    assert np.mean(np.array(missed) > 0.1) < 0.13
    assert np.mean(missed) > 0.04  # and not because nothing is ruled out


def test_saved_and_loaded_it_is_the_same(cascade, measured, tmp_path):
    certified = replace(
        cascade,
        rule_out=rule_out_threshold(np.linspace(0.3, 1, 100)),
        rule_in=rule_in_threshold(np.linspace(0, 0.7, 100)),
    )
    folder = save_model(certified, tmp_path / "cascade.histcxr")
    loaded = load_model(folder)
    assert isinstance(loaded, Cascade)
    np.testing.assert_allclose(loaded.score(measured[2]), certified.score(measured[2]), atol=1e-5)
    assert (loaded.low, loaded.high, loaded.rule_out) == (0.2, 0.7, certified.rule_out)
    assert loaded.hash == model_hash(loaded) == model_hash(certified)
    assert [one.hash for one in loaded.members] == [model_hash(one) for one in cascade.members]
    assert "linear then cnn3" in loaded._repr_html_()
    card = model_card(loaded.describe())
    assert "linear by histograms of zones 2, and where that is from 0.2000 to 0.7000 cnn3" in card


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("first-estimator.skops", None, "first-estimator.skops: is missing"),
        (
            "manifest",
            lambda m: m["cascade"].update(low=0.9),
            "low and high must be scores from 0 to 1 in order",
        ),
        (
            "manifest",
            lambda m: m["cascade"]["first"].update(name="other"),
            "its name or input is not that of",
        ),
        ("manifest", lambda m: m.update(kind="histogram"), "manifest.json"),
        ("then-manifest.json", lambda m: m.update(classes=["normal", "sick", "more"]), "does not match"),
    ],
)
def test_a_changed_cascade_is_refused_even_with_right_hashes(cascade, tmp_path, forge, name, edit, message):
    folder = save_model(cascade, tmp_path / "cascade.histcxr")
    if name == "manifest":
        forge(folder, edit)
    elif edit is None:
        (folder / name).unlink()
    else:
        inner = json.loads((folder / name).read_text())
        edit(inner)
        (folder / name).write_text(json.dumps(inner))
        forge(folder)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_only_histograms_and_then_a_network(plain_model, network):
    with pytest.raises(InputError, match=r"first and a network then .* got ReferenceModel and Model"):
        Cascade.of(network, plain_model)
    with pytest.raises(InputError, match="both models must call normal alike, got 'Normal' and 'Healthy'"):
        Cascade.of(plain_model, replace(network, normal="Healthy"))
    pair = Cascade.of(plain_model, network)
    assert (pair.low, pair.high) == (plain_model.rule_out.threshold, 1)  # which has no rule_in
    assert not pair.rule_out.certified
    assert "never certified as one" in " ".join(pair.caveats(0, None))
