"""Signatures of bundles by OpenSSF Model Signing: who made what is in the folder. Keys are files, no service is asked.

A signature is `model.sig` inside the bundle, an elliptic-curve signature over the SHA-256 of every other file; its format is
Sigstore's, and `model_signing verify key` reads it too (https://github.com/sigstore/model-transparency).
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from model_signing import hashing, signing, verifying

from runtime.errors import InputError, ModelError
from runtime.files.manifest import MANIFEST, SIGNATURE

LONGEST = 300  # characters of another library's sentence that are passed on
KEYS = "an elliptic-curve key without a password, in PEM, such as openssl ecparam -genkey makes"


def signer(private_key: Path) -> signing.Config:
    """What signs with a key. Raises InputError on a key that is none."""
    try:
        return signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(_everything_else())
    except Exception as error:  # of the file, of its text, of the kind of key: they share no base
        raise InputError(f"{private_key} does not sign ({_brief(error)}): name {KEYS}") from error


def sign(folder: Path, by: signing.Config) -> None:
    """Signs a folder, in place of an earlier signature."""
    by.sign(folder, folder / SIGNATURE)


def verify(folder: Path, public_key: Path) -> str:
    """The SHA-256 of the manifest that the key's owner signed, and every other file of the folder as it was signed.

    Raises ModelError where the folder is not signed, or by another key, or is not what was signed; InputError on no key.
    """
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # of the file, of its text, of the kind of key: they share no base
        raise InputError(f"{public_key} is no public key ({_brief(error)}): name the one that belongs to {KEYS}") from error
    try:
        signature = (folder / SIGNATURE).read_bytes()
    except OSError as error:
        reason = "it has no signature" if isinstance(error, FileNotFoundError) else error.strerror
        raise ModelError(f"{folder} is not trusted: {reason}: have it signed with videodeblur bundle --sign") from error
    try:
        with tempfile.TemporaryDirectory() as kept, redirect_stdout(sys.stderr):
            copy = Path(kept, SIGNATURE)  # what is verified is what is read below
            copy.write_bytes(signature)
            verifier.set_hashing_config(_everything_else()).verify(folder, copy)
        return _sha256_of_manifest(signature)
    except Exception as error:  # of the key, of the files, of the text: they share no base
        remedy = f"take one that {public_key.name}'s owner signed"
        raise ModelError(f"{folder} is not trusted by {public_key}: {_brief(error)}: {remedy}") from error


def _everything_else() -> hashing.Config:
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _sha256_of_manifest(signature: bytes) -> str:
    """Of a signature that holds."""
    statement = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    for resource in statement["predicate"]["resources"]:
        if (resource["name"], resource["algorithm"]) == (MANIFEST, "sha256"):
            return str(resource["digest"])
    raise ValueError(f"its signature is not over the sha256 of {MANIFEST}")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if changed := re.findall(r"Hash mismatch for \\*'([^'\\]+)", text):
        return f"{', '.join(changed)}: not what was signed"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
