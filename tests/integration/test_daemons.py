"""Nothing of a test-bed outlives the process that wanted it, however that process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.daemons import Daemons, NotReady
from testbed.supervisor import processes_of

SLEEP = ("/bin/sh", "-c", "sleep 300 & exec sleep 300")
"""A program that has a child."""

CLIENT = """
import sys, time
from testbed.daemons import Daemons
daemons = Daemons()
daemons.start("sleep", *{command!r})
print(daemons.folder, flush=True)
time.sleep(300)
"""


@pytest.fixture
def client() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has started a program, and the folder it was given."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", CLIENT.format(command=SLEEP)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": tests}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        await_true(lambda: len(processes_of(folder)) == 2)
        yield process, folder
        process.kill()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_client(client: tuple[subprocess.Popen[str], Path], kind: signal.Signals) -> None:
    process, folder = client
    process.send_signal(kind)
    await_true(lambda: not processes_of(folder) and not folder.exists())


def test_programs_die_with_a_killed_supervisor_and_its_folder_at_the_next_start(
    client: tuple[subprocess.Popen[str], Path],
) -> None:
    _, folder = client
    started = processes_of(folder)
    (program,) = (number for number in started if parent_of(number) not in started)
    os.kill(parent_of(program), signal.SIGKILL)
    await_true(lambda: program not in processes_of(folder))
    assert folder.exists()
    Daemons().close()
    assert not folder.exists()
    assert processes_of(folder) == []


def test_a_start_leaves_the_folders_of_others_alone(client: tuple[subprocess.Popen[str], Path]) -> None:
    _, folder = client
    Daemons().close()
    assert (folder / "logs/sleep.log").exists()
    assert len(processes_of(folder)) == 2


def test_close_is_done_when_it_returns() -> None:
    daemons = Daemons()
    daemons.start("sleep", *SLEEP)
    daemons.close()
    assert not daemons.folder.exists()
    assert not processes_of(daemons.folder)


def test_a_program_that_ends_early_is_reported_with_its_last_words() -> None:
    daemons = Daemons()
    try:
        daemons.start("broken", "/bin/sh", "-c", "echo address already in use; exit 3")
        with pytest.raises(NotReady, match=r"broken ended with 3: address already in use"):
            daemons.await_ready("broken", lambda: False)
    finally:
        daemons.close()


def test_a_program_that_is_late_is_reported_and_one_that_was_stopped_is_not() -> None:
    daemons = Daemons()
    try:
        daemons.start("sleep", "/bin/sh", "-c", "echo still loading; sleep 300")
        await_true(lambda: "still loading" in daemons.log("sleep"))
        daemons.stop("sleep")
        with pytest.raises(NotReady, match="sleep is not ready after 0 s: still loading"):
            daemons.await_ready("sleep", lambda: False, timeout=0)
    finally:
        daemons.close()


def parent_of(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def await_true(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)
