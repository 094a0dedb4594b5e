"""The sleep of an engine: it gives the memory of its device back while nobody needs it, and takes it again.

An engine that is told to sleep or to wake may fail at it half-way. Then it either answers a real request, and serves on, or
says that it sleeps, and may be woken again, or is given up, and its pod with it: it is never left in a state that nobody knows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from longshore_runtime.errors import EngineFailed, LongshoreError, Refused
from longshore_runtime.serve.adapters import AdapterWatch
from longshore_runtime.serve.client import Client
from longshore_runtime.serve.drain import drain, pause
from longshore_runtime.serve.engines.port import Engine, Request, SleepMode, Task
from longshore_runtime.serve.gate import Mode, Page
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.state import State
from longshore_runtime.serve.watch import Watch

LIMIT, SLOWEST = 120.0, 200e6
"""Seconds that an engine gets to fall asleep or to wake, and bytes of weights per second that come on top."""

LAST_WORDS = 3.0
"""Seconds that one which does not answer gets to end by itself."""

ASLEEP = "asleep"
"""What the launcher says last of an engine that sleeps; `longshore status` reads it in the log."""

CAUSE, WORDS = "sleep", 300


def require_sleep(engine: Engine, task: Task, machine: Host) -> SleepMode:
    """How the engine sleeps. Raises LongshoreError for one that cannot, here or together with other pods."""
    if engine.sleep_mode is None:
        raise LongshoreError(f"{engine.name} cannot sleep as this launcher drives it", "leave --sleepable out")
    if task.group is not None:
        raise LongshoreError("several pods that serve a model together cannot sleep", "leave --sleepable out")
    engine.sleep_mode.require(machine)
    return engine.sleep_mode


class Rest:
    """Puts one engine to sleep and wakes it. Thread-safe: whoever comes second waits, and finds it done.

    `serves` has the whole engine answer one request, `alive` says whether it runs. Once `failure` is there, it is to be ended.
    """

    failure: EngineFailed | None = None

    def __init__(
        self,
        mode: SleepMode,
        task: Task,
        client: Client,
        page: Page,
        state: State,
        say: Callable[[str], None],
        *,
        serves: Callable[[], bool],
        alive: Callable[[], bool],
    ) -> None:
        self._mode, self._client, self._page, self._state, self._say = mode, client, page, state, say
        self._serves, self._alive, self._grace = serves, alive, float(task.grace)
        self._limit = LIMIT + task.facts.weight_bytes / SLOWEST
        self._watch: Watch | None = None
        self._adapters: AdapterWatch | None = None
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._ending, self._awake = False, True

    def attend(self, watch: Watch, adapters: AdapterWatch | None) -> None:
        """These are to look away while it sleeps."""
        self._watch, self._adapters = watch, adapters

    def end(self) -> bool:
        """From now on it is neither put to sleep nor woken, since it is being stopped; returns whether it is awake."""
        with self._lock:
            self._ending = True
            return self._awake

    def sleep(self, notice: float) -> None:
        """Return once it sleeps; nothing where it does already.

        For `notice` seconds new requests are answered, then those under way are finished within the grace.
        Raises Refused for one that is not ready, and EngineFailed for one that does not fall asleep.
        """
        with self._turn, self._definite("put to sleep"):
            if self._is("asleep", "ready"):
                return
            self._set(phase="draining", step="going to sleep")
            self._say("told to sleep: finishing the running requests")
            self._close(notice)
            with self._lock:
                self._require_unended()
                self._awake = False
            status, why = self._tell(self._mode.sleep)
            if status == 200 and self._sleeps():
                self._set(phase="asleep", step="")
                self._say(ASLEEP)
                return
            self._undo(status, why)

    def wake(self) -> None:
        """Return once it has answered a request again; nothing where it is awake.

        Raises Refused for one that is neither, and EngineFailed for one that does not wake; it may sleep on.
        """
        with self._turn, self._definite("woken"):
            if self._is("ready", "asleep"):
                return
            self._set(phase="waking", step="")
            self._say("told to wake")
            _, why = self._tell(self._mode.wake)
            if not why and self._serves():
                self._open()
                self._say("awake: it has answered a request")
                return
            why = why or "it answered no request"
            if not self._sleeps():
                self._give_up(f"the engine could not be woken: {why}")
            self._set(phase="asleep", step=f"could not be woken: {why}")
            self._say(f"{ASLEEP}: could not be woken: {why}")
            raise EngineFailed(
                f"the engine could not be woken: {why}",
                "it sleeps on; make room on its device and try again, or delete its pod",
                CAUSE,
            )

    @contextmanager
    def _definite(self, deed: str) -> Iterator[None]:
        """Give it up where something else goes wrong than what was thought of."""
        try:
            yield
        except LongshoreError:
            raise
        except Exception as error:
            self._give_up(f"the engine could not be {deed}: {type(error).__name__}: {error}")

    def _is(self, wanted: str, needed: str) -> bool:
        """Whether it is as it is wanted. Raises Refused where it is not as it needs to be for that, either."""
        phase = self._state.read().phase
        if phase not in (wanted, needed):
            raise Refused(f"the engine is {phase}", "ask again when it is ready")
        return phase == wanted

    def _close(self, notice: float) -> None:
        """Let nobody in any more, and have those who are in finish."""
        if self._adapters is not None:
            self._adapters_away(self._adapters)
        self._admit("closing")
        pause(notice, self._goes_on)
        self._admit("asleep")
        drain(self._page, self._grace, self._goes_on, self._say)
        if self._watch is not None:
            self._watch.pause()

    def _adapters_away(self, adapters: AdapterWatch) -> None:
        try:
            adapters.pause()
        except EngineFailed:
            self._set(phase="ready", step="")
            raise

    def _open(self) -> None:
        with self._lock:
            self._require_unended()
            self._awake = True
            self._page.mode = "open"
            self._state.update(phase="ready", step="")
        if self._watch is not None:
            self._watch.resume()
        if self._adapters is not None:
            self._adapters.resume()

    def _undo(self, status: int, why: str) -> None:
        """Of one that did not fall asleep: have it serve as before. Raises EngineFailed in any case."""
        text = f"the engine could not be put to sleep: {why or 'it says that it is awake'}"
        if status == 0 or self._tell(self._mode.wake)[1] or not self._serves():
            self._give_up(text)
        self._open()
        self._say(text)
        raise EngineFailed(text, "it serves as before; see its output for the reason", CAUSE)

    def _give_up(self, text: str) -> None:
        pause(LAST_WORDS, self._goes_on)  # of one that ends by itself its own words say more
        if not self._alive():
            raise EngineFailed("the engine has ended", "its pod says why, and begins anew")
        with self._lock:
            self._require_unended()
        failure = EngineFailed(text, "see its output; a pod begins anew by itself", CAUSE)
        self._state.fail(failure)
        self.failure = failure
        raise failure

    def _tell(self, request: Request) -> tuple[int, str]:
        """The status of the engine's answer, and what is wrong with it: empty where nothing is."""
        path, body = request
        status, answer = self._client.ask(path, body, self._limit)
        if status == 200:
            return status, ""
        name, words = path.partition("?")[0], " ".join(answer.split())[:WORDS]
        return status, f"{name} was answered with {status}: {words}" if status else f"{name} was not answered: {words}"

    def _sleeps(self) -> bool:
        """Whether it says that it sleeps."""
        try:
            return self._mode.sleeps(self._client.read(self._mode.question) or "")
        except (ValueError, KeyError, TypeError):
            return False

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._require_unended()
            self._state.update(**changes)

    def _admit(self, mode: Mode) -> None:
        with self._lock:
            self._require_unended()
            self._page.mode = mode

    def _goes_on(self) -> bool:
        return not self._ending and self._alive()

    def _require_unended(self) -> None:
        if self._ending:
            raise Refused("the engine is being stopped", "its pod is going")
