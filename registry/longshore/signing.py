"""Signatures of versions, as OpenSSF Model Signing has them: a Sigstore bundle around an in-toto statement.

The statement lists every file with its SHA-256, which the manifest knows, so signing reads no weights and works wherever
they lie. What the bundle says verifies with the public `model_signing` command on a pulled tree. The statement's name ends
with the version's digest, so that it covers the whole manifest: how the version is served, too, and the files that the
public command leaves out (`.gitattributes` and its like).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from longshore.registry import Registry
from longshore.version import Version
from longshore_runtime import paths
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.manifest import Manifest
from longshore_runtime.signatures import CURVES, SUFFIX, UNSIGNED

NOTHING = Manifest(files=())
"""What is signed to see whether a signer can."""


@dataclass(frozen=True)
class Signer:
    """A private key (PEM, an elliptic curve), alone or with its certificate and those above it."""

    key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    password: str | None = None


@dataclass(frozen=True)
class Trust:
    """Whose signatures count: those of a public key, or those of certificates below the ones in `chain`."""

    public_key: Path | None = None
    chain: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return self.public_key is not None or bool(self.chain)


@dataclass(frozen=True)
class Signature:
    """A stored signature of a version: its `name`, and whether it was `created` now."""

    version: Version
    name: str
    created: bool


def sign(registry: Registry, reference: str, signer: Signer) -> Signature:
    """Sign a version and store the bundle beside its files. Signing again with the same key changes nothing."""
    version = registry.resolve(reference)
    manifest = registry.manifest(version)
    bundle = sign_manifest(manifest, f"{version.model}@sha256:{version.digest}", signer)
    public = _public_key(signer)
    prefix = f"{'certificate' if signer.certificate else 'key'}-{hashlib.sha256(public).hexdigest()[:16]}"
    with tempfile.TemporaryDirectory() as folder:
        own_key = Path(folder) / "public.pem"
        own_key.write_bytes(public)
        own = Trust(chain=(signer.certificate, *signer.chain)) if signer.certificate else Trust(own_key)
        for name, stored in registry.signatures(version):
            if name.startswith(prefix) and _find_flaw(stored, manifest, own) is None:
                return Signature(version, name, False)
    name = f"{prefix}-{hashlib.sha256(bundle).hexdigest()[:8]}{SUFFIX}"
    registry.add_signature(version, name, bundle)
    return Signature(version, name, True)


def require_signature(registry: Registry, version: Version, manifest: Manifest, trust: Trust) -> dict[str, bytes]:
    """The bundles of a version that `trust` vouches for, by name. Raises Refused when there are none."""
    return select_trusted(dict(registry.signatures(version)), manifest, trust, version.reference)


def select_trusted(bundles: dict[str, bytes], manifest: Manifest, trust: Trust, title: str) -> dict[str, bytes]:
    """Those of the bundles that `trust` vouches for. Raises Refused, saying what is wrong with them, when none is."""
    if not bundles:
        raise Refused(f"{title} is not signed", f"sign it: longshore sign {title} --key KEY")
    flaws = {name: _find_flaw(bundle, manifest, trust) for name, bundle in bundles.items()}
    if good := {name: bundles[name] for name, flaw in flaws.items() if flaw is None}:
        return good
    reasons = "; ".join(sorted({flaw for flaw in flaws.values() if flaw}))
    raise Refused(f"no signature of {title} is by whom you trust: {reasons}", "do not use it, or name the right key")


def sign_manifest(manifest: Manifest, name: str, signer: Signer) -> bytes:
    """The bundle that signs what the manifest lists under `name`. Raises LongshoreError for keys that cannot sign."""
    library = _import_library()
    _require_key(signer)
    try:
        config = library.signing.Config().set_hashing_config(_Listed(library, manifest, name))
        if signer.certificate is not None:
            config.use_certificate_signer(
                private_key=signer.key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        else:
            password = signer.password.encode() if signer.password else None  # the library hands it on as it is
            config.use_elliptic_key_signer(private_key=signer.key, password=password)
        with tempfile.TemporaryDirectory() as folder:
            config.sign(name, Path(folder) / "bundle")
            return (Path(folder) / "bundle").read_bytes()
    except (ValueError, TypeError) as error:
        raise LongshoreError(
            f"{signer.key} cannot sign: {_first_line(error)}", "check that its certificate is its own"
        ) from error


def require_signer(signer: Signer) -> None:
    """Raise LongshoreError unless the signer can sign, which is tried, before anything is done that is to be signed."""
    name = "@sha256:" + NOTHING.digest
    bundle = sign_manifest(NOTHING, name, signer)
    if signer.chain and (flaw := _find_flaw(bundle, NOTHING, Trust(chain=signer.chain))):
        raise LongshoreError(
            f"nobody who trusts {signer.chain[-1]} would trust {signer.certificate}: {flaw}",
            "give a certificate for signing code, and those above it up to the root",
        )


def _require_key(signer: Signer) -> None:
    """Raise LongshoreError when the signer's files are not there, or its key is none that can sign."""
    for path in (signer.key, signer.certificate, *signer.chain):
        _require_file(path)
    try:
        _public_key(signer)
    except (ValueError, TypeError) as error:
        raise LongshoreError(
            f"{signer.key} cannot sign: {_first_line(error)}",
            "give a PEM file with a key on P-256, P-384 or P-521; LONGSHORE_KEY_PASSWORD opens one with a password",
        ) from error
    if signer.certificate is not None and signer.password and b"ENCRYPTED" in signer.key.read_bytes():
        raise LongshoreError(
            f"{signer.key} has a password, and with a certificate Model Signing opens none",
            "sign without --certificate, or with a key that has none",
        )


