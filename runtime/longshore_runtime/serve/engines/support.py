"""Which models an engine can serve: a table, made from the engine's own registry when its version is pinned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Support:
    """`engine` and `version` that the table was made from.

    `architectures` by name to what they are for (`generate`, `embed`, `classify`, `draft`), `removed` to the last version
    that had them, `suffixes` of names that stand for conversions of one another, `fallback` what runs, if at all, through
    a generic backend, `quantizations` by the name that config.json has for them.
    """

    engine: str
    version: str
    architectures: Mapping[str, str]
    removed: Mapping[str, str]
    suffixes: Mapping[str, str]
    fallback: frozenset[str]
    quantizations: frozenset[str]

    def kind_of(self, architecture: str) -> str | None:
        """What a model of this architecture does, `fallback` where nobody promises it; None when it is not supported."""
        if architecture in self.architectures:
            return self.architectures[architecture]
        if suffix := next((suffix for suffix in self.suffixes if architecture.endswith(suffix)), None):
            stem = architecture.removesuffix(suffix)
            if any(stem + other in self.architectures for other in self.suffixes):
                return self.suffixes[suffix]
        return "fallback" if architecture in self.fallback else None

    def __str__(self) -> str:
        return f"{self.engine} {self.version}"


@cache
def read_support(engine: str, name: str) -> Support:
    """The table in the data file `name` beside this module."""
    content = json.loads(resources.files(__package__).joinpath(name).read_text())
    return Support(
        engine=engine,
        version=content["version"],
        architectures=content["architectures"],
        removed=content["removed"],
        suffixes=content["suffixes"],
        fallback=frozenset(content["fallback"]),
        quantizations=frozenset(content["quantizations"]),
    )
