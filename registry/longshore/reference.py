"""References: how people and pipelines name what a registry holds.

`llama3` · `llama3:7` (version) · `llama3@prod` (alias) · `llama3@sha256:…` (digest); a model may carry
one namespace, `team/llama3`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from longshore_runtime.errors import LongshoreError

_NAME = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"
_MODEL = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9._]*[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

RESERVED = frozenset({"versions", "aliases", "trees", "signatures", "events"})
"""Folder names of the layout; a model called so could not be told from another model's folder."""

MAX_LABEL = 63
"""Characters of a model's name, a version or an alias: they become Kubernetes label values."""


@dataclass(frozen=True)
class Reference:
    """A model, and at most one of version, alias and digest (hex, without its prefix)."""

    model: str
    version: str | None = None
    alias: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        if self.digest is not None:
            return f"{self.model}@sha256:{self.digest}"
        return f"{self.model}@{self.alias}" if self.alias is not None else self.model


def parse_reference(text: str) -> Reference:
    """The reference that `text` spells; raises LongshoreError, saying what is wrong, when it spells none."""
    model, separator, rest = _split(text)
    check_model(model)
    if separator == "@" and rest.startswith("sha256:"):
        if not (digest := _DIGEST.fullmatch(rest)):
            raise LongshoreError(f"{rest!r} is not a digest", "write sha256: and all 64 hexadecimal digits")
        return Reference(model, digest=digest[1])
    if separator == "@":
        return Reference(model, alias=check_label(rest, "alias"))
    if separator == ":":
        return Reference(model, version=check_label(rest, "version"))
    return Reference(model)


def _split(text: str) -> tuple[str, str, str]:
    first = min((place for place in (text.find("@"), text.find(":")) if place >= 0), default=len(text))
    return text[:first], text[first : first + 1], text[first + 1 :]


def check_model(name: str) -> str:
    """`name`, when a model may have it."""
    if not _MODEL.fullmatch(name) or len(name) > MAX_LABEL:
        raise LongshoreError(
            f"{name!r} is not a model's name",
            f"use at most {MAX_LABEL} small letters, digits, '-' and '.', no sign at either end; one '/' for a namespace",
        )
    if taken := sorted(RESERVED.intersection(name.split("/"))):
        raise LongshoreError(f"a model cannot be called {taken[0]!r}: the registry's own folders are", "choose another name")
    return name


def check_label(text: str, what: str) -> str:
    """`text`, when a version or an alias (`what`) may be called so."""
    if not _LABEL.fullmatch(text) or len(text) > MAX_LABEL:
        raise LongshoreError(
            f"{text!r} is not {'an' if what[0] in 'aeiou' else 'a'} {what}",
            f"use letters, digits, '-', '.' and '_', at most {MAX_LABEL}, beginning and ending with a letter or digit",
        )
    return text
