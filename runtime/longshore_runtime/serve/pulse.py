"""Whether an engine that owes somebody something is getting on with it. Pure: time and signs come from outside."""

from __future__ import annotations

from dataclasses import dataclass

LABOUR_WEIGHT = 0.1
"""Seconds that a second without a result counts while the engine computes on the CPU: one step there may take minutes."""

LABOUR = 0.05
"""Share of one core above which an engine's processes compute: on a crowded machine they get little, suspended ones nothing."""

LEAK = 0.1
"""Seconds that are forgiven for each in which nobody waited."""


@dataclass(frozen=True)
class Signs:
    """What was seen of an engine at one moment.

    `owed` requests wait for it, `ended` have ended so far, however. `progress`: figures that only its work changes.
    `effort`: seconds of CPU time that its processes have used, None where that says nothing, as with a GPU, whose waiting
    keeps a core busy.
    """

    owed: int
    ended: int = 0
    progress: tuple[float, ...] = ()
    effort: float | None = None


class Pulse:
    """Counts in `silence` the seconds in which somebody waited for an engine and nothing came of it.

    It is to be told every `interval` seconds. That a request waited for all of the time between two signs is certain only
    if more were owed than have ended meanwhile; answers that take no engine, such as refusals, prove nothing either way.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last: tuple[float, Signs] | None = None
        self.silence = 0.0

    def hear(self, now: float, signs: Signs) -> None:
        """Take in the signs at `now`, in seconds of a monotonic clock."""
        last, self._last = self._last, (now, signs)
        if last is None or signs.progress != last[1].progress:
            self.silence = 0.0
            return
        before = last[1]
        # Whoever did not look for long was suspended himself, and perhaps the engine with him.
        passed = min(now - last[0], 2 * self._interval)
        if signs.owed and before.owed > signs.ended - before.ended:
            self.silence += passed * (LABOUR_WEIGHT if _labours(before.effort, signs.effort, passed) else 1.0)
        else:
            self.silence = max(0.0, self.silence - LEAK * passed)


def _labours(before: float | None, after: float | None, passed: float) -> bool:
    return before is not None and after is not None and after - before > LABOUR * passed
