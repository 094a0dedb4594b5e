"""Where a registry lives. A new store is one file here, one line in STORES, one row in the contract suite."""

from __future__ import annotations

import importlib
from typing import cast

from longshore.storage.port import Store
from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError

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
    module, _, name = STORES[scheme].partition(":")
    return cast(Store, getattr(importlib.import_module(module), name)(uri))
