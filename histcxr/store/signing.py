"""Signatures of saved models: who vouches for a folder, by Ed25519 keys in PEM files, as OpenSSL makes them.

Signed are the bytes of ``manifest.json``, which has the hash of every other file and all that decides: so
``openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile manifest.sig`` checks the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any, Final

from histcxr.exceptions import (
    InputError,
    MissingDependencyError,
    ModelError,
    UnjudgeableError,
    how_to_install,
)
from histcxr.files.reading import read_file

SIGNATURE_FILE: Final = "manifest.sig"
_MOST: Final = 1 << 16  # bytes of a key
_MAKE: Final = "openssl genpkey -algorithm ed25519 -out key.pem"
_SHOW: Final = "openssl pkey -in key.pem -pubout -out public.pem"

Path = str | os.PathLike[str]


def make_signature(manifest: bytes, key: Path, ask: Callable[[], str] | None = None) -> bytes:
    """Sign a manifest with a private key; ``ask`` returns its passphrase where it has one.

    InputError: it is no private Ed25519 key. MissingDependencyError: cryptography is not installed.
    """
    load = _serialization().load_pem_private_key
    content = _read(key)
    advice = f"a private Ed25519 key in PEM ({_MAKE})"
    try:
        found = load(content, None)
    except TypeError as error:  # so it says that there is a passphrase
        if ask is None:
            raise InputError(f"key must have no passphrase where nobody can be asked, got {key}") from error
        try:
            found = load(content, ask().encode())
        except ValueError as wrong:
            raise InputError(f"key must be opened by its passphrase; this one does not open {key}") from wrong
    except Exception as error:  # cryptography has an error of its own for each part of OpenSSL
        what = "a public one" if b"PUBLIC KEY" in content else "another file"
        raise InputError(f"key must be {advice}, got {what}: {key}") from error
    if type(found).__name__ != "Ed25519PrivateKey":
        raise InputError(f"key must be {advice}, got one of another kind: {key}")
    signature: bytes = found.sign(manifest)
    return signature


def check_signature(manifest: bytes, signature: bytes | None, key: Path) -> str:
    """Check the signature (None: there is none) of a manifest; return the SHA-256 of the public key, in hex.

    ModelError: it is not signed by the key. InputError: that is no public Ed25519 key. MissingDependencyError:
    cryptography is not installed.
    """
    serialization = _serialization()
    from cryptography.exceptions import InvalidSignature

    content = _read(key)
    advice = f"a public Ed25519 key in PEM ({_SHOW})"
    if b"PRIVATE KEY" in content:
        raise InputError(f"key must be {advice}, got a private one, which belongs to its owner alone: {key}")
    try:
        found = serialization.load_pem_public_key(content)
    except Exception as error:  # cryptography has an error of its own for each part of OpenSSL
        raise InputError(f"key must be {advice}, got another file: {key}") from error
    if type(found).__name__ != "Ed25519PublicKey":
        raise InputError(f"key must be {advice}, got one of another kind: {key}")
    if signature is None:
        raise ModelError(
            f"{SIGNATURE_FILE}: is missing, so nobody vouches for this model; get it with its signature, or check it "
            "and sign it yourself (histcxr models sign)"
        )
    try:
        found.verify(signature, manifest)
    except InvalidSignature as error:
        raise ModelError(
            f"{SIGNATURE_FILE}: the key {key} did not sign this model: the signature is of another model or by another "
            "key, or the model was changed after signing; do not use it"
        ) from error
    raw = found.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingDependencyError(
            f"signatures need the package cryptography: {how_to_install('sign')}"
        ) from error
    return serialization


def _read(key: Path) -> bytes:
    try:
        return read_file(key, _MOST)
    except UnjudgeableError as error:
        raise InputError(f"key must be a file that can be read, got {key}: {error.explanation}") from error
