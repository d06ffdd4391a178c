"""Signatures: only the model that was signed, by the key that is asked for, whole and unchanged."""

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.exceptions import InputError, MissingDependencyError, ModelError
from histcxr.store import load_model, save_model, sign_model, verify_model

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
asymmetric = pytest.importorskip("cryptography.hazmat.primitives.asymmetric")


def pair(folder, name, kind="ed25519", passphrase=b""):
    """Write a key and its public half; return their paths."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

    made = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    }
    key = made[kind]()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The signer's two keys, somebody else's, and one of another kind."""
    folder = tmp_path_factory.mktemp("keys")
    return {
        **{name: pair(folder, name) for name in ("ours", "theirs")},
        **{kind: pair(folder, kind, kind) for kind in ("ed448", "ec")},
        "locked": pair(folder, "locked", passphrase=b"open"),
    }


@pytest.fixture
def signed(saved, keys):
    sign_model(saved, keys["ours"][0])
    return saved


def refused(folder, public, message, error=ModelError):
    for look in (verify_model, lambda path, key: load_model(path, signed_by=key)):
        with pytest.raises(error, match=message):
            look(folder, public)


def test_a_signed_model_is_itself_and_its_signature_is_asked_for(signed, keys):
    loaded = load_model(signed, signed_by=keys["ours"][1])
    assert loaded.hash == load_model(signed).hash == verify_model(signed, keys["ours"][1])
    assert len((signed / "manifest.sig").read_bytes()) == 64


def test_networks_and_the_box_are_signed_alike(network, keys, tmp_path):
    boxed = shutil.copytree(
        resources.files("histcxr.store").joinpath("boxed.histcxr"), tmp_path / "boxed.histcxr"
    )
    for folder in (save_model(network, tmp_path / "net.histcxr"), Path(boxed)):
        sign_model(folder, keys["ours"][0])
        assert load_model(folder, signed_by=keys["ours"][1]).hash
        refused(folder, keys["theirs"][1], "did not sign this model")


def test_the_model_in_the_box_is_not_signed_by_anybody(keys):
    refused("boxed", keys["ours"][1], r"boxed\.histcxr: manifest\.sig: is missing, so nobody vouches")


def test_openssl_says_the_same(signed, keys):
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl here")
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", keys["ours"][1], "-rawin"]
    files = ["-in", signed / "manifest.json", "-sigfile", signed / "manifest.sig"]
    assert subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0


# --- what is refused -----------------------------------------------------------------------------------


def test_another_key_another_model_and_no_signature(signed, keys, plain_model, tmp_path):
    refused(signed, keys["theirs"][1], "the key .*theirs.pub did not sign this model")
    other = save_model(plain_model, tmp_path / "other")
    refused(other, keys["ours"][1], "manifest.sig: is missing, so nobody vouches for this model")
    shutil.copy(signed / "manifest.sig", other / "manifest.sig")
    refused(other, keys["ours"][1], "did not sign this model")
    load_model(other)  # nobody asked for a signature
    (signed / "manifest.sig").unlink()
    refused(signed, keys["ours"][1], "is missing")


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 64, b"x" * 2000])
def test_damaged_signatures(signed, keys, content):
    (signed / "manifest.sig").write_bytes(content)
    refused(signed, keys["ours"][1], "manifest.sig: (the key|has 2000 bytes)")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_plain_file_is_no_signature(signed, keys, make):
    (signed / "manifest.sig").unlink()
    make(signed / "manifest.sig")
    refused(signed, keys["ours"][1], "manifest.sig: is no plain file")


def test_whatever_is_changed_is_refused_with_right_hashes_too(signed, keys, forge):
    """Everything that decides is in the manifest, or its hash is."""
    for place in (("thresholds", "rule_out", "threshold"), ("name",), ("training", "n")):

        def edit(manifest, place=place):
            *above, last = place
            for key in above:
                manifest = manifest[key]
            manifest[last] = 0.11 if last == "threshold" else "other"

        refused(forge(signed, edit), keys["ours"][1], "did not sign this model")
    refused(forge(signed, booster_0_json_gz=b"x"), keys["ours"][1], "did not sign|no part of a model")


