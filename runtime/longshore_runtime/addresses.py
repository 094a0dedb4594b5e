"""Addresses: what they say by themselves, and how they may be shown."""

from __future__ import annotations

import re

_DIGEST_PATH = re.compile(r"/trees/([0-9a-f]{64})/?$")


def redact(uri: str) -> str:
    """The URI without anything before an `@` in its host and without its query: it can carry a password or a signature."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def pinned_digest(uri: str) -> str | None:
    """The digest (hex) that an address `…/trees/<digest>` implies."""
    found = _DIGEST_PATH.search(uri)
    return found[1] if found else None
