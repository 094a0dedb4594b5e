"""References: how people and pipelines name what a registry holds.

`llama3` · `llama3:7` (version) · `llama3@prod` (alias) · `llama3@sha256:…` (digest); a model may carry
one namespace, `team/llama3`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from longshore_runtime.errors import LongshoreError
from longshore_runtime.names import check_label, check_model

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


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
