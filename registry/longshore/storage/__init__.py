"""Where a registry lives. A new store is one file here, one line in STORES, one row in the contract suite."""

from __future__ import annotations

from typing import cast

from longshore.storage.port import Store
from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError
from longshore_runtime.lookup import load

STORES = {
    "file": "longshore.storage.file:FileStore",
    "s3": "longshore.storage.s3:S3Store",
}


def open_store(uri: str) -> Store:
    """The store at a registry's root URI. Raises LongshoreError for a scheme that no store has."""
    scheme = uri.partition("://")[0]
    if "://" not in uri or scheme not in STORES:
        known = ", ".join(f"{name}://…" for name in STORES)
        raise LongshoreError(f"{redact(uri)} is not a registry's address", f"use one of {known}")
    return cast(Store, load(STORES[scheme])(uri))
