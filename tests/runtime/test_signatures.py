"""Bundles, held against the library that defines them: what it signs is taken here, what it refuses is refused here too."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from longshore.signing import Signer, Trust, select_trusted, sign_manifest
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.manifest import File, Manifest, Serving
from longshore_runtime.signatures import Key, Signed, find_flaw, find_signer, read_keys
from support.keys import Pair, make_certified, make_pair, make_rsa_key

PATHS = ("config.json", "weights/ü 1.safetensors", "weights/empty", ".gitattributes")
MANIFEST = Manifest(
    files=tuple(
        File(path=path, size=len(path), sha256=hashlib.sha256(path.encode()).hexdigest(), blake3=("0" * 64,)) for path in PATHS
    )
)
NAME = f"team/m@sha256:{MANIFEST.digest}"


def signed(manifest: Manifest = MANIFEST) -> Signed:
    return Signed({file.path: file.sha256 for file in manifest.files}, manifest.digest)


def key_of(pair: Pair) -> Key:
    (found,) = [key for key in read_keys(pair.public.parent) if key.name == pair.public.name]
    return found


def public(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> Pair:
    """A pair whose public key lies alone in a folder, as in a secret."""
    pair = make_pair(folder / f"{name}-private", name, curve=curve)
    (folder / f"{name}-public").mkdir()
    return Pair(pair.private, pair.public.rename(folder / f"{name}-public" / pair.public.name))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_the_library_signs_is_taken(curve: ec.EllipticCurve, tmp_path: Path) -> None:
    pair = public(tmp_path, "ours", curve)
    bundle = sign_manifest(MANIFEST, NAME, Signer(pair.private))
    assert find_flaw(bundle, signed(), key_of(pair)) is None
    assert find_signer({"b": b"", "a": bundle}, signed(), (key_of(pair),), "m") == ("a", key_of(pair))


Change = Callable[[dict[str, Any]], object]


def in_statement(change: Change) -> Change:
    """The same in the statement, with the signature as it was."""

    def apply(bundle: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return apply


CHANGES: list[Change] = [
    in_statement(lambda statement: statement["predicate"]["resources"].pop()),
    in_statement(lambda statement: statement["subject"][0].update(name=f"x@sha256:{MANIFEST.digest}")),
    lambda bundle: bundle["dsseEnvelope"]["signatures"].clear(),
    lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="MEUCIQ=="),
    lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
    lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint="0" * 64),
    lambda bundle: bundle.update(mediaType="application/json"),
    lambda bundle: bundle.pop("dsseEnvelope"),
    lambda bundle: bundle.update(dsseEnvelope=[]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused_here_and_there(change: Change, tmp_path: Path) -> None:
    pair = public(tmp_path, "ours")
    bundle = json.loads(sign_manifest(MANIFEST, NAME, Signer(pair.private)))
    change(bundle)
    data = json.dumps(bundle).encode()
    assert find_flaw(data, signed(), key_of(pair))
    with pytest.raises(Refused):
        select_trusted({"b": data}, MANIFEST, Trust(pair.public), "m")


AUTHENTIC: list[tuple[Change, str]] = [
    (lambda statement: statement["predicate"]["resources"].pop(), "it lists other files"),
    (lambda statement: statement["predicate"]["resources"].append(statement["predicate"]["resources"][0]), "other files"),
    (lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64), "it contradicts itself"),
    (lambda statement: statement["predicate"]["resources"][0].update(algorithm="md5"), "by their SHA-256"),
    (lambda statement: statement["predicate"]["serialization"].update(method="shards"), "by their SHA-256"),
    (lambda statement: statement["subject"].append({}), "not a bundle"),
    (lambda statement: statement.update(predicateType="https://model_signing/Digests/v0.1"), "not a bundle"),
    (lambda statement: statement.update(_type="x"), "not a bundle"),
    (lambda statement: statement["subject"][0].update(name=7), "not a bundle"),
]


@pytest.mark.parametrize(("change", "why"), AUTHENTIC)
def test_what_a_trusted_key_signed_must_be_this_version(change: Change, why: str, tmp_path: Path) -> None:
    pair = public(tmp_path, "ours")
    bundle = json.loads(sign_manifest(MANIFEST, NAME, Signer(pair.private)))
    in_statement(change)(bundle)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    kind = "application/vnd.in-toto+json"
    private = load_pem_private_key(pair.private.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    again = private.sign(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload, ec.ECDSA(SHA256()))
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(again).decode()
    assert why in (find_flaw(json.dumps(bundle).encode(), signed(), key_of(pair)) or "")


def test_another_version_another_key_and_a_certificate_do_not_count(tmp_path: Path) -> None:
    pair, other, certified = public(tmp_path, "ours"), public(tmp_path, "theirs"), make_certified(tmp_path / "c", "c")
    bundle = sign_manifest(MANIFEST, NAME, Signer(pair.private))
    served = Manifest(files=MANIFEST.files, serving=Serving(arguments=("--trust-remote-code",)))
    assert find_flaw(bundle, signed(served), key_of(pair)) == f"it signs {NAME}, another version"
    assert find_flaw(bundle, signed(), key_of(other)) == "it is made with another key"
    assert certified.certificate
    assert certified.root
    with_certificate = sign_manifest(MANIFEST, NAME, Signer(certified.private, certified.certificate, (certified.root,)))
    assert find_flaw(with_certificate, signed(), key_of(pair)) == "it is made with a certificate, not with a key"
    for junk in (b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"dsseEnvelope": 1, "verificationMaterial": 2}'):
        assert find_flaw(junk, signed(), key_of(pair)) == "it is not a bundle of Model Signing 1.0"
    with pytest.raises(Refused, match=r"m is not signed; sign it with: longshore sign"):
        find_signer({}, signed(), (key_of(pair),), "m")
    with pytest.raises(
        Refused, match=r"no signature of m is by a key that is trusted here: it is made with another key; it is not"
    ):
        find_signer({"a": bundle, "b": b""}, signed(), (key_of(other),), "m")


def test_a_folder_of_keys_holds_public_keys_and_nothing_else(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "made", "ours")
    keys = tmp_path / "keys"
    with pytest.raises(NotFound, match="there are no keys at"):
        read_keys(keys)
    (keys / "..data").mkdir(parents=True)  # as the kubelet mounts a secret
    with pytest.raises(NotFound, match="there are no keys in"):
        read_keys(keys)
    (keys / "..data/ours.pub").write_bytes(pair.public.read_bytes())
    (keys / "ours.pub").symlink_to("..data/ours.pub")
    assert [key.name for key in read_keys(keys)] == ["ours.pub"]
    for wrong in (pair.private.read_bytes(), b"?", make_certified(tmp_path / "made", "c").private.read_bytes()):
        (keys / "wrong").write_bytes(wrong)
        with pytest.raises(LongshoreError, match=r"wrong holds no public key; give a PEM file"):
            read_keys(keys)
    rsa = load_pem_private_key(make_rsa_key(tmp_path / "made").read_bytes(), None).public_key()
    (keys / "wrong").write_bytes(rsa_pem(rsa))
    with pytest.raises(LongshoreError, match=r"the key in .* is not on P-256"):
        read_keys(keys)


def rsa_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    data: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data