def _find_flaw(bundle: bytes, manifest: Manifest, trust: Trust) -> str | None:
    """Why the bundle is no signature of this manifest by whom `trust` names, or None."""
    library = _import_library()
    for path in (trust.public_key, *trust.chain):
        _require_file(path)
    config = library.verifying.Config().set_hashing_config(_Listed(library, manifest, "version"))
    try:
        if trust.public_key is not None:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=list(trust.chain))
    except (ValueError, TypeError, AttributeError) as error:
        named = trust.public_key or trust.chain[0]
        raise LongshoreError(f"{named} holds no key that can be used: {_first_line(error)}", "give a PEM file") from error
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # the library prints
        (Path(folder) / "bundle").write_bytes(bundle)
        try:
            config.verify("version", Path(folder) / "bundle")
            payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
            signed = str(payload["subject"][0]["name"])
        except Exception as error:  # whatever a stranger's bundle leads the parsers to
            return _first_line(error) or "it is not signed by that key"
    return None if signed.endswith(f"@sha256:{manifest.digest}") else f"it signs {signed}, another version of these files"


class _Listed:
    """What the library takes for the hashing of a directory: the digests come from the manifest."""

    def __init__(self, library: Any, manifest: Manifest, name: str) -> None:
        self._library, self._manifest, self._name = library, manifest, name

    def hash(self, _path: object, files_to_hash: object = None) -> Any:
        from model_signing._hashing.hashing import Digest

        arguments = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        kind = self._library.manifest.SerializationType.from_args({**arguments, "ignore_paths": [paths.METADATA, *UNSIGNED]})
        files = [file for file in self._manifest.files if PurePosixPath(file.path).parts[0] not in UNSIGNED]
        items = [kind.new_item(file.path, Digest("sha256", bytes.fromhex(file.sha256))) for file in files]
        return self._library.manifest.Manifest(self._name, items, kind)

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Nothing is walked, so nothing needs to be ignored."""


def _public_key(signer: Signer) -> bytes:
    """The signer's public key as PEM."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    password = signer.password.encode() if signer.password else None
    key = load_pem_private_key(signer.key.read_bytes(), password)
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise ValueError("it is not on one of the curves that signatures may have")
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_password() -> str | None:
    """What opens the private key, from the environment."""
    return os.environ.get("LONGSHORE_KEY_PASSWORD")


def _import_library() -> Any:
    try:
        import model_signing
        import model_signing.manifest
    except ImportError as error:
        raise LongshoreError(
            "the package model-signing is not installed", "in a checkout run: make setup; elsewhere install the extra sign"
        ) from error
    return model_signing


def _require_file(path: Path | None) -> None:
    if path is not None and not path.is_file():
        raise NotFound(f"{path} is not a file", "give the path of a PEM file")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:300]
