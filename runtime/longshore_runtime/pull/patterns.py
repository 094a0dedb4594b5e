"""Which files of a tree are wanted, where not all are: as KServe's own initializer and the hubs' clients spell it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from longshore_runtime.errors import LongshoreError

ALLOW, IGNORE = "STORAGE_ALLOW_PATTERNS", "STORAGE_IGNORE_PATTERNS"


@dataclass(frozen=True)
class Patterns:
    """A file is wanted when one of `allow` matches its path (or there are none) and none of `ignore` does.

    A `*` also matches slashes, and a pattern that ends in a slash means all that lies below.
    """

    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether the file at `path`, relative to the tree's root, is to be pulled."""
        return (not self.allow or _matches(path, self.allow)) and not _matches(path, self.ignore)

    def __bool__(self) -> bool:
        return bool(self.allow or self.ignore)


EVERYTHING = Patterns()


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)


def read_patterns(environment: Mapping[str, str] = os.environ) -> Patterns:
    """The patterns of STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS: a JSON list, or separated by commas."""
    return Patterns(_read(environment, ALLOW), _read(environment, IGNORE))


def _read(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = environment.get(name, "").strip()
    try:
        parsed = json.loads(value) if value.startswith("[") else value.split(",")
    except ValueError as error:
        raise LongshoreError(
            f"{name} is not a JSON list", 'write ["*.safetensors", "*.json"], or *.safetensors,*.json'
        ) from error
    return tuple(stripped for item in parsed if (stripped := str(item).strip()))
