"""How a pull beside an engine tells what has arrived: lines of JSON in a file, which the launcher and the engine follow.

`{"preview": FOLDER}` when an engine may be started on that folder, `{"bytes": …, "size": …}` now and then, `{"file": …}` when
a file is there and right, and at the end either `{"verdict": {…}}` or `{"error": …, "hint": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARRIVALS = "LONGSHORE_ARRIVALS"
"""The environment variable that tells an engine where the file is."""


@dataclass
class Arrivals:
    """What the file has told so far. `bytes` of `size` of the weights are verified, `files` of them are there and right."""

    place: Path
    preview: str | None = None
    bytes: int = 0
    size: int = 0
    files: set[str] = field(default_factory=set)
    verdict: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None
    _read: int = 0

    def update(self) -> Arrivals:
        """Read what was added since; a line that is still being written waits for the next time."""
        with open(self.place, "rb") as file:
            file.seek(self._read)
            news = file.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        return self

    def _take(self, event: Mapping[str, Any]) -> None:
        self.preview = event.get("preview", self.preview)
        self.bytes, self.size = event.get("bytes", self.bytes), event.get("size", self.size)
        if "file" in event:
            self.files.add(event["file"])
        self.verdict = event.get("verdict", self.verdict)
        self.error, self.hint = event.get("error", self.error), event.get("hint", self.hint)
