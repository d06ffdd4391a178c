"""The saved network: it scores and promises as before, and whatever was changed is refused."""

import copy
import json
import sys
from functools import partial

import numpy as np
import pytest

from histcxr.exceptions import InputError, MissingDependencyError, ModelError, RadiographError, Reason
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.phantoms.studies import make_phantom
from histcxr.reference.preparation import InputSettings
from histcxr.store import holds_network, load_judge, load_model
from histcxr.store.network import load_reference, save_reference


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    return save_reference(network, tmp_path_factory.mktemp("saved") / "net.reference")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 32), np.uint8)


def test_a_saved_network_scores_and_promises_as_before(network, path, pixels):
    loaded = load_judge(path)
    np.testing.assert_array_equal(loaded.score(pixels), network.score(pixels))
    assert (loaded.rule_out, loaded.rule_in) == (network.rule_out, network.rule_in)
    assert loaded.inputs == network.inputs
    assert loaded.training == {"seconds": 1.5}
    assert len(loaded.hash) == 64
    assert loaded.fingerprint() == loaded.hash == network.fingerprint()
    assert network.hash == ""
    assert loaded.score(pixels[:0]).shape == (0,)
    assert not loaded.unfamiliar(pixels).any()


@pytest.mark.parametrize("change", ["threshold", "network", "format", "missing"])
def test_a_changed_network_is_refused(network, tmp_path, change):
    path = save_reference(network, tmp_path / "net.reference")
    about = json.loads((path / "model.json").read_text())
    if change == "threshold":
        about["thresholds"]["rule_out"]["errors_allowed"] += 1
    elif change == "format":
        about["format_version"] = 99
    elif change == "network":
        (path / "network.json").write_bytes((path / "network.json").read_bytes() + b" ")
    if change == "missing":
        (path / "model.json").unlink()
    else:
        (path / "model.json").write_text(json.dumps(about))
    for load in (load_reference, load_judge):
        with pytest.raises(ModelError):
            load(path)


def test_a_network_is_replaced_only_when_asked(network, tmp_path):
    path = save_reference(network, tmp_path / "net.reference")
    with pytest.raises(InputError, match="is there already"):
        save_reference(network, path)
    save_reference(network, path, overwrite=True)
    assert load_reference(path).name == "cnn3"
    assert [file.name for file in tmp_path.iterdir()] == ["net.reference"]
    with pytest.raises(InputError, match="does not exist"):
        save_reference(network, tmp_path / "no" / "net.reference")


def test_each_kind_is_loaded_by_what_its_folder_holds(path, saved_once, tmp_path):
    assert (holds_network(path), holds_network(saved_once), holds_network(tmp_path)) == (True, False, False)
    assert load_judge(path).describe_input() == {"inputs": InputSettings(32, "full").to_dict()}
    assert load_judge(saved_once).describe_input() == {"recipe": load_model(saved_once).recipe.to_dict()}
    with pytest.raises(ModelError, match="manifest.json: is missing"):
        load_judge(tmp_path)
    with pytest.raises(ModelError, match="folder, but this is missing"):
        load_judge(tmp_path / "nothing")
    with pytest.raises(ModelError, match="this is a reference network"):
        load_model(path)
    with pytest.raises(ModelError, match="this is a histogram model"):
        load_reference(saved_once)


def test_a_model_is_no_network_because_of_a_file_beside_it(saved):
    (saved / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="'model.json': does not belong to the model"):
        load_judge(saved)


def test_without_keras_one_line_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingDependencyError, match=r"^keras is needed .*pip install histcxr\[neural\]$"):
        load_judge(path)


@pytest.mark.parametrize("region", ["lungs", "hidden", "full"])
def test_a_network_refuses_the_images_that_histograms_refuse(network, region):
    settings = InputSettings(32, region)
    classifier = copy.copy(network.classifier).set_params(inputs=settings)
    judge = type(network)(classifier, network.classes, network.normal, network.rule_out, network.rule_in)
    phantom = make_phantom(3)
    pale, dark = phantom.image.copy(), phantom.image.copy()
    pale[phantom.mask] = 100
    dark[phantom.mask & (np.random.default_rng(0).random(dark.shape) < 0.6)] = 0
    for image, reason in (
        (255 - phantom.image, Reason.POLARITY),
        (pale, Reason.BLANK),
        (dark, Reason.BLANK),
    ):
        found = []
        for measure in (judge.measure, partial(count_lungs, recipe=Recipe(6))):
            with pytest.raises(RadiographError) as caught:
                measure(image, phantom.mask, "a.png")
            found.append((caught.value.reason, caught.value.path, caught.value.detail))
        assert found[0] == found[1]
        assert found[0][0] is reason
    seen = judge.measure(phantom.image, phantom.mask, "a.png")
    np.testing.assert_array_equal(seen, settings.prepare(phantom.image, phantom.mask))


@pytest.mark.parametrize(
    ("region", "lungs", "found", "notes"),
    [("full", None, 5, 1), ("lungs", "given", 5, 2), ("lungs", "found", 5, 1), ("lungs", "given", 0, 1)],
)
def test_a_network_says_what_it_cannot_tell(network, region, lungs, found, notes):
    classifier = copy.copy(network.classifier).set_params(inputs=InputSettings(32, region))
    judge = type(network)(
        classifier,
        network.classes,
        network.normal,
        network.rule_out,
        network.rule_in,
        training={"lungs": lungs},
    )
    said = judge.caveats(found, load_segmenter().digest)
    assert len(said) == notes
    assert "no check of what it was trained on" in said[0]
    if notes == 2:
        assert said[1].startswith("the lungs of 5 images were found by a network")
    assert len(judge.caveats(found, "another")) == (2 if found and region == "lungs" else 1)
