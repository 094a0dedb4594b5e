"""The last words of a container: one line of JSON that the kubelet keeps, where KServe and `longshore status` find it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from longshore_runtime.errors import LongshoreError

LOG = Path("/dev/termination-log")
LIMIT = 3000
"""Characters of the error's text; the kubelet cuts the whole message at 4096 bytes, and cut JSON is no JSON."""


def leave_message(error: LongshoreError, **context: str) -> None:
    """Write down why this process ends, with what to do and whatever `context` tells; does nothing outside a pod."""
    if os.access(LOG, os.W_OK):
        LOG.write_text(json.dumps({"verdict": "failed", **context, "error": error.message[:LIMIT], "hint": error.hint}))
