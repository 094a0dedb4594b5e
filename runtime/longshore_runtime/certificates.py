"""Which certificate authorities are trusted: the machine's, those the environment names, and what KServe mounts."""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from longshore_runtime.errors import StoreFailed

_DISTRUST = re.compile(r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: ([^()\[\]]+)")

DEFAULT_MOUNT = "/etc/ssl/custom-certs"


def mounted_bundle(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The bundle of KServe's `caBundleConfigMapName`, when there is one; raises StoreFailed when its file is missing."""
    if not environment.get("CA_BUNDLE_CONFIGMAP_NAME"):
        return None
    bundle = Path(environment.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or DEFAULT_MOUNT) / "cabundle.crt"
    if not bundle.is_file():
        raise StoreFailed(
            f"the CA bundle {bundle} is missing", f"give the ConfigMap {environment['CA_BUNDLE_CONFIGMAP_NAME']} a cabundle.crt"
        )
    return bundle


def trusted_certificates(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """A client's context. What KServe mounts is trusted beside the machine's own, what the environment names instead of it."""
    named = environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE")
    bundles = [Path(named)] if named else machine_bundles()
    if mounted := mounted_bundle(environment):
        bundles.append(mounted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not named:
        context.load_default_certs()
    for bundle in bundles:
        try:
            context.load_verify_locations(bundle)
        except (OSError, ssl.SSLError) as error:
            raise StoreFailed(f"the CA bundle {bundle} cannot be read", "name a file of PEM certificates") from error
    return context


def trust_bundle(bundle: Path | None) -> ssl.SSLContext:
    """A client's context that trusts the authorities in one file or folder, as S3's settings name them; None: everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if bundle is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(**{"capath" if bundle.is_dir() else "cafile": str(bundle)})
    return context


def find_distrust(error: BaseException) -> str | None:
    """Why a server's certificate was not trusted, where that is what an error, whoever raised it, is about."""
    found = _DISTRUST.search(str(error))
    return found[1].strip() if found else None


def machine_bundles() -> list[Path]:
    """Mozilla's bundle that botocore brings: images without certificates of their own need one."""
    if (found := importlib.util.find_spec("botocore")) is None or not found.origin:
        return []
    bundle = Path(found.origin).parent / "cacert.pem"
    return [bundle] if bundle.is_file() else []
