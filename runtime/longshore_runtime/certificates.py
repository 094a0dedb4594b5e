"""Which certificate authorities are trusted: the machine's, those the environment names, and what KServe mounts."""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Trust:
    """Whom a client believes: the authorities in `files` (PEM) and in a `folder`; anybody where it does not `verify`."""

    files: tuple[Path, ...] = ()
    folder: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """What Python's TLS makes of it. Raises StoreFailed when a file cannot be read."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        for file in self.files:
            with _explained(file):
                context.load_verify_locations(file)
        if self.folder:
            context.load_verify_locations(capath=self.folder)
        return context

    def read_files(self) -> bytes:
        """All authorities of the files. Raises StoreFailed when one of them cannot be read."""
        found = []
        for file in self.files:
            with _explained(file):
                found.append(file.read_bytes())
        return b"\n".join(found)


@contextmanager
def _explained(bundle: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise StoreFailed(f"the CA bundle {bundle} cannot be read", "name a file of PEM certificates") from error


def find_trust(environment: Mapping[str, str] = os.environ) -> Trust:
    """Whom a hub's client trusts: what KServe mounts, beside the machine's own or what the environment names instead of it."""
    mounted = [bundle] if (bundle := mounted_bundle(environment)) else []
    if named := environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE"):
        return Trust((Path(named), *mounted))
    machine = ssl.get_default_verify_paths()
    found = [Path(machine.cafile)] if machine.cafile else []
    return Trust((*found, *machine_bundles(), *mounted), Path(machine.capath) if machine.capath else None)


def trust_bundle(bundle: Path | None) -> Trust:
    """Trust in the authorities of one file or folder, as S3's settings name them; None: in everybody."""
    if bundle is None:
        return Trust(verify=False)
    return Trust(folder=bundle) if bundle.is_dir() else Trust((bundle,))


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
