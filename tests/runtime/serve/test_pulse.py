"""When an engine counts as one that hangs: a table of lives, second by second."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from longshore_runtime.serve.pulse import Pulse, Signs

GRACE = 30.0


def silence(signs: Iterable[Signs], every: float = 1.0) -> float:
    """The longest silence that was heard in a life."""
    pulse, longest = Pulse(1.0), 0.0
    for second, sign in enumerate(signs):
        pulse.hear(100 + second * every, sign)
        longest = max(longest, pulse.silence)
    return longest


LIVES = {
    "nobody waits": [Signs(0)] * 100,
    "a stream goes on": [Signs(1, 0, (float(beat),)) for beat in range(100)],
    "one piece in twenty seconds": [Signs(1, 0, (float(second // 20),)) for second in range(100)],
    "requests that need no engine come and go": [Signs(1, ended) for ended in range(100)],
    "a flood of refusals": [Signs(3, 50 * second) for second in range(100)],
    "a step of four minutes that keeps the cores busy": [Signs(1, effort=2.0 * second) for second in range(240)],
    "a crowded machine leaves it a tenth of a core": [Signs(1, effort=0.1 * second) for second in range(240)],
    "nobody waits for long": [Signs(second % 10 < 2) for second in range(1000)],
}

DEATHS = {
    "a request waits": [Signs(1)] * 40,
    "a queue grows": [Signs(second, progress=(7.0,)) for second in range(40)],
    "it was working and stopped": [Signs(2, 0, (float(min(second, 50)),)) for second in range(90)],
    "clients give up and others come": [Signs(5, second // 2) for second in range(40)],
    "clients give up and nobody waits for a while": [Signs(second % 20 < 15) for second in range(100)],
    "its processes do nothing": [Signs(1, effort=5 + 0.01 * second) for second in range(40)],
    "its processes work for ever": [Signs(1, effort=2.0 * second) for second in range(400)],
}


@pytest.mark.parametrize("name", LIVES)
def test_a_busy_or_idle_engine_lives(name: str) -> None:
    assert silence(LIVES[name]) < GRACE


@pytest.mark.parametrize("name", DEATHS)
def test_one_that_owes_and_does_nothing_does_not(name: str) -> None:
    assert silence(DEATHS[name]) >= GRACE


def test_who_was_suspended_himself_counts_little() -> None:
    assert silence([Signs(1)] * 3, every=3600) <= 4


def test_progress_ends_the_silence() -> None:
    pulse = Pulse(1.0)
    for second in range(20):
        pulse.hear(second, Signs(1))
    assert pulse.silence == 19
    pulse.hear(20, Signs(1, progress=(1.0,)))
    assert pulse.silence == 0
