"""Addresses as they may be shown: a URI can carry a password or a signature, and a message must not."""

from __future__ import annotations


def redact(uri: str) -> str:
    """The URI without anything before an `@` in its host and without its query."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
