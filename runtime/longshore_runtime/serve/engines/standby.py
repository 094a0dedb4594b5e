"""A process that was forked when all was imported, and waits for what it is to run.

A spawned process imports everything once more, which takes an engine's core ten seconds. One that is forked when it is needed
has what the threads and libraries of its parent did by then, such as a pool of OpenMP whose threads no fork takes along. So
this one is forked in between, before anything has run, and is told later what to run and in which environment.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from typing import Any


class Standby(ForkProcess):
    """A process to be had of `multiprocessing`, whose start is to give it its work. It ends when its parent does."""

    def __init__(self, modules: Sequence[str] = ()) -> None:
        """Fork it now; it imports `modules`, as far as they can be, while it waits."""
        super().__init__(name="standby")
        self._modules = modules
        self._reader, self._writer = get_context("fork").Pipe(duplex=False)
        self._work: tuple[str, Callable[..., object], Mapping[str, Any]] | None = None
        super().start()
        self._reader.close()
        # Before multiprocessing's own, which would wait for a process that waits for us.
        atexit.register(self._writer.close)

    def take(self, target: Callable[..., object], name: str, kwargs: Mapping[str, Any]) -> Standby:
        """This process, which is to run `target` under this name once it is started."""
        self._work, self.name = (name, target, kwargs), name
        return self

    @property
    def taken(self) -> bool:
        """Whether it has been told what to run."""
        return self._work is not None

    def start(self) -> None:
        """Have it run what it took, in the environment as it is now."""
        if self._work is None:
            raise ValueError("it has been given nothing to run")
        self._writer.send((dict(os.environ), *self._work))
        self._writer.close()

    def dismiss(self) -> None:
        """There will be no work for it: let it end, unless there is."""
        if not self.taken:
            self._writer.close()

    def run(self) -> None:
        """In the process itself."""
        self._writer.close()
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this one
        for module in self._modules:
            with suppress(Exception):  # whoever needs it imports it again, and says what is wrong
                import_module(module)
        try:
            environment, name, target, kwargs = self._reader.recv()
        except EOFError:
            return
        self._reader.close()
        self.name = name
        _adopt(environment)
        signal.signal(signal.SIGINT, interrupted)
        target(**kwargs)


def _adopt(environment: Mapping[str, str]) -> None:
    """Change what differs, and let the rest lie where it is: what gives the process its title looks for it there."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
