"""Children of a process that is killed: before and after they have become the program that they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cluster import eventually

PARENT = """
import os, subprocess, sys, time
from longshore_runtime.serve.processes import die_with_parent

prepare, late = die_with_parent(), sys.argv[1] == "before"

def begin():
    os.write(1, b"%d\\n" % os.getpid())
    if late:
        time.sleep(1)  # in which its parent is killed
    prepare()

subprocess.Popen(["sleep", "100"], preexec_fn=begin)
print("started", flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_child_ends_when_its_parent_is_killed(moment: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, moment], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        if moment == "after":
            assert parent.stdout.readline() == "started\n"
        assert child.exists()
        parent.kill()
    eventually(lambda: not child.exists() or ") Z " in (child / "stat").read_text(), "the child ends, too", timeout=20)
