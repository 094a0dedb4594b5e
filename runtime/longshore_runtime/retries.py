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


def retry(call: Callable[[], Result]) -> Result:
    """What `call` returns. Raises Interrupted when it has raised that ATTEMPTS times."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except Interrupted as error:
            if error.after > LONGEST:
                raise
            time.sleep(max(error.after, random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 5.0)))
    return call()
