"""`python -m testbed up|down|status|build [--node]`: a cluster to play with: a control plane, or one with a real node.

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

from longshore import __version__
from testbed import control_plane, images, node
from testbed.build import BuildFailed, Missing, say
from testbed.cluster import KubectlFailed
from testbed.daemons import NotReady
from testbed.images import SERVED, TAG_PREFIX
from testbed.node import NodeFailed
from testbed.node_config import OUTSIDE

_STOP_TIME = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description="A cluster on this machine to play with.")
    commands = {"up": up, "down": down, "status": status, "build": build, "serve": serve}
    parser.add_argument("command", choices=commands, metavar="up|down|status|build")
    parser.add_argument("--node", action="store_true", help="with a node that runs pods, and our images on it; as root")
    given = parser.parse_args(arguments)
    try:
        return commands[given.command](given.node)
    except (Missing, BuildFailed, NotReady, KubectlFailed, NodeFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up(with_node: bool) -> int:
    """Start it, unless it runs."""
    if not (state := _running()):
        build(with_node)
        started = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "testbed", "serve", *(["--node"] if with_node else [])],
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
        if with_node:
            say(f"our images are on the node: longshore deploy … --gpus 0 --images {TAG_PREFIX}")
            say(f"pods reach servers of this machine at {OUTSIDE}, such as a bucket's; this machine reaches every ClusterIP")
    elif with_node and not state["node"]:
        raise Missing("a control plane without a node is running: stop it first (make cluster-down)")
    print(f"export KUBECONFIG={shlex.quote(state['kubeconfig'])}")
    return 0


def down(_: bool) -> int:
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


def status(_: bool) -> int:
    """Say whether it runs; 0 if so, else 1."""
    state = _running()
    say(f"running, KUBECONFIG={state['kubeconfig']}" if state else "not running")
    return 0 if state else 1


def build(with_node: bool) -> int:
    """Have everything built, so that the next start takes seconds."""
    if with_node:
        node.build()
        images.archives(SERVED, __version__)
    else:
        control_plane.build()
    return 0


def serve(with_node: bool) -> int:
    """Hold a cluster until SIGTERM. For `up`, which started this process and waits for its output to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _open_state() as state:
        if not _lock(state, patience=1):  # a `status` holds it for a moment
            say("another start is under way")
            return 1
        with node.Node(images.archives(SERVED, __version__)) if with_node else control_plane.ControlPlane() as cluster:
            state.truncate()
            json.dump({"pid": os.getpid(), "kubeconfig": str(cluster.kubeconfig), "node": with_node}, state)
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
