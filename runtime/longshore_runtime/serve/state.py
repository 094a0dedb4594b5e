"""What the launcher is doing, for whoever asks: its parts write here, and what answers questions reads from here."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from longshore_runtime.errors import LongshoreError

Phase = Literal["starting", "loading", "ready", "draining", "asleep", "waking", "stopped", "failed"]
"""`starting` until the engine reads weights, which may still be arriving; `loading` until it has answered a request.

`draining` while it finishes what it has begun, before it stops or sleeps; `waking` until it has answered a request again.
"""


@dataclass(frozen=True)
class AdapterState:
    """An adapter, by its name and the digest (hex) of its manifest, None where it has none.

    `late`: it came while the engine ran. `refused` is why it is not served, None where it is.
    """

    name: str
    digest: str | None = None
    late: bool = False
    refused: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One moment. `step` is what the engine says that it is doing, and of one that is asleep why it could not be woken.

    `bytes` of `size` of the weights have arrived and are verified, None where all were there before the launcher was;
    `verdict` is the pull's, once it is complete. `error` and `hint` are why it failed and what to do.
    """

    phase: Phase = "starting"
    step: str = ""
    bytes: int | None = None
    size: int | None = None
    verdict: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: sizes in bytes."""
        return asdict(self)


class State:
    """The latest snapshot. Thread-safe."""

    def __init__(self) -> None:
        self._now, self._lock = Snapshot(), threading.Lock()

    def update(self, **changes: Any) -> None:
        """Change fields of the snapshot, together. After a failure nothing but the pull's figures changes any more."""
        with self._lock:
            if self._now.phase == "failed":
                changes = {name: value for name, value in changes.items() if name in ("bytes", "size")}
            self._now = replace(self._now, **changes)

    def fail(self, error: LongshoreError) -> None:
        """Remember why it ends; the first failure stays, since others follow from it."""
        self.update(phase="failed", error=error.message, hint=error.hint)

    def read(self) -> Snapshot:
        """The snapshot as it is now."""
        with self._lock:
            return self._now
