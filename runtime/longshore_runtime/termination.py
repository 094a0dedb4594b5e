"""The last words of a container: one line of JSON that the kubelet keeps, where KServe and `longshore status` find it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from longshore_runtime.errors import LongshoreError

LOG = Path("/dev/termination-log")
LIMIT = 4000
"""Bytes of the message; the kubelet cuts it at 4096, and cut JSON is no JSON."""

_CONTEXT = 300
"""Characters of everything but the error's text."""


def leave_message(error: LongshoreError, **context: str | float | None) -> None:
    """Write down why this process ends, with what to do and whatever `context` tells; does nothing outside a pod."""
    if os.access(LOG, os.W_OK):
        LOG.write_bytes(compose(error, context))


def leave_verdict(content: dict[str, Any]) -> None:
    """Write down what was done; does nothing outside a pod. What comes after it, done or failed, replaces it."""
    if os.access(LOG, os.W_OK):
        known = {name: value for name, value in content.items() if value is not None}
        line = json.dumps({"verdict": "done", **known}, ensure_ascii=False).encode(errors="replace")
        LOG.write_bytes(line if len(line) <= LIMIT else b"")


def compose(error: LongshoreError, context: dict[str, str | float | None]) -> bytes:
    """One line of JSON of at most LIMIT bytes; what is too long is cut at its end, what is not known is left out."""
    known = {
        name: value[:_CONTEXT] if isinstance(value, str) else value for name, value in context.items() if value is not None
    }
    content: dict[str, Any] = {
        "verdict": "failed",
        **known,
        "error": error.message,
        "hint": error.hint and error.hint[:_CONTEXT],
    }
    while len(line := json.dumps(content, ensure_ascii=False).encode(errors="replace")) > LIMIT:
        content["error"] = content["error"][: -max(1, (len(line) - LIMIT) // 6)]
    return line
