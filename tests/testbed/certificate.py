"""One self-signed certificate for a whole test-bed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "testbed"
"""Whom the certificate names, as a client."""

_CLOCK_SKEW = datetime.timedelta(hours=1)
_LIFETIME = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files in one folder named as controller-runtime looks for them."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        return self.folder / "tls.key"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"


def make_certificate(folder: Path, addresses: list[str]) -> Certificate:
    """Make a certificate that serves those addresses, identifies clients, and is its own authority for both."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _describe(key.public_key(), addresses).sign(key, hashes.SHA256())
    made = Certificate(folder)
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    pem = serialization.Encoding.PEM
    made.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    made.certificate.write_bytes(signed.public_bytes(pem))
    made.authority.write_bytes(signed.public_bytes(pem))
    return made


def _describe(key: ec.EllipticCurvePublicKey, addresses: list[str]) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    served = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        x509.CertificateBuilder(name, name, key, x509.random_serial_number(), now - _CLOCK_SKEW, now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectAlternativeName([*served, x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
