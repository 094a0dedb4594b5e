"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from longshore_runtime.progress import JsonLines, Lines, Progress


def print_json(content: Any) -> None:
    """One JSON document; dataclasses as objects, digests as `sha256:…`."""
    click.echo(json.dumps(_plain(content), indent=2, ensure_ascii=False))


def _plain(content: Any) -> Any:
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        content = {field.name: getattr(content, field.name) for field in dataclasses.fields(content)}
    if isinstance(content, dict):
        return {key: show_digest(value) if key == "digest" else _plain(value) for key, value in content.items()}
    return [_plain(item) for item in content] if isinstance(content, list | tuple) else content


def show_digest(digest: str | None) -> str | None:
    """A digest as references spell it."""
    return f"sha256:{digest}" if digest else None


def show_time(moment: str) -> str:
    """A record's time to the second: `2026-11-21 10:04:09 UTC`."""
    return f"{moment[:19].replace('T', ' ')} UTC"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns below a header in capitals, as kubectl prints them."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def open_progress() -> Progress:
    """What `--progress` says; otherwise a bar on a terminal, plain lines elsewhere."""
    wanted = click.get_current_context().find_root().params.get("progress")
    if wanted == "json":
        return JsonLines()
    if wanted == "lines" or (wanted is None and not sys.stderr.isatty()):
        return Lines()
    from longshore.cli.bar import Bar

    return Bar()


class Stopwatch:
    """Progress whose sentences begin with the seconds since the start."""

    def __init__(self, shown: Progress) -> None:
        self._started = time.monotonic()
        self.begin, self.advance, self.end, self._say = shown.begin, shown.advance, shown.end, shown.say

    def say(self, text: str) -> None:
        self._say(f"[{time.monotonic() - self._started:5.1f} s] {text}")
