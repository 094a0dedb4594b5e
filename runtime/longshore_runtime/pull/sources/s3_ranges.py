"""Ranges of S3 objects by addresses that are signed once.

To make and sign a request costs boto3 as much as a core needs to receive a megabyte or two, and a large model is some
thousands of requests. A range is not part of what is signed, so one address serves all ranges of an object. It is asked
over connections of our own, which trust whom the client trusts; where there is a proxy the client itself has to be asked.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore import UNSIGNED
from botocore.httpsession import get_cert_path

from longshore_runtime.certificates import Trust, trust_bundle
from longshore_runtime.ranges import PATIENCE, RangeReader, Take
from longshore_runtime.s3_settings import read_s3_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VALID = 3600
"""Seconds for which an address is signed; half of them it is used."""


class SignedRanges:
    """Reads ranges of a bucket's objects. Thread-safe."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        # The one use of what botocore calls its own: there is no other way to what a client trusts, and to its proxies.
        self._session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
        self._signed: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._reader = RangeReader(self._trust, patience=min(PATIENCE, read_s3_settings().read_timeout))
        events: Any = client.meta.events
        events.register_first("choose-signer.s3", _keep_version_4)

    def read_into(self, key: str, offset: int, buffer: memoryview, take: Take | None = None) -> int | None:
        """Fill `buffer` from `offset`, or have `take` get them by pieces; returns how many, fewer only where they broke off.

        None when the store answers anything but the range: ask it in full, and it will say why. Raises OSError otherwise.
        """
        address = self._address(key)
        if self._session._proxy_config.proxy_url_for(address):
            return None
        count = self._reader.read_into(address, {}, offset, buffer, take)
        if count is None:
            self._forget(key)
        return count

    def _trust(self) -> Trust:
        """Whom the client trusts."""
        verify = self._session._verify
        return trust_bundle(Path(str(get_cert_path(verify))) if verify else None)

    def _forget(self, key: str) -> None:
        with self._lock:
            self._signed.pop(key, None)

    def _address(self, key: str) -> str:
        with self._lock:
            address, until = self._signed.get(key, ("", 0.0))
            if time.monotonic() > until:
                parameters = {"Bucket": self._bucket, "Key": key}
                address = self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=VALID)
                self._signed[key] = address, time.monotonic() + VALID / 2
            return address


def _keep_version_4(signature_version: Any = None, **_: Any) -> Any:
    """Have addresses signed as requests are; of its own botocore would take version 2, which many stores do not know.

    Without credentials there is nothing to sign, which botocore's own handler of this event would notice after this one.
    """
    if not isinstance(signature_version, str) or not signature_version.endswith("-query"):
        return None
    if signature_version.startswith("none"):
        return UNSIGNED
    # With awscrt, botocore's plain version 4 is not S3's: it signs an empty body's digest, and encodes paths twice.
    return "s3v4-query" if signature_version == "v4-query" else signature_version
