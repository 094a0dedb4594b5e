"""Commands in documents: console blocks, read and run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.command import CommandLine


@dataclass(frozen=True)
class Example:
    """A command of a console block and the lines that are shown below it; `…` stands for anything."""

    command: str
    shown: tuple[str, ...]

    def check(self, longshore: CommandLine, folder: Path) -> None:
        """Run it in `folder` and hold what it prints against what is shown, line by line in order."""
        words = shlex.split(self.command)
        assert words[0] == "longshore" or words[:2] == ["python", "-m"]
        command = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=folder, env=longshore.environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (self.command, done.stderr)
        printed = iter(done.stdout.splitlines())
        for shown in self.shown:
            assert any(matches(shown, line) for line in printed), (self.command, shown, done.stdout)


def blocks(document: Path, language: str) -> Iterator[str]:
    return (found[1] for found in re.finditer(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL))


def examples(document: Path) -> Iterator[Example]:
    for block in blocks(document, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield Example(command, tuple(line for line in shown if line != "…"))


def matches(shown: str, line: str) -> bool:
    """Whether a printed line is the shown one: `…` is anything, and runs of spaces are one."""
    pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", " ".join(shown.split())))
    return re.fullmatch(pattern, " ".join(line.split())) is not None
