"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def registry_option(command: Command) -> Command:
    """`--registry URI`."""
    option = click.option("--registry", metavar="URI", help="The registry: s3://BUCKET/PREFIX or file:///FOLDER.")
    return option(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
