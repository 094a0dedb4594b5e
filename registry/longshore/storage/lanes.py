"""The one pool of workers that everything sent in a push shares, and the one amount of memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

LANES = 16
MEMORY = 128 * 1024 * 1024
_LARGE = 1024 * 1024
"""Bytes of a buffer that is worth being kept."""


class Lanes:
    """`count` workers that share `memory` bytes of buffers; a context manager, whose end waits for what is under way."""

    def __init__(self, count: int = LANES, memory: int = MEMORY) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")
        self._memory, self._used, self._changed = memory, 0, threading.Condition()
        self._idle: list[bytearray] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool) -> None:
        """Take no more tasks, and start none that waits when it is to end `at_once`."""
        self._pool.shutdown(wait=True, cancel_futures=at_once)

    def run(self, tasks: Iterable[Callable[[], T]]) -> list[T]:
        """Do all the tasks; returns their results in order. Must not be called from within a task.

        Raises the first failure, once the tasks under way have ended; those that had not begun never will.
        """
        futures = [self._pool.submit(task) for task in tasks]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        if waiting:
            for future in waiting:
                future.cancel()
            wait(waiting)
        failed = [error for future in done if (error := future.exception())]
        if failed:
            raise failed[0]
        return [future.result() for future in futures]

    def stream(self, tasks: Iterable[Callable[[], T]], window: int) -> Iterator[T]:
        """The results of the tasks in order, while at most `window` of them are under way or not taken yet."""
        waiting: deque[Future[T]] = deque()
        try:
            for task in tasks:
                if len(waiting) == window:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(task))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)

    @contextmanager
    def buffer(self, size: int) -> Iterator[bytearray]:
        """A buffer of `size` bytes of the shared memory, whatever they hold; it is somebody else's afterwards.

        Most are parts of one length, so they are used again: to be given memory by the system takes about as long as
        sending what is put into it.
        """
        with self.room(size):
            buffer = self._take(size)
            try:
                yield buffer
            finally:
                if size >= _LARGE:
                    with self._changed:
                        self._idle.append(buffer)

    def _take(self, size: int) -> bytearray:
        """An idle buffer of this size, or a new one, for which idle ones of other sizes make room."""
        with self._changed:
            for number, buffer in enumerate(self._idle):
                if len(buffer) == size:
                    return self._idle.pop(number)
            while self._idle and self._used + sum(map(len, self._idle)) > self._memory:
                self._idle.pop(0)
        return bytearray(size)

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """`size` bytes of the shared memory; waits until others have given back enough. One alone gets any size."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._memory)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()
