"""Which step of its start an engine has come to, by what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterable

Phase = tuple[re.Pattern[str], str]
"""What a line has in it, and the step in words, in which its groups stand as {0}, {1}."""


def find_phase(line: str, phases: Iterable[Phase]) -> str | None:
    """The step that a line of output tells of, or None."""
    for pattern, text in phases:
        if found := pattern.search(line):
            return text.format(*found.groups())
    return None
