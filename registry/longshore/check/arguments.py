"""Serving arguments against the engine: does its server know them, and are they anybody's to set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from longshore.check.findings import Finding
from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.engines.port import Engine
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.options import Option, group_options

SECRETS = {"api-key", "hf-token"}
"""Options whose value is nobody else's business; a version's manifest is everybody's who reads the registry."""


def check_arguments(arguments: Sequence[str], engine: Engine, support: Support) -> Iterator[Finding]:
    """The arguments that the engine's server would stop at, those that the runtime sets, and those that nobody may read."""
    leading, options = split(arguments)
    for token in leading:
        yield _judge_value(token, support) or Finding("argument-unknown", None, f"{token}: it follows no option")
    for option in options:
        yield from _judge(option, engine, support)
        yield from filter(None, (_judge_value(value, support) for value in option.tokens[1:]))


def split(arguments: Sequence[str]) -> tuple[list[str], list[Option]]:
    """What comes before the first option, and the options."""
    leading = list(takewhile(lambda token: not token.startswith("--"), arguments))
    return leading, group_options(arguments[len(leading) :])


def _judge(option: Option, engine: Engine, support: Support) -> Iterator[Finding]:
    name = option.tokens[0].partition("=")[0]
    try:
        engine.check_arguments(option.tokens)
    except LongshoreError as owned:
        yield Finding("argument-owned", None, owned.message)
        return
    if option.name in SECRETS:
        yield Finding("argument-secret", None, f"{name} is a secret, and whoever reads the registry would read it")
    elif not support.knows(name):
        near = support.nearest(name)
        meant = f" (did you mean {near}?)" if near else ""
        yield Finding("argument-unknown", None, f"{name}: {support.engine} has no such argument{meant}")


def _judge_value(value: str, support: Support) -> Finding | None:
    """What is wrong with a value that looks like the short form of an option, which nobody could tell from a value."""
    long = support.long_of(value)
    return Finding("argument-short", None, f"{value} stands for {long}") if long else None
