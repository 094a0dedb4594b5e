"""`longshore run` in the background, and a client of what it serves."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import openai

from support.command import CommandLine


@contextmanager
def serving(command: CommandLine, *arguments: str) -> Iterator[openai.OpenAI]:
    """A client of the engine once it is ready. The engine ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "longshore", "run", *arguments],
        env=command.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"is served at (\S+) as ", line)
        assert address, line or process.communicate()[1]
        yield openai.OpenAI(base_url=address[1], api_key="none")
    finally:
        process.terminate()
        process.communicate(timeout=120)