@pytest.mark.parametrize("name", ["estimator.skops", "booster-0.json.gz", "manifest.sha256"])
def test_files_beside_the_manifest_are_vouched_for_by_their_hashes(signed, keys, name):
    content = (signed / name).read_bytes()
    (signed / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(signed, keys["ours"][1], "changed after saving|does not match")
    (signed / name).write_bytes(content)
    (signed / "more.py").write_text("")
    refused(signed, keys["ours"][1], "'more.py': does not belong to the model")


@pytest.mark.parametrize("kind", ["ed448", "ec"])
def test_keys_of_another_kind(signed, keys, kind):
    private, public = keys[kind]
    refused(signed, public, "must be a public Ed25519 key .* of another kind", InputError)
    with pytest.raises(InputError, match="must be a private Ed25519 key .* of another kind"):
        sign_model(signed, private)


def test_the_wrong_half_of_a_pair(signed, keys):
    private, public = keys["ours"]
    refused(signed, private, "got a private one, which belongs to its owner alone", InputError)
    with pytest.raises(InputError, match="private Ed25519 key in PEM .* got a public one"):
        sign_model(signed, public)


def test_files_that_are_no_key(signed, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"\xff text")
    for name, message in (("pipe", "can be read"), ("none", "can be read"), ("text", "got another file")):
        refused(signed, tmp_path / name, message, InputError)
        with pytest.raises(InputError, match=message):
            sign_model(signed, tmp_path / name)


def test_a_passphrase_is_asked_for(saved, keys):
    with pytest.raises(InputError, match="no passphrase where nobody can be asked"):
        sign_model(saved, keys["locked"][0])
    with pytest.raises(InputError, match="does not open"):
        sign_model(saved, keys["locked"][0], ask=lambda: "wrong")
    sign_model(saved, keys["locked"][0], ask=lambda: "open")
    verify_model(saved, keys["locked"][1])


def test_another_signature_is_replaced_on_request(signed, keys):
    sign_model(signed, keys["ours"][0])  # the same again
    with pytest.raises(InputError, match=r"manifest\.sig exists \(--overwrite\)"):
        sign_model(signed, keys["theirs"][0])
    verify_model(signed, keys["ours"][1])
    sign_model(signed, keys["theirs"][0], overwrite=True)
    verify_model(signed, keys["theirs"][1])


def test_only_what_loads_is_signed(saved, keys, forge):
    forge(saved, lambda manifest: manifest["thresholds"]["rule_out"].update(threshold=2.0))
    with pytest.raises(ModelError, match="is not complete"):
        sign_model(saved, keys["ours"][0])
    assert not (saved / "manifest.sig").exists()


def test_without_cryptography_there_is_a_sentence(signed, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    refused(signed, keys["ours"][1], r"pip install '\.\[sign\]'", MissingDependencyError)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[sign\]'"):
        sign_model(signed, keys["ours"][0])
    load_model(signed)


# --- the commands --------------------------------------------------------------------------------------


def test_the_commands(saved, keys, phantoms, tmp_path):
    ours, theirs = keys["ours"], keys["theirs"]

    def run(*arguments):
        return CliRunner().invoke(main, [*map(str, arguments)])

    assert run("models", "verify", saved, "--key", ours[1]).exit_code == 1
    assert "manifest.sig" in run("models", "sign", saved, "--key", ours[0]).output
    assert "as the owner of" in run("models", "verify", saved, "--key", ours[1]).output
    assert run("models", "verify", saved, "--key", theirs[1]).exit_code == 1
    assert run("models", "verify", saved, "--key", ours[0]).exit_code == 2
    assert "xgboost" in run("models", saved).output
    assert run("models", "show", saved).output == run("models", saved).output
    assert run("models", saved, "--json", tmp_path / "m.json").exit_code == 0
    assert json.loads((tmp_path / "m.json").read_text())["name"] == "xgboost"
    study = phantoms.study(layout="flat", n_patients=2)
    common = ["triage", study, "-m", saved, "-o", tmp_path / "w.csv", "--require-signature"]
    result = run(*common, theirs[1])
    assert (result.exit_code, "did not sign this model" in result.output) == (1, True)
    assert not (tmp_path / "w.csv").exists()
    result = run(*common, ours[1])
    assert result.exit_code in (0, 3), result.output
    assert (tmp_path / "w.csv").exists()
