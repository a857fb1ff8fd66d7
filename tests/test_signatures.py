"""Signed bundles: who made what is in them, with keys that are files; what hashes alone cannot tell."""

import json
import shutil
import subprocess
import sys

import pytest

from export.to_bundle import BundleRequest, main, write_bundle
from runtime import DeployError, Engine, InputError, ModelError
from runtime.files.manifest import MANIFEST, SIGNATURE, manifest_text

pytest.importorskip("model_signing", reason="needs model_signing")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def keys(folder, name, curve=None):
    private = ec.generate_private_key(curve or ec.SECP256R1())
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(private.private_bytes(pem, pkcs8, plain))
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A folder with a signed bundle, and the keys of two people, the first of whom signed it."""
    folder = tmp_path_factory.mktemp("signed")
    keys(folder, "ours")
    keys(folder, "theirs")
    arguments = ["--onnx", str(tiny_model), "--output", str(folder / "x.bundle"), "--sign", str(folder / "ours.key")]
    assert main(arguments) == 0
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made / "x.bundle", tmp_path / "copy.bundle")


def test_a_signed_bundle_opens_for_who_trusts_its_author_and_for_who_does_not_ask(made, bundle):
    for trust in (made / "ours.pub", str(made / "ours.pub"), None):
        with Engine(bundle, "onnxruntime", trust=trust) as engine:
            assert "tiny.onnx is within" in engine.reason
    with pytest.raises(ModelError, match=r"copy\.bundle is not trusted by .*theirs\.pub: .*: take one that theirs\.pub's owner"):
        Engine(bundle, "onnxruntime", trust=made / "theirs.pub")


def test_an_unsigned_bundle_is_refused_where_a_signature_is_asked_for(made, bundle):
    (bundle / SIGNATURE).unlink()
    with pytest.raises(ModelError, match="is not trusted: it has no signature: have it signed with videodeblur bundle --sign"):
        Engine(bundle, "onnxruntime", trust=made / "ours.pub")


def forge(bundle):
    """What hashes cannot tell: a manifest that somebody else wrote."""
    values = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(manifest_text({**values, "created": "1999-01-01"}))


def test_a_manifest_that_somebody_recomputed_is_not_what_was_signed(made, bundle):
    forge(bundle)
    Engine(bundle, "onnxruntime").close()
    with pytest.raises(ModelError, match=r"is not trusted by .*: manifest\.json: not what was signed: take one"):
        Engine(bundle, "onnxruntime", trust=made / "ours.pub")


def test_a_manifest_that_is_exchanged_after_the_signature_was_verified(made, bundle, monkeypatch):
    from runtime.files import signatures

    verify = signatures.verify
    monkeypatch.setattr(signatures, "verify", lambda *given: (verify(*given), forge(bundle))[0])
    with pytest.raises(ModelError, match=r"manifest\.json was changed after it was signed"):
        Engine(bundle, "onnxruntime", trust=made / "ours.pub")


@pytest.mark.parametrize("change", [lambda data: data[:-20], lambda data: b"{}", lambda data: b"\xff" * 50, lambda data: b""])
def test_a_damaged_signature_is_none(made, bundle, change):
    (bundle / SIGNATURE).write_bytes(change((bundle / SIGNATURE).read_bytes()))
    with pytest.raises(ModelError, match="is not trusted by"):
        Engine(bundle, "onnxruntime", trust=made / "ours.pub")


def test_a_signed_bundle_is_whole(made, bundle):
    next(bundle.glob("golden-*-reference.npy")).unlink()
    with pytest.raises(ModelError, match="Missing files in model"):
        Engine(bundle, "onnxruntime", trust=made / "ours.pub")


def test_verify_tells_what_it_verified(made, bundle, capsys):
    for trust, said in (([], "by whom was not asked"), (["--trust", str(made / "ours.pub")], "signed by the owner of")):
        assert main(["--verify", str(bundle), *trust]) == 0
        assert said in capsys.readouterr().out
    assert main(["--verify", str(bundle), "--trust", str(made / "theirs.pub")]) == 1
    assert "is not trusted by" in capsys.readouterr().err
    (bundle / SIGNATURE).unlink()
    assert main(["--verify", str(bundle)]) == 0
    assert "nobody signed it" in capsys.readouterr().out
    (bundle / "more").touch()
    assert main(["--verify", str(bundle)]) == 1
    assert "more' is not in the bundle's manifest" in capsys.readouterr().err


def test_openssfs_own_command_verifies_it(made, bundle):
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle), "--signature", str(bundle / SIGNATURE)]
    done = subprocess.run([*command, "--public_key", str(made / "ours.pub")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", [b"", b"ssh-rsa AAAA", None])
def test_keys_that_are_none(made, bundle, tiny_model, tmp_path, text):
    key = tmp_path / "k.pem"
    if text is not None:
        key.write_bytes(text)
    with pytest.raises(InputError, match=r"k\.pem is no public key"):
        Engine(bundle, trust=key)
    with pytest.raises(InputError, match=r"k\.pem does not sign"):
        write_bundle(BundleRequest(tiny_model, (), tmp_path / "y.bundle", sign=key))
    assert not (tmp_path / "y.bundle").exists()


def test_other_curves_are_told_before_anything_is_made(tiny_model, tmp_path):
    keys(tmp_path, "odd", ec.SECP256K1())
    with pytest.raises(InputError, match="Unsupported key for curve"):
        write_bundle(BundleRequest(tiny_model, (), tmp_path / "y.bundle", sign=tmp_path / "odd.key"))


def test_only_bundles_are_signed(made, tiny_model):
    for path in (tiny_model, "grpc://127.0.0.1:1/m"):
        with pytest.raises(InputError, match="only bundles are signed"):
            Engine(path, trust=made / "ours.pub")


def test_without_the_package_the_line_that_brings_it(made, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "runtime.files.signatures", None)
    with pytest.raises(DeployError, match=r"a signature needs a package that is not installed: pip install 'model_signing"):
        Engine(bundle, trust=made / "ours.pub")


@pytest.mark.parametrize("quoted", ["'manifest.json'", "\\'manifest.json\\'", "\\\\\\'manifest.json\\\\\\'"])
def test_the_changed_file_is_named_however_the_library_quotes_it(quoted):
    """It prints a list of sentences that hold digests as bytes, whose own quotes decide how all others are written."""
    from runtime.files import signatures

    assert signatures._brief(ValueError(f"Signature mismatch: [Hash mismatch for {quoted}: Expected ...")) == (
        "manifest.json: not what was signed"
    )
