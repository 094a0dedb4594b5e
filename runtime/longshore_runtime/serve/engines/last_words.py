"""What the last output of an engine that ended says of the reason, by a table of its messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from longshore_runtime.errors import EngineFailed

KEPT = 300
"""Characters of what an engine said itself."""


class Cause(NamedTuple):
    """`name` for programs; `pattern` finds the message, whose groups `what` and `more` stand in `sentence`."""

    name: str
    pattern: str
    sentence: str
    hint: str


def explain(engine: str, causes: Iterable[Cause], output: Sequence[str], otherwise: str) -> EngineFailed:
    """One sentence, what to do, and the cause's name; the first cause in the table whose message is there, else `otherwise`."""
    text = "\n".join(output)
    for cause in causes:
        if found := re.search(cause.pattern, text):
            words = {name: " ".join((value or "").split())[:KEPT] for name, value in found.groupdict().items()}
            return EngineFailed(f"{engine} refused the model: {cause.sentence.format(**words)}", cause.hint, cause.name)
    return EngineFailed(f"{engine} ended: {otherwise[:KEPT]}", "see its output above, or run again with --verbose", "unknown")
