"""Options that commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def registry_option(command: Command) -> Command:
    """`--registry URI`."""
    option = click.option("--registry", metavar="URI", help="The registry: s3://BUCKET/PREFIX or file:///FOLDER.")
    return option(command)


def adapters_option(command: Command) -> Command:
    """`--adapter REFERENCE`, any number of times."""
    text = "Serve this adapter of it in the same engine; may be repeated."
    return click.option("--adapter", "adapters", metavar="REFERENCE", multiple=True, help=text)(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


class Duration(click.ParamType[float]):
    """A time span such as 90s, 30m, 24h or 7d; the command gets seconds."""

    name = "duration"
    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not (found := re.fullmatch(r"(\d{1,6})([smhd])", value)):
            self.fail(f"{value!r} is not a time span; write 90s, 30m, 24h or 7d", param, ctx)
        return float(found[1]) * self._SECONDS[found[2]]


duration = Duration()
