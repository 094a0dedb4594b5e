"""Which models an engine can serve, and its options: a table, made from the engine itself when its version is pinned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources

from longshore_runtime.serve.options import group_options


@dataclass(frozen=True)
class Support:
    """`engine` and `version` that the table was made from.

    `architectures` by name to what they are for (`generate`, `embed`, `classify`, `draft`), `removed` to the last version
    that had them, `suffixes` of names that stand for conversions of one another, `fallback` what runs, if at all, through
    a generic backend, `quantizations` by the name that config.json has for them. `arguments` are the long options of its
    server without their dashes, `short` are the short ones, with the long ones that they stand for.
    """

    engine: str
    version: str
    architectures: Mapping[str, str]
    removed: Mapping[str, str]
    suffixes: Mapping[str, str]
    fallback: frozenset[str]
    quantizations: frozenset[str]
    arguments: frozenset[str]
    short: Mapping[str, str]

    def knows(self, argument: str) -> bool:
        """Whether its server has this long option, however it is spelled: `--max_model_len=1`, `--a-config.key`."""
        return option_name(argument) in self.arguments

    def long_of(self, argument: str) -> str | None:
        """The long option that a short one (`-tp`, `-tp=2`) stands for."""
        name = argument.removeprefix("-").partition("=")[0].partition(".")[0]
        return f"--{self.short[name]}" if argument.startswith("-") and name in self.short else None

    def find_unknown(self, arguments: Sequence[str]) -> str | None:
        """The first option that its server would stop at. What may be the beginning of a longer one is left to its parser."""
        for option in group_options(arguments):
            name = option_name(option.tokens[0])
            if not self.knows(name) and not any(known.startswith(name) for known in self.arguments):
                return option.tokens[0]
        return None

    def nearest(self, argument: str) -> str | None:
        """The long option that a misspelled one may be meant to be."""
        close = get_close_matches(option_name(argument), sorted(self.arguments), n=1, cutoff=0.7)
        return f"--{close[0]}" if close else None

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


def option_name(argument: str) -> str:
    """`--some_config.key+=1` → `some-config`."""
    return argument.removeprefix("--").partition("=")[0].partition(".")[0].rstrip("+").replace("_", "-")


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
        arguments=frozenset(content["arguments"]),
        short=content["short"],
    )
