"""The process that waits for its work: what it is given arrives, and it is never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, current_process
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from longshore_runtime.serve.engines.standby import Standby

WAIT_SECONDS = 60


@pytest.fixture
def standby() -> Iterator[Standby]:
    waiting = Standby(["wave", "no.such.module"])
    yield waiting
    waiting.kill()
    waiting.join(WAIT_SECONDS)


def tell(sender: Connection) -> None:
    handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    sender.send((os.getpid(), current_process().name, os.environ.get("LONGSHORE_LATER"), "wave" in sys.modules, handler))


def take_title(sender: Connection) -> None:
    from setproctitle import setproctitle

    setproctitle("VLLM::EngineCore")
    found = Path("/proc/self/cmdline").read_text().rstrip("\0 ")
    sender.send((found, os.environ.get("LONGSHORE_LATER"), "LONGSHORE_GONE" in os.environ))


def fail() -> None:
    sys.exit(7)


def await_signal() -> None:
    time.sleep(WAIT_SECONDS)


def test_work_runs_in_the_environment_of_its_start(standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, sender = Pipe(duplex=False)
    assert standby.is_alive()
    assert not standby.taken
    taken = standby.take(tell, "core", {"sender": sender})
    monkeypatch.setenv("LONGSHORE_LATER", "set after the fork")
    taken.start()
    assert receiver.poll(WAIT_SECONDS)
    assert receiver.recv() == (standby.pid, "core", "set after the fork", True, True)
    standby.join(WAIT_SECONDS)
    assert (standby.exitcode, standby.taken, standby.name) == (0, True, "core")


@pytest.mark.parametrize(
    ("work", "ended", "code"), [(fail, Standby.join, 7), (await_signal, Standby.terminate, -signal.SIGTERM)]
)
def test_its_end_is_that_of_its_work(
    standby: Standby, work: Callable[[], None], ended: Callable[[Standby], None], code: int
) -> None:
    standby.take(work, "core", {}).start()
    ended(standby)
    standby.join(WAIT_SECONDS)
    assert standby.exitcode == code


def test_the_engine_can_give_it_a_title(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setproctitle")
    monkeypatch.setenv("LONGSHORE_GONE", "by then")
    receiver, sender = Pipe(duplex=False)
    standby = Standby()
    monkeypatch.delenv("LONGSHORE_GONE")
    monkeypatch.setenv("LONGSHORE_LATER", "x" * 100)
    standby.take(take_title, "core", {"sender": sender}).start()
    assert receiver.poll(WAIT_SECONDS)
    assert receiver.recv() == ("VLLM::EngineCore", "x" * 100, False)
    standby.join(WAIT_SECONDS)


def test_interrupts_are_not_for_one_that_waits(standby: Standby) -> None:
    assert standby.pid
    time.sleep(0.2)
    os.kill(standby.pid, signal.SIGINT)
    standby.take(fail, "core", {}).start()
    standby.join(WAIT_SECONDS)
    assert standby.exitcode == 7


def test_one_that_is_not_needed_ends(standby: Standby) -> None:
    standby.dismiss()
    standby.join(WAIT_SECONDS)
    assert standby.exitcode == 0


def test_it_cannot_be_started_without_work(standby: Standby) -> None:
    with pytest.raises(ValueError, match="nothing to run"):
        standby.start()


def test_what_cannot_be_sent_is_an_error_of_the_parent(standby: Standby) -> None:
    with pytest.raises((AttributeError, TypeError)):
        standby.take(lambda: None, "core", {}).start()


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_parent_that_ends_takes_it_along(end: str) -> None:
    script = "import os, signal, sys\nfrom longshore_runtime.serve.engines.standby import Standby\n"
    script += f"standby = Standby()\nprint(standby.pid, flush=True)\n{end}\n"
    # Its output is a pipe that the process which waits has too: reading to the end is waiting for both.
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode in {0, 3, -signal.SIGKILL}
    assert not Path(f"/proc/{int(done.stdout)}/exe").exists()
