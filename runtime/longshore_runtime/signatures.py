"""Signatures of versions, held against public keys: OpenSSF Model Signing's bundles, read without its library.

A bundle is a DSSE envelope around an in-toto statement, which lists the SHA-256 of every file. What signs versions says in the
statement's name which manifest it means, so that a signature covers how the version is served, too. Who verifies here takes
less than the public library does: keys alone, one signature in an envelope, and nothing of the formats before 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from longshore_runtime import paths
from longshore_runtime.errors import LongshoreError, NotFound, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

FOLDER = f"{paths.METADATA}/signatures"
"""Where a pull that required a signature leaves the bundles, for whoever verifies the tree again."""

SUFFIX = ".sigstore.json"
CURVES = ("secp256r1", "secp384r1", "secp521r1")
UNSIGNED = (".git", ".gitattributes", ".github", ".gitignore")
"""What the public command does not look at unless it is told to; the manifest's digest covers it."""

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Key:
    """A public key: `name` is its file's, `fingerprint` the SHA-256 of its PEM in hex."""

    name: str
    fingerprint: str
    public: EllipticCurvePublicKey


@dataclass(frozen=True)
class Signed:
    """What a signature has to be of: the SHA-256 of each file by path, and the manifest's `digest`, all in hex."""

    files: Mapping[str, str]
    digest: str


def read_keys(folder: Path) -> tuple[Key, ...]:
    """Every public key in a folder, as a mounted secret has them. Raises LongshoreError for anything else in it, or nothing."""
    if not folder.is_dir():
        raise NotFound(f"there are no keys at {folder}", "mount a secret with the public keys there")
    found = tuple(_read_key(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.is_file())
    if not found:
        raise NotFound(f"there are no keys in {folder}", "put PEM files with public keys into the secret")
    return found


def _read_key(path: Path) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        public = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise LongshoreError(f"{path} holds no public key", "give a PEM file: openssl ec -in KEY -pubout") from error
    if not isinstance(public, EllipticCurvePublicKey) or public.curve.name not in CURVES:
        raise LongshoreError(f"the key in {path} is not on P-256, P-384 or P-521", "no such key can sign a version")
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Key(path.name, hashlib.sha256(pem).hexdigest(), public)


def find_signer(bundles: Mapping[str, bytes], signed: Signed, keys: tuple[Key, ...], title: str) -> tuple[str, Key]:
    """The name of a bundle and the key that made it. Raises Refused, saying what is wrong with each, where there is none."""
    if not bundles:
        raise Refused(f"{title} is not signed", "sign it with: longshore sign REF --key KEY")
    flaws = set()
    for name in sorted(bundles):
        for key in keys:
            flaw = find_flaw(bundles[name], signed, key)
            if flaw is None:
                return name, key
            flaws.add(flaw)
    raise Refused(
        f"no signature of {title} is by a key that is trusted here: {'; '.join(sorted(flaws))}",
        "do not use it, or add its signer's public key",
    )


def find_flaw(bundle: bytes, signed: Signed, key: Key) -> str | None:
    """Why the bundle is no signature of just this by this key, or None."""
    try:
        statement = _open(json.loads(bundle), key)
        if isinstance(statement, str):
            return statement
        return _compare(json.loads(statement), signed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
        return "it is not a bundle of Model Signing 1.0"


def _open(content: dict[str, Any], key: Key) -> bytes | str:
    """The statement that the key has signed, or why there is none. Raises what a malformed bundle leads to."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    material, envelope = content["verificationMaterial"], content["dsseEnvelope"]
    if content["mediaType"] != _BUNDLE or envelope["payloadType"] != _PAYLOAD:
        return "it is not a bundle of Model Signing 1.0"
    if "publicKey" not in material:
        return "it is made with a certificate, not with a key"
    if material["publicKey"].get("hint") != key.fingerprint:
        return "it is made with another key"
    (signature,) = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    algorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.public.curve.key_size]
    message = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    try:
        key.public.verify(base64.b64decode(signature["sig"], validate=True), message, ECDSA(algorithm))
    except InvalidSignature:
        return "it was changed after it was made"
    return payload


def _compare(statement: dict[str, Any], signed: Signed) -> str | None:
    """Why an authentic statement is not about these files, or None."""
    (subject,) = statement["subject"]
    predicate = statement["predicate"]
    if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
        return "it is not a bundle of Model Signing 1.0"
    if not subject["name"].endswith(f"@sha256:{signed.digest}"):
        return f"it signs {subject['name'][:200]}, another version"
    resources = predicate["resources"]
    digests = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    if predicate["serialization"]["method"] != "files" or {resource["algorithm"] for resource in resources} - {"sha256"}:
        return "it does not list files by their SHA-256"
    expected = {path: sha256 for path, sha256 in signed.files.items() if PurePosixPath(path).parts[0] not in UNSIGNED}
    listed = {resource["name"]: resource["digest"] for resource in resources}
    if listed != expected or len(resources) != len(listed):
        return "it lists other files"
    return None if hashlib.sha256(digests).hexdigest() == subject["digest"]["sha256"] else "it contradicts itself"


def keep_bundles(tree: Path, bundles: Mapping[str, bytes]) -> None:
    """Leave the bundles in a pulled tree."""
    for name, bundle in bundles.items():
        path = tree / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle)


def kept_bundles(tree: Path) -> dict[str, bytes]:
    """The bundles that a pull left in a tree, by name."""
    return {path.name: path.read_bytes() for path in sorted((tree / FOLDER).glob(f"*{SUFFIX}"))}
