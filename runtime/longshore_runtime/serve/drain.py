"""Waiting until nobody is being served any more."""

from __future__ import annotations

import time
from collections.abc import Callable

from longshore_runtime.serve.gate import Page

WORDLESS = 10.0
"""Seconds after which it is said again who is waited for."""

_LOOK = 0.05
_COMING_IN = 0.1


def drain(page: Page, seconds: float, goes_on: Callable[[], bool], say: Callable[[str], None]) -> int:
    """Return how many requests are under way still, after `seconds` at most; sooner where none is, or `goes_on` says no."""
    end, said = time.monotonic() + seconds, 0.0
    time.sleep(min(_COMING_IN, seconds))  # a request that came in at this moment has counted itself by then
    while (running := page.traffic().running) and time.monotonic() < end and goes_on():
        if time.monotonic() - said > WORDLESS:
            said = time.monotonic()
            say(f"draining: {running} requests are under way, {end - said:.0f} s left")
        time.sleep(_LOOK)
    if running and goes_on():
        say(f"{running} requests did not end within {seconds:.0f} s and are cut")
    return running


def pause(seconds: float, goes_on: Callable[[], bool]) -> None:
    """Sleep for so long, or until `goes_on` says no."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and goes_on():
        time.sleep(max(0.0, min(0.1, end - time.monotonic())))
