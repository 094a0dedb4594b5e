"""Completion as a shell does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import CommandLine


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(longshore: CommandLine, shell: str) -> None:
    done = longshore("completion", shell)
    assert done.code == 0
    assert f"_LONGSHORE_COMPLETE={shell}_complete" in done.out or f"{shell}_complete" in done.out
    syntax = shutil.which(shell)
    if syntax:
        checked = subprocess.run([syntax, "-n"], input=done.out, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def complete(longshore: CommandLine, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    program = folder / "longshore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m longshore "$@"\n')
    program.chmod(0o755)
    script = f"""
        PATH={folder}:$PATH
        source <(longshore completion bash)
        COMP_WORDS=({" ".join(words)})
        COMP_CWORD={len(words) - 1}
        _longshore_completion longshore
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], env=longshore.environ(), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_and_options(longshore: CommandLine, tmp_path: Path) -> None:
    assert complete(longshore, tmp_path, "longshore", "un") == {"undelete", "undeploy"}
    assert complete(longshore, tmp_path, "longshore", "gc", "--dry") == {"--dry-run"}
    assert complete(longshore, tmp_path, "longshore", "registry", "po") == {"policy"}


def test_completing_loads_nothing_heavy(longshore: CommandLine) -> None:
    script = """
import atexit, sys
from longshore.cli import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main([])
"""
    settings = longshore.environ() | {"_LONGSHORE_COMPLETE": "bash_complete", "COMP_WORDS": "longshore l", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"plain,list", "plain,logs", "plain,log"}
    assert not {"boto3", "pydantic", "kserve"} & set(done.stderr.split())
