"""A model's config.json, read by whichever of the names that families use for the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "transformer_layer_config")
"""Where models with several parts keep the language model's own configuration, and drafts of Speculators their layers'."""


@dataclass(frozen=True)
class Config:
    """A JSON object. What is absent, null or of another type reads as 0, "", False or empty."""

    content: Mapping[str, Any] = field(default_factory=dict)

    def count(self, *names: str) -> int:
        """The first of the names that holds a whole number above zero; 0 when none does. Of a list, the greatest."""
        for name in names:
            value = self.content.get(name)
            if isinstance(value, list):
                value = max((item for item in value if type(item) is int), default=0)
            if type(value) is int and value > 0:
                return value
        return 0

    def text(self, *names: str) -> str:
        """The first of the names that holds a text."""
        values = (self.content.get(name) for name in names)
        return next((value for value in values if isinstance(value, str)), "")

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a switch is on."""
        value = self.content.get(name)
        return value if isinstance(value, bool) else default

    def part(self, *names: str) -> Config:
        """The first of the names that holds an object."""
        values = (self.content.get(name) for name in names)
        return Config(next((value for value in values if isinstance(value, Mapping)), {}))

    def items(self, *names: str) -> list[Any]:
        """The first of the names that holds a list."""
        values = (self.content.get(name) for name in names)
        return list(next((value for value in values if isinstance(value, list)), []))

    @property
    def language(self) -> Config:
        """The configuration of the language model: the object itself, or its part of that name, at any depth."""
        inner = self.part(*TEXT_PARTS)
        return inner.language if inner.content else self
