from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from longshore_runtime.errors import Interrupted, StoreFailed
from longshore_runtime.retries import ATTEMPTS, retry


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def failing(times: int, error: Exception) -> Callable[[], int]:
    calls = iter(range(1000))

    def call() -> int:
        number = next(calls)
        if number < times:
            raise error
        return number

    return call


def test_what_breaks_off_is_asked_again_with_growing_pauses(pauses: list[float]) -> None:
    assert retry(failing(ATTEMPTS - 1, Interrupted("x"))) == ATTEMPTS - 1
    assert len(pauses) == ATTEMPTS - 1
    assert pauses[-1] > pauses[0]


def test_it_is_not_asked_for_ever(pauses: list[float]) -> None:
    with pytest.raises(Interrupted):
        retry(failing(ATTEMPTS, Interrupted("x")))
    assert len(pauses) == ATTEMPTS - 1


def test_what_is_refused_is_not_asked_again(pauses: list[float]) -> None:
    with pytest.raises(StoreFailed):
        retry(failing(1, StoreFailed("x")))
    assert pauses == []


def test_a_pause_that_was_asked_for_is_kept_unless_it_is_endless(pauses: list[float]) -> None:
    assert retry(failing(1, Interrupted("x", after=30.0))) == 1
    assert pauses == [30.0]
    with pytest.raises(Interrupted):
        retry(failing(1, Interrupted("x", after=3600.0)))
    assert len(pauses) == 1
