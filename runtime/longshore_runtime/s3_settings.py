"""How a store is reached, as the environment says it: the variables of every AWS tool, and those that KServe sets.

KServe turns a secret into variables (`S3_USER_VIRTUAL_BUCKET` is its spelling), or gives it whole, as JSON in
`STORAGE_CONFIG`, over which `STORAGE_OVERRIDE_CONFIG` goes. Both are read as KServe's own initializer reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from longshore_runtime.addresses import redact
from longshore_runtime.certificates import mounted_bundle
from longshore_runtime.errors import LongshoreError, StoreFailed

_CONFIG = {
    "endpoint_url": "AWS_ENDPOINT_URL",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
    "verify_ssl": "S3_VERIFY_SSL",
    "anonymous": "awsAnonymousCredential",
}
"""What a key of STORAGE_CONFIG stands for."""


@dataclass(frozen=True)
class S3Settings:
    """What a client is made of. None leaves a choice to boto3, which looks where every AWS tool looks.

    `given` are arguments for the client: endpoint, region, keys, and which certificates to trust.
    """

    given: dict[str, Any] = field(default_factory=dict)
    anonymous: bool = False
    virtual: bool = False
    accelerate: bool = False
    connect_timeout: int = 10
    read_timeout: int = 60
    attempts: int = 6


def read_s3_settings(environment: Mapping[str, str] = os.environ) -> S3Settings:
    """The settings. Raises LongshoreError, naming the variable, for what cannot be meant."""
    stored = _read_storage_config(environment)
    known = {**environment, **stored}
    given: dict[str, Any] = {}
    if "AWS_ENDPOINT_URL" in stored:
        given["endpoint_url"] = stored["AWS_ENDPOINT_URL"]
    if "AWS_DEFAULT_REGION" in stored:
        given["region_name"] = stored["AWS_DEFAULT_REGION"]
    if "AWS_ACCESS_KEY_ID" in stored:
        given["aws_access_key_id"] = stored["AWS_ACCESS_KEY_ID"]
        given["aws_secret_access_key"] = known.get("AWS_SECRET_ACCESS_KEY")
        given["aws_session_token"] = environment.get("AWS_SESSION_TOKEN")
    if (verify := _read_trust(known)) is not None:
        given["verify"] = verify
    return S3Settings(
        given=given,
        anonymous=_is_true(known, "awsAnonymousCredential"),
        virtual=_is_true(known, "S3_USER_VIRTUAL_BUCKET") or _is_legacy(known),
        accelerate=_is_true(known, "S3_USE_ACCELERATE"),
        connect_timeout=_read_count(known, "S3_CONNECT_TIMEOUT", S3Settings.connect_timeout),
        read_timeout=_read_count(known, "S3_READ_TIMEOUT", S3Settings.read_timeout),
        attempts=_read_count(known, "S3_MAX_ATTEMPTS", S3Settings.attempts),
    )


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key (no slash at either end) of an `s3://` URI."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise LongshoreError(
            f"{redact(uri)} is not an S3 address", "write s3://BUCKET/PREFIX, with credentials in the environment"
        )
    return parts.netloc, parts.path.strip("/")


def _read_storage_config(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a secret of KServe's stands for; nothing unless it is for S3."""
    merged: dict[str, Any] = {}
    for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        try:
            merged |= dict(json.loads(environment.get(name) or "{}"))
        except (ValueError, TypeError) as error:
            raise LongshoreError(f"{name} is not a JSON object", "correct the secret that KServe takes it from") from error
    if merged.get("type") != "s3":
        return {}
    return {_CONFIG[key]: _as_text(value) for key, value in merged.items() if key in _CONFIG and value is not None}


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_trust(known: Mapping[str, str]) -> bool | str | None:
    """Which certificates are trusted: no check at all, a file, or (None) those that boto3 trusts."""
    if known.get("S3_VERIFY_SSL", "").lower() in ("0", "false"):
        return False
    if named := known.get("AWS_CA_BUNDLE"):
        if not Path(named).exists():
            raise StoreFailed(f"the CA bundle {named} is missing", "correct AWS_CA_BUNDLE (s3-cabundle on KServe's secret)")
        return named
    mounted = mounted_bundle(known)
    return str(mounted) if mounted else None


def _is_legacy(known: Mapping[str, str]) -> bool:
    """AWS's one old endpoint finds a bucket of another region only by its host name."""
    host = urlsplit(known.get("AWS_ENDPOINT_URL", "")).hostname
    return host == "s3.amazonaws.com" and known.get("AWS_DEFAULT_REGION") not in (None, "", "us-east-1")


def _is_true(known: Mapping[str, str], name: str) -> bool:
    return known.get(name, "").lower() in ("true", "1")


def _read_count(known: Mapping[str, str], name: str, default: int) -> int:
    text = known.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not 0 < int(text) < 100_000:
        raise LongshoreError(f"{name} is {text!r}, which is not a number of use", f"write a whole number, or unset {name}")
    return int(text)
