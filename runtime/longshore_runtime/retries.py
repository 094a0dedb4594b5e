"""Asking again: what breaks off or is too busy is asked once more, with growing, jittered pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from longshore_runtime.errors import Interrupted

ATTEMPTS = 5
LONGEST = 300.0
"""Seconds that a server may ask us to wait; one that wants more is as good as down."""

Result = TypeVar("Result")


def retry(call: Callable[[], Result], leave: tuple[type[Interrupted], ...] = ()) -> Result:
    """What `call` returns. Raises Interrupted when it has raised that ATTEMPTS times, and at once what is to be left alone."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except leave:
            raise
        except Interrupted as error:
            pause(error, attempt)
    return call()


def pause(error: Interrupted, attempt: int) -> None:
    """Wait until the call may be made again that has failed `attempt` times before; raises what wants too much patience."""
    if error.after > LONGEST:
        raise error
    time.sleep(max(error.after, random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 5.0)))
