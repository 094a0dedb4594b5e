"""Starting an engine, telling when it would answer and whether it lives, and stopping it without cutting anybody off."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from longshore_runtime.arrivals import ARRIVALS
from longshore_runtime.errors import EngineFailed, LongshoreError, Refused
from longshore_runtime.serve.adapters import AdapterWatch, Site
from longshore_runtime.serve.arrival import Arrival
from longshore_runtime.serve.caches import choose_key, place
from longshore_runtime.serve.client import Client
from longshore_runtime.serve.drain import drain, pause
from longshore_runtime.serve.engines.port import Engine, Task
from longshore_runtime.serve.gate import ACCESS_LOG, DESCRIPTOR, Page
from longshore_runtime.serve.health import Condition
from longshore_runtime.serve.host import read_host
from longshore_runtime.serve.logs import Sink
from longshore_runtime.serve.ports import require_free_port
from longshore_runtime.serve.processes import die_with_parent
from longshore_runtime.serve.rest import Rest, require_sleep
from longshore_runtime.serve.state import AdapterState, State
from longshore_runtime.serve.watch import Watch

KEPT_LINES = 2000
STOP_MARGIN = 15
"""Seconds that an engine gets beyond its grace to leave by itself."""
SILENCE = 10
"""Seconds without a word from the engine after which it is said that it is still at it."""

_GLANCE = 0.1
"""Seconds between two looks at whether the engine still runs."""

START_LIMIT = 900.0
"""Seconds that any engine gets until it has answered its first request; the time for the weights comes on top."""
SLOWEST_LOAD = 20e6
"""Bytes of weights per second below which a start is given up: slow disks and networks bring more."""

STALL_GRACE = 120.0
"""Seconds in which an engine may owe an answer and make no progress before it is given up."""


class Launcher:
    """One engine process. `start`, then `wait_ready`, then `wait` or `stop`; `stop` may come at any time."""

    def __init__(
        self,
        engine: Engine,
        task: Task,
        say: Callable[[str], None],
        log: Sink | None = None,
        state: State | None = None,
        arrival: Arrival | None = None,
        *,
        stall_grace: float = STALL_GRACE,
        access_log: bool = False,
        caches: tuple[Path, str] | None = None,
        site: Site | None = None,
    ) -> None:
        """`say` hears what the engine is doing; `log` gets every line of its output; `state` is kept up to date.

        `arrival` is of weights still to come. `access_log` has the engine's server print a line for each request, should
        it be able to. `caches` are the folder below which it keeps what it compiles, and what tells its model from others.
        At `site` adapters may appear while it runs. Raises LongshoreError for an engine that takes none then, and for a
        sleepable task that it cannot sleep with.
        """
        self._engine, self._task, self._say, self._log, self._arrival = engine, task, say, log, arrival
        self.state = state or State()
        self._stall_grace, self._access_log, self._caches = stall_grace, access_log, caches
        self._adapters: AdapterWatch | None = None
        self._site, self._changes = site, engine.adapter_changes
        if site is not None and self._changes is None:
            raise LongshoreError(f"{engine.name} takes no adapters while it runs", "leave --adapters-dir out")
        self._machine = read_host()
        self._arrived = self._joined = False
        self._page = Page.create()
        self._client = Client(task.host, task.port, self._page.token)
        self._watch: Watch | None = None
        self._process: subprocess.Popen[str] | None = None
        self._rest = self._make_rest() if task.sleepable else None
        self._reader: threading.Thread | None = None
        self._output: deque[str] = deque(maxlen=KEPT_LINES)
        self._step, self._said, self._made = "", 0.0, time.monotonic()

    @property
    def deadline(self) -> float:
        """Seconds that the start may take, in proportion to the weights."""
        return START_LIMIT + self._task.facts.weight_bytes / SLOWEST_LOAD

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self._task.facts.chat_template

    def command(self) -> list[str]:
        """The engine's command line."""
        return self._engine.command(self._task, self._machine)

    def commands(self) -> list[list[str]]:
        """The same for each pod that serves the model, the one that leads first."""
        group = self._task.group
        pods = [replace(group, index=index) for index in range(group.size)] if group else [None]
        return [self._engine.command(replace(self._task, group=pod), self._machine) for pod in pods]

    def condition(self) -> tuple[Condition, int]:
        """How it is, for the health answers, and how many requests are under way."""
        watch = self._watch
        condition = Condition(
            now=self.state.read(),
            begun=watch is not None or self._joined,
            elapsed=time.monotonic() - self._made,
            deadline=self.deadline,
            responsive=watch is None or watch.responsive,
            silence=watch.silence if watch else 0.0,
            grace=self._stall_grace,
            adapters=self._list_adapters(),
        )
        return condition, self._page.traffic().running

    def start(self) -> None:
        """Start the engine. Raises EngineFailed when it is missing and Refused when its port is taken."""
        self._engine.require()
        for arguments in self._task.arguments:
            self._engine.check_arguments(arguments)
            require_known(self._engine, arguments)
        if not self._follows:
            require_free_port(self._task.host, self._task.port)
        if self._arrival is not None:
            self._task = self._arrival.begin(self._engine, self._task)
        command = self.command()
        arrivals = {ARRIVALS: str(self._task.arrivals)} if self._task.arrivals else {}
        environment = self._engine.environment(self._machine, os.environ | arrivals) | self._place_caches(command)
        environment |= self._changes.environment if self._site and self._changes else {}
        environment |= self._engine.sleep_mode.environment if self._rest and self._engine.sleep_mode else {}
        self._engine.prepare(self._machine, environment)
        environment |= {DESCRIPTOR: str(self._page.descriptor), ACCESS_LOG: str(int(self._access_log))}
        self._report(f"starting {self._engine.name} on the {self._machine.device} ({self._machine.cores} cores)")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=[self._page.descriptor] if self._page.descriptor is not None else [],
            start_new_session=True,  # a Ctrl-C on the terminal is for the launcher, which then drains
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no locks
        )
        self._page.close()
        self._reader = threading.Thread(target=self._read_output, name="engine-output", daemon=True)
        self._reader.start()

    def wait_ready(self, deadline: float | None = None) -> None:
        """Return once a real request was answered. A pod that another leads is asked nothing: it is ready once it runs.

        Raises EngineFailed when the engine ends or `deadline` seconds (by default its own) pass.
        """
        if self._follows:
            self._require_alive()
            self._joined = True
            self.state.update(phase="ready", step="")
            return
        allowed = self.deadline if deadline is None else deadline
        end = time.monotonic() + allowed
        while time.monotonic() < end:
            self._require_alive()
            if self._client.answers(self._engine.health_path) and self._serves():
                self._watch_from_now()
                return
            if time.monotonic() - self._said > SILENCE:
                self._report(self._step if self._step.startswith("still ") else f"still {self._step}")
            time.sleep(0.2)
        error = EngineFailed(
            f"the engine was not ready after {allowed:.0f} s ({self._step})",
            "run again with --verbose to see what it does",
            "start-deadline",
        )
        self.state.fail(error)
        self.stop(grace=0)
        raise error

    def wait(self) -> None:
        """Block while the engine runs.

        Raises EngineFailed when it ends by itself, or is given up on its way into or out of sleep.
        """
        process = self._running()
        while process.poll() is None:
            if self._rest is not None and self._rest.failure is not None:
                self.stop(grace=0)
                raise self._rest.failure
            # Not in one call: another thread may be the one that a signal interrupts, and this one would sleep on.
            time.sleep(_GLANCE)
        self._require_alive()

    def stop(self, grace: float | None = None, notice: float = 0.0) -> None:
        """Let the engine finish its requests within `grace` seconds (the task's, by default), then end it for certain.

        For the first `notice` seconds new requests are still answered, since whoever sends them may not yet know; from
        then on they are refused.
        """
        if self._arrival is not None:
            self._arrival.stop()
        awake = self._rest is None or self._rest.end()
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            allowed = float(self._task.grace if grace is None else grace)
            try:
                left = self._drain(process, allowed, notice) if awake else 0.0  # nobody is served by one that sleeps
                process.send_signal(signal.SIGTERM)
                process.wait(left + STOP_MARGIN)
            except subprocess.TimeoutExpired:
                self._say("the engine did not stop in time and is killed")
            except KeyboardInterrupt:
                self._say("told so again: stopping at once")
        self._look_away()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the leader's children, where any are left
        process.wait()
        self.state.update(phase="stopped")
        if self._reader is not None:
            self._reader.join(5)
            if process.stdout is not None and not self._reader.is_alive():
                process.stdout.close()

    def sleep(self, notice: float = 0.0) -> None:
        """Have the engine give its device's memory back, as `Rest.sleep` does. Raises Refused for one that is not sleepable."""
        self._require_rest().sleep(notice)

    def wake(self) -> None:
        """Have it take its memory again, as `Rest.wake` does. Raises Refused for one that is not sleepable."""
        self._require_rest().wake()

    def stalled(self) -> EngineFailed | None:
        """Why the engine is given up while it runs, if it is."""
        silence = self._watch.silence if self._watch else 0.0
        if silence < self._stall_grace:
            return None
        running = self._page.traffic().running
        return EngineFailed(
            f"the engine made no progress for {silence:.0f} s with {running} requests under way",
            "see its output; if it happens again, use another version of the engine, or --stall-grace where it was only slow",
            "stalled",
        )

    def _make_rest(self) -> Rest:
        mode = require_sleep(self._engine, self._task, self._machine)
        return Rest(
            mode,
            self._task,
            self._client,
            self._page,
            self.state,
            self._say,
            serves=self._serves,
            alive=lambda: self._running().poll() is None,
        )

    def _require_rest(self) -> Rest:
        if self._rest is None:
            raise Refused("the engine was not started to sleep", "start it with --sleepable")
        return self._rest

    def _place_caches(self, command: Sequence[str]) -> dict[str, str]:
        """Where the engine keeps what it compiles; nothing where that cannot be written to, since it can do without."""
        if self._caches is None:
            return {}
        root, model = self._caches
        own = (str(self._task.model), self._task.host, str(self._task.port))
        arguments = [word for word in command[1:] if word not in own]
        engine = (self._engine.name, self._engine.version())
        try:
            return place(root, choose_key(engine, self._machine, model, arguments), self._engine.caches)
        except OSError as error:
            self._say(f"nothing compiled is kept in {root}: {error.strerror}")
            return {}

    @property
    def _follows(self) -> bool:
        """Whether another pod answers the requests for which this one computes."""
        return self._task.group is not None and not self._task.group.leads

    def _drain(self, process: subprocess.Popen[str], grace: float, notice: float) -> float:
        """Wait until nobody is being served; returns the seconds that the engine may still take for that by itself.

        Who leads this pod was told to stop with it, and needs it until the last answer.
        """
        if self._joined and not self._watch:
            self.state.update(phase="draining")
            pause(notice + grace, lambda: process.poll() is None)
            return 0.0
        if self._watch is None or self.stalled():
            return 0.0
        self.state.update(phase="draining")
        if not self._page.attached:
            time.sleep(notice)
            return grace
        self._page.mode = "closing"
        pause(notice, lambda: process.poll() is None)
        self._page.mode = "closed"
        drain(self._page, grace, lambda: process.poll() is None and not self.stalled(), self._say)
        return 0.0

    def _watch_from_now(self) -> None:
        process = self._running()
        on_cpu = self._machine.device == "cpu"
        self._watch = Watch(self._engine, self._page, self._client.read, process.pid, on_cpu=on_cpu)
        self._watch.start()
        if self._site and self._changes:
            taken = (self._task.name, *(adapter.name for adapter in self._task.adapters))
            self._adapters = AdapterWatch(self._site, taken, self._changes, self._client, self._say)
            self._adapters.start()
        if self._rest is not None:
            self._rest.attend(self._watch, self._adapters)
        self.state.update(phase="ready", step="")

    def _list_adapters(self) -> tuple[AdapterState, ...]:
        """Those that were named at the start, once it has begun, and those that came later."""
        if self._watch is None:
            return ()
        named = tuple(AdapterState(adapter.name, adapter.digest) for adapter in self._task.adapters)
        return named + (self._adapters.states if self._adapters else ())

    def _look_away(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._adapters is not None:
            self._adapters.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("start() comes first")
        return self._process

    def _require_alive(self) -> None:
        try:
            if self._arrival is not None and not self._arrived:
                self._arrived = self._arrival.check().verdict is not None
        except LongshoreError as failure:  # which the engine waits for in vain
            self.state.fail(failure)
            self.stop(grace=0)
            raise
        if self._running().poll() is not None:
            self.stop()
            error: LongshoreError = self._engine.diagnose(list(self._output))
            self.state.fail(error)
            raise error

    def _read_output(self) -> None:
        for line in self._running().stdout or ():
            self._output.append(line.rstrip("\n"))
            if self._log is not None:
                self._log.write(line)
                self._log.flush()
            if self._watch is None and (step := self._engine.phase_of(line)):
                self._report(step)

    def _report(self, step: str) -> None:
        """Say what the engine is doing, once; engines repeat themselves."""
        if step != self._step or step.startswith("still "):
            self._step, self._said = step, time.monotonic()
            self.state.update(step=step, **({"phase": "loading"} if step.startswith("loading ") else {}))
            self._say(step)

    def _serves(self) -> bool:
        """One token through the whole engine: its health alone also says 200 when the core is stuck (vllm#39863).

        Of a model that embeds, an embedding; others that do not generate say so, which is an answer.
        """
        name, geometry = self._task.name, self._task.geometry
        if geometry is not None and geometry.task == "embed":
            return self._client.answers("/v1/embeddings", {"model": name, "input": "Hi"}, timeout=60)
        return self._client.answers("/v1/completions", {"model": name, "prompt": "Hi", "max_tokens": 1}, timeout=60)


def require_known(engine: Engine, arguments: Sequence[str]) -> None:
    """Raise EngineFailed for an option that the engine's server has not, before the half minute in which it would find out.

    Told by the table that was made from the parser of the version that is installed. Of another version nothing is told: its
    parser has the last word in the engine's own process, as it has on values.
    """
    support = engine.support()
    if engine.version().partition("+")[0] != support.version:
        return
    if unknown := support.find_unknown(arguments):
        near = support.nearest(unknown)
        raise EngineFailed(
            f"{support} does not know the argument {unknown}",
            f"did you mean {near}?" if near else "correct the engine arguments, those of the version (serve.yaml) or your own",
            "wrong-argument",
        )
