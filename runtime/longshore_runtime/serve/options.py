"""Command-line options of an engine as data: who sets what, and who wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from longshore_runtime.errors import LongshoreError


@dataclass(frozen=True)
class Option:
    """One option with its values, as tokens (`--x`, `--x=1`, `--x 1 2`); `name` is how the engine knows it."""

    name: str
    tokens: tuple[str, ...]


def group_options(tokens: Sequence[str]) -> list[Option]:
    """The options in a list of arguments. Raises LongshoreError for a value that belongs to none."""
    groups: list[list[str]] = []
    for token in tokens:
        if token.startswith("--"):
            groups.append([token])
        elif groups:
            groups[-1].append(token)
        else:
            raise LongshoreError(f"the engine argument {token!r} does not follow an option", "write options as --NAME VALUE")
    return [Option(_name_of(group[0]), tuple(group)) for group in groups]


def merge_options(*layers: Iterable[Option]) -> list[Option]:
    """All options, where a later layer replaces what an earlier one set by the same name.

    Repetitions within one layer stay: an engine may collect them.
    """
    merged: list[Option] = []
    for layer in map(list, layers):
        names = {option.name for option in layer}
        merged = [option for option in merged if option.name not in names] + layer
    return merged


def flatten(options: Iterable[Option]) -> list[str]:
    """The options as arguments again."""
    return [token for option in options for token in option.tokens]


def _name_of(token: str) -> str:
    """`--no-enable_x=1` → `enable-x`: spellings that set the same thing have the same name."""
    return token.partition("=")[0].removeprefix("--").replace("_", "-").removeprefix("no-")


def refuse_owned(options: Iterable[Option], owned: Mapping[str, str]) -> None:
    """Raise LongshoreError for an option that the launcher sets; `owned` says where a user sets it instead."""
    for option in options:
        if option.name in owned:
            raise LongshoreError(
                f"--{option.name} is the launcher's, not the engine's",
                f"leave it out; whoever starts the engine says so with {owned[option.name]}",
            )


def refuse_short(tokens: Iterable[str], short: Mapping[str, str]) -> None:
    """Raise LongshoreError for an option in its `short` form, which is named there with its long one."""
    for token in tokens:
        if token.startswith("-") and token[1:] in short:
            long = short[token[1:]]
            raise LongshoreError(f"{token} is short for --{long}, and who reads it later may not know", f"write --{long}")
