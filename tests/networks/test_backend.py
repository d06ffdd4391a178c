import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from histcxr.exceptions import InputError, MissingDependencyError, how_to_install
from histcxr.networks import backend as neural
from histcxr.networks.backend import import_neural, neural_problem


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Let Keras's settings be in an empty folder, and no backend be chosen."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "keras.json"


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Return a function that puts a module called keras of some lines in the place of the real one."""

    def write(lines):
        folder = tmp_path / "modules"
        folder.mkdir()
        (folder / "keras.py").write_text(lines)
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.syspath_prepend(folder)

    return write


def installed(monkeypatch, *names):
    def find(name):
        return ModuleSpec(name, None) if name in names else None

    monkeypatch.setattr(neural.importlib.util, "find_spec", find)


@pytest.mark.parametrize(
    ("backend", "advice"),
    [
        ("tensorflow", f"install it with: {how_to_install('neural')}"),
        ("jax", "pip install jax, or choose another backend with KERAS_BACKEND"),
        ("torch", "pip install torch, or choose another backend with KERAS_BACKEND"),
    ],
)
def test_the_advice_brings_what_is_missing(monkeypatch, settings, stand_in, backend, advice):
    stand_in(f"import {backend}")
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(MissingDependencyError) as raised:
        import_neural("keras", "to build a network")
    assert str(raised.value).startswith("keras is needed to build a network and cannot be imported (")
    assert str(raised.value).endswith(f"); {advice}")
    assert raised.value.name == backend


def test_a_backend_that_keras_does_not_have_is_named(monkeypatch, settings, stand_in):
    stand_in("raise ValueError('Unable to import backend')")
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(InputError, match="KERAS_BACKEND must be one of tensorflow, jax, torch; got 'theano'"):
        import_neural("keras", "to build a network")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ValueError, match=r"^Unable to import backend$"):
        import_neural("keras", "to build a network")


def test_the_backend_is_that_of_the_environment_then_of_the_settings(monkeypatch, settings):
    installed(monkeypatch, "keras", "keras_tuner", "torch")
    assert (
        neural_problem()
        == "tensorflow not installed; pip install '.[neural]' in the folder of histcxr's source"
    )
    settings.write_text(json.dumps({"backend": "torch"}))
    assert neural_problem() is None
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert neural_problem() == "jax not installed; pip install jax"
    monkeypatch.delenv("KERAS_BACKEND")
    installed(monkeypatch)
    assert (
        neural_problem()
        == "keras and keras_tuner and torch not installed; pip install '.[neural]' in the folder of histcxr's source"
    )


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_settings_count_for_nothing(monkeypatch, settings, text):
    settings.write_text(text)
    installed(monkeypatch, "keras", "keras_tuner", "tensorflow")
    assert neural_problem() is None


def test_networks_leave_nothing_in_the_home_folder(tmp_path):
    """ONNX Runtime would keep a device's name and a queue of telemetry there."""
    code = "from histcxr.lungs.segmenter import load_segmenter; load_segmenter()"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {
        "HOME": str(tmp_path)
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
