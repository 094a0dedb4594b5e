"""Signatures: made from the manifest alone, verified by us and by the public command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from longshore import Registry
from longshore.signing import Signature, Signer, Trust, require_signature, sign
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.manifest import Serving
from longshore_runtime.signatures import FOLDER, keep_bundles
from support.keys import Pair, make_certified, make_pair, make_rsa_key
from support.models import flip_byte, make_model


@pytest.fixture
def registry(root: str, model: Path) -> Registry:
    """A registry that holds m:1, on each kind of store."""
    (model / ".gitattributes").write_text("*.safetensors filter=lfs")
    opened = Registry(root)
    opened.push(model, "m:1")
    return opened


@pytest.fixture
def key(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "keys", "ours")


def require(registry: Registry, trust: Trust, reference: str = "m:1") -> dict[str, bytes]:
    version = registry.resolve(reference)
    return require_signature(registry, version, registry.manifest(version), trust)


def public_tool(tree: Path, signature: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", "verify", *map(str, options), "--signature", str(signature), str(tree)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_version_is_signed_once_and_by_several(registry: Registry, key: Pair, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="m:1 is not signed; sign it: longshore sign m:1 --key KEY"):
        require(registry, Trust(key.public))
    signed = sign(registry, "m:1", Signer(key.private))
    assert signed.created
    assert sign(registry, "m:1", Signer(key.private)) == Signature(signed.version, signed.name, False)
    assert require(registry, Trust(key.public)).keys() == {signed.name}
    other = make_pair(tmp_path / "keys", "theirs")
    with pytest.raises(Refused, match="no signature of m:1 is by whom you trust: Key mismatch"):
        require(registry, Trust(other.public))
    assert sign(registry, "m:1", Signer(other.private)).created
    assert len(require(registry, Trust(other.public))) == 1
    assert [event.verb for event in registry.log("m")][:2] == ["sign", "sign"]


def test_what_is_signed_verifies_with_the_public_command(registry: Registry, key: Pair, tmp_path: Path) -> None:
    sign(registry, "m:1", Signer(key.private))
    tree = tmp_path / "tree"
    registry.pull("m:1", tree)
    keep_bundles(tree, require(registry, Trust(key.public)))
    (bundle,) = (tree / FOLDER).iterdir()
    done = public_tool(tree, bundle, "key", "--public_key", key.public)
    assert (done.returncode, "Verification succeeded" in done.stdout) == (0, True), done.stderr
    flip_byte(tree / "config.json")
    assert "Hash mismatch for 'config.json'" in public_tool(tree, bundle, "key", "--public_key", key.public).stderr
    flip_byte(tree / "config.json")
    (tree / "more").write_text("x")
    assert "Extra files found" in public_tool(tree, bundle, "key", "--public_key", key.public).stderr


def test_certificates_do_as_well(registry: Registry, tmp_path: Path) -> None:
    ours, theirs = make_certified(tmp_path / "keys", "ours"), make_certified(tmp_path / "keys", "theirs")
    assert ours.certificate
    assert ours.root
    assert theirs.root
    signed = sign(registry, "m:1", Signer(ours.private, ours.certificate, (ours.root,)))
    assert not sign(registry, "m:1", Signer(ours.private, ours.certificate, (ours.root,))).created
    assert require(registry, Trust(chain=(ours.root,))).keys() == {signed.name}
    with pytest.raises(Refused, match="by whom you trust"):
        require(registry, Trust(chain=(theirs.root,)))
    tree = tmp_path / "tree"
    registry.pull("m:1", tree)
    keep_bundles(tree, require(registry, Trust(chain=(ours.root,))))
    (bundle,) = (tree / FOLDER).iterdir()
    done = public_tool(tree, bundle, "certificate", "--certificate_chain", ours.root)
    assert done.returncode == 0, done.stderr


def test_a_signature_is_of_one_version_and_of_how_it_is_served(registry: Registry, key: Pair, model: Path) -> None:
    signed = sign(registry, "m:1", Signer(key.private))
    ((_, bundle),) = registry.signatures(signed.version)
    registry.push(model, "m:2", serving=Serving(arguments=("--trust-remote-code",)))
    second = registry.resolve("m:2")
    registry.add_signature(second, signed.name, bundle)
    with pytest.raises(Refused, match=r"it signs m@sha256:[0-9a-f]{64}, another version of these files"):
        require(registry, Trust(key.public), "m:2")


def test_what_is_no_signature_is_refused(registry: Registry, key: Pair, tmp_path: Path) -> None:
    version = registry.resolve("m:1")
    for number, junk in enumerate((b"", b"{}", b"\xff", b'{"dsseEnvelope": {}}')):
        registry.add_signature(version, f"junk-{number}.sigstore.json", junk)
    with pytest.raises(Refused, match="no signature of m:1 is by whom you trust"):
        require(registry, Trust(key.public))
    signed = sign(registry, "m:1", Signer(key.private))
    assert require(registry, Trust(key.public)).keys() == {signed.name}
    with pytest.raises(Refused, match="another object lies at"):
        registry.add_signature(version, signed.name, b"other")


def test_a_key_with_a_password(registry: Registry, tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "keys", "closed", password="secret")
    for password in (None, "wrong"):
        with pytest.raises(LongshoreError, match=r"closed\.pem cannot sign.*LONGSHORE_KEY_PASSWORD"):
            sign(registry, "m:1", Signer(pair.private, password=password))
    assert sign(registry, "m:1", Signer(pair.private, password="secret")).created
    assert require(registry, Trust(pair.public))


def test_keys_that_are_none_are_named(registry: Registry, key: Pair, model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent is not a file"):
        sign(registry, "m:1", Signer(tmp_path / "absent"))
    for path in (model / "config.json", make_rsa_key(tmp_path / "keys"), key.public):
        with pytest.raises(LongshoreError, match="cannot sign"):
            sign(registry, "m:1", Signer(path))
    sign(registry, "m:1", Signer(key.private))
    with pytest.raises(LongshoreError, match="holds no key that can be used"):
        require(registry, Trust(model / "config.json"))


def test_signatures_go_along_with_a_copy(registry: Registry, key: Pair, tmp_path: Path) -> None:
    sign(registry, "m:1", Signer(key.private))
    other = Registry((tmp_path / "other").as_uri())
    registry.copy("m:1", other)
    assert require(other, Trust(key.public))


def test_nothing_of_the_tree_is_read_to_sign_it(tmp_path: Path, key: Pair) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    uri = registry.push(make_model(tmp_path / "m"), "m:1").version.uri
    for shard in Path(uri.removeprefix("file://")).glob("*.safetensors"):
        shard.unlink()
    assert sign(registry, "m:1", Signer(key.private)).created
