"""kill -9 at the storage calls of every command that commits: nothing half-done, running it again finishes it, gc clears up.

A sample of the points is part of every test run; `make test-reliability` has all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import run_versitygw

TESTS = Path(__file__).parents[1]
FULL = os.environ.get("LONGSHORE_RELIABILITY") == "full"


def crash(*arguments: str | int | Path, timeout: float, **environment: str) -> int:
    """Run the kills; the number of points."""
    command = [sys.executable, "-m", "support.crashes", *map(str, arguments)]
    settings = os.environ | {"PYTHONPATH": str(TESTS)} | environment
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return int(done.stdout.split()[0])


@pytest.mark.timeout(3600 if FULL else 300)
def test_a_kill_at_any_call_on_the_file_system_leaves_everything_whole(tmp_path: Path) -> None:
    points = crash("file", tmp_path, 1 if FULL else 29, "all", timeout=3500 if FULL else 110)
    assert points >= (550 if FULL else 15)  # 564 counted


@pytest.mark.timeout(7200 if FULL else 300)
def test_a_kill_at_any_request_to_a_server_leaves_everything_whole(tmp_path: Path) -> None:
    with run_versitygw(tmp_path / "server") as server:
        server.make_bucket("crash")
        assert server.folder
        folder = tmp_path / "work"
        folder.mkdir()
        sample = (1, "all") if FULL else (37, "push,gc")
        place = ("crash", server.folder.parent)
        points = crash("s3", folder, *sample, *place, timeout=7100 if FULL else 110, **server.environment)
    assert points >= (520 if FULL else 2)  # 536 counted
