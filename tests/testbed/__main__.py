"""`python -m testbed up|down|status|build`: a control plane to play with.

`up` leaves it running in the background and prints the line that points kubectl at it, and nothing else, on the standard
output. One runs at a time, per user. A process of its own holds it (`serve`), and a lock for as long; that lock is what
`status` and `down` ask.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from testbed import control_plane
from testbed.build import BuildFailed, Missing, say
from testbed.cluster import KubectlFailed
from testbed.daemons import NotReady

_STOP_TIME = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description="A control plane on this machine to play with.")
    commands = {"up": up, "down": down, "status": status, "build": build, "serve": serve}
    parser.add_argument("command", choices=commands, metavar="up|down|status|build")
    chosen = commands[parser.parse_args(arguments).command]
    try:
        return chosen()
    except (Missing, BuildFailed, NotReady, KubectlFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up() -> int:
    """Start it, unless it runs."""
    if not (state := _running()):
        control_plane.build()
        started = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "testbed", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert server.stdout
        try:
            server.stdout.read()  # it closes it when it is ready, or when it has failed and said why
        except KeyboardInterrupt:
            server.terminate()
            server.wait()
            raise
        if not (state := _running()):
            return 1
        say(f"up in {time.monotonic() - started:.0f} s; `python -m testbed down` (make cluster-down) stops it")
    print(f"export KUBECONFIG={shlex.quote(state['kubeconfig'])}")
    return 0


def down() -> int:
    """Stop it, and return when nothing of it is left."""
    state = _running()
    if not state:
        say("not running")
        return 0
    os.kill(state["pid"], signal.SIGTERM)
    end = time.monotonic() + _STOP_TIME
    while _running():
        if time.monotonic() > end:
            print(f"error: process {state['pid']} has not stopped within {_STOP_TIME} s", file=sys.stderr)
            return 1
        time.sleep(0.05)
    say("stopped")
    return 0


def status() -> int:
    """Say whether it runs; 0 if so, else 1."""
    state = _running()
    say(f"running, KUBECONFIG={state['kubeconfig']}" if state else "not running")
    return 0 if state else 1


def build() -> int:
    """Have everything built, so that the next start takes seconds."""
    control_plane.build()
    return 0


def serve() -> int:
    """Hold a control plane until SIGTERM. For `up`, which started this process and waits for its output to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _open_state() as state:
        if not _lock(state, patience=1):  # a `status` holds it for a moment
            say("another start is under way")
            return 1
        with control_plane.ControlPlane() as plane:
            state.truncate()
            json.dump({"pid": os.getpid(), "kubeconfig": str(plane.kubeconfig)}, state)
            state.flush()
            _detach()
            while True:
                signal.pause()


def _detach() -> None:
    """Let go of the terminal, and of whoever reads what this process says."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)


def _running() -> dict[str, Any] | None:
    """What the process that holds the control plane has written, if there is one and it has."""
    with _open_state() as state:
        if _lock(state):
            state.truncate()  # left by one that was killed
            return None
        written: dict[str, Any] | None = json.loads(state.read() or "null")
        return written


def _open_state() -> TextIO:
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "longshore" / "testbed"
    folder.mkdir(parents=True, exist_ok=True)
    return open(os.open(folder / "up.json", os.O_RDWR | os.O_CREAT, 0o600), "r+")


def _lock(state: TextIO, patience: float = 0) -> bool:
    """Whether the lock could be had within so many seconds; it is then held until the file is closed."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
