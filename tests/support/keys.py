"""Keys and certificates to sign with, made on the spot."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Pair:
    """PEM files of one key; `certificate` and its `root` where it has them."""

    private: Path
    public: Path
    certificate: Path | None = None
    root: Path | None = None


def make_pair(folder: Path, name: str, password: str | None = None, curve: ec.EllipticCurve | None = None) -> Pair:
    """An elliptic-curve key, on P-256 unless another is asked for."""
    return _write(folder, name, ec.generate_private_key(curve or ec.SECP256R1()), password)


def make_rsa_key(folder: Path) -> Path:
    """A key that Model Signing does not take."""
    return _write(folder, "rsa", rsa.generate_private_key(65537, 2048), None).private


def make_certified(folder: Path, name: str) -> Pair:
    """A key with a certificate for signing code, below a root of its own."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])
    root = _build(root_name, root_name, root_key.public_key()).add_extension(x509.BasicConstraints(True, 1), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    signed_root = root.add_extension(usage, critical=True).sign(root_key, hashes.SHA256())
    leaf = _build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), root_name, key.public_key())
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), critical=True)
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    leaf = leaf.add_extension(usage, critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    pair = _write(folder, name, key, None)
    certificate, authority = folder / f"{name}.crt", folder / f"{name}-root.crt"
    certificate.write_bytes(leaf.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    authority.write_bytes(signed_root.public_bytes(Encoding.PEM))
    return Pair(pair.private, pair.public, certificate, authority)


def _build(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str | None) -> Pair:
    folder.mkdir(parents=True, exist_ok=True)
    closed = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return Pair(private, public)
