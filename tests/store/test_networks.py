"""Networks in the folder of a saved model: they score and promise as before, and whatever was changed is refused."""

import copy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from histcxr.exceptions import InputError, MissingDependencyError, ModelError
from histcxr.store import check_place, load_model, model_hash, save_model
from histcxr.store.structure import check_structure
from histcxr.store.weights import weights_from_bytes, weights_to_bytes


@pytest.fixture(scope="module")
def network_once(network, tmp_path_factory):
    return save_model(network, tmp_path_factory.mktemp("saved") / "net.histcxr")


@pytest.fixture
def saved_network(network_once, tmp_path):
    return Path(shutil.copytree(network_once, tmp_path / "net.histcxr"))


def test_a_saved_network_scores_and_promises_as_before(network, network_once, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32), np.uint8)
    loaded = load_model(network_once)
    np.testing.assert_array_equal(loaded.score(pixels), network.score(pixels))
    assert loaded.score(pixels[:0]).shape == (0,)
    assert (loaded.name, loaded.classes, loaded.normal) == (network.name, network.classes, network.normal)
    assert (loaded.rule_out, loaded.rule_in) == (network.rule_out, network.rule_in)
    assert loaded.inputs == network.inputs
    assert loaded.training == {"seconds": 1.5}
    assert not loaded.unfamiliar(pixels).any()
    assert network.hash == ""
    assert len(loaded.hash) == 64
    assert model_hash(loaded) == loaded.hash == model_hash(network)
    again = save_model(loaded, tmp_path / "again")
    for name in ("manifest.json", "manifest.sha256", "estimator.skops"):
        assert (again / name).read_bytes() == (network_once / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["inputs"].update(region="lungs"), "name or input is not that of the weights"),
        (lambda m: m.update(name="vgg16"), "name or input is not that of the weights"),
        (lambda m: m["probe"].pop(), "scores differently here"),
        (lambda m: m["probe"].__setitem__(0, m["probe"][0] + 0.01), "scores differently here"),
        (lambda m: m["classes"].append("third"), "classes must name the classifier's"),
        (lambda m: m.update(kind="histogram"), "is not complete"),
        (lambda m: m.update(kind="other"), "is not complete"),
        (lambda m: m["thresholds"]["rule_out"].update(target=0.999), "is not complete"),
    ],
)
def test_a_changed_network_is_refused_even_with_right_hashes(saved_network, forge, change, message):
    with pytest.raises(ModelError, match=message):
        load_model(forge(saved_network, change))


def test_a_histogram_model_cannot_pass_for_a_network(saved, forge):
    def pretend(manifest):
        manifest.update(kind="network", classes=["normal", "sick"], normal="normal")

    with pytest.raises(ModelError, match="is not complete"):
        load_model(forge(saved, pretend))


def test_a_network_of_the_earlier_format_is_to_be_trained_anew(tmp_path):
    (tmp_path / "model.json").write_text('{"format": "histcxr reference"}')
    with pytest.raises(ModelError, match="in the format of an earlier histcxr, .* train it anew"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="holds something else"):
        check_place(tmp_path, overwrite=True)


def test_without_keras_one_line_says_what_to_install(network_once, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        MissingDependencyError,
        match=r"^keras is needed .*pip install '\.\[neural\]' in the folder",
    ):
        load_model(network_once)


# --- what a network may name and ask for


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.graph_.update(weights="/dev/zero"), "must name the network alone"),
        (lambda net: net.graph_.update(weights="imagenet"), "must name the network alone"),
        (lambda net: setattr(net, "views", 65), "views must be"),
        (lambda net: setattr(net, "views", 10**9), "views must be"),
    ],
)
def test_nothing_is_fetched_or_repeated_for_ever(network, change, message):
    crafted = copy.deepcopy(network.classifier)
    change(crafted)
    with pytest.raises(ModelError, match=message):
        check_structure(crafted)


def test_a_network_too_large_for_the_memory_is_refused_unbuilt(network, monkeypatch):
    crafted = copy.deepcopy(network.classifier)
    side = 2048
    crafted.graph_["size"], crafted.image_shape_, crafted.n_features_in_ = side, (side, side), side**2
    monkeypatch.setattr(
        "histcxr.store.structure._MOST_ACTIVATIONS", 10**6
    )  # whose weights would take gigabytes, too
    with pytest.raises(ModelError, match="a layer must give at most"):
        check_structure(crafted)


def test_a_path_to_weights_is_not_kept(network):
    trained = copy.deepcopy(network.classifier)
    trained.weights = "/home/somebody/vgg16.h5"
    assert b"somebody" not in b"".join(weights_to_bytes(trained).values())
    assert weights_from_bytes(weights_to_bytes(trained)).weights is None
