"""How a model, a version and an alias may be called, wherever one is written: in a registry, in an address."""

from __future__ import annotations

import re

from longshore_runtime.errors import LongshoreError

_NAME = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"
_MODEL = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9._]*[A-Za-z0-9])?")

RESERVED = frozenset({"versions", "aliases", "trees", "signatures", "deletions", "events", "guards", "staging", "dependents"})
"""Folder names of the layout; a model called so could not be told from another model's folder."""

MAX_LABEL = 63
"""Characters of a model's name, a version or an alias: they become Kubernetes label values."""


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
