"""Running `longshore` the way a user does: as a process, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a failed command prints, after any progress."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@dataclass(frozen=True)
class CommandLine:
    """Commands that share a home directory, and so the embedded registry."""

    home: Path
    environment: tuple[tuple[str, str], ...] = ()

    def environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in SECRETS and not name.startswith("XDG_")}
        own = {"HOME": str(self.home), "LONGSHORE_IDENTITY": "tester", "PYTHONWARNINGS": "error::ResourceWarning"}
        return inherited | own | dict(self.environment)

    def __call__(self, *arguments: str | Path, timeout: float = 180) -> Outcome:
        command = [sys.executable, "-m", "longshore", *map(str, arguments)]
        done = subprocess.run(command, env=self.environ(), capture_output=True, text=True, timeout=timeout, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    @property
    def registry(self) -> Path:
        """The folder of the embedded registry."""
        return self.home / ".local/share/longshore/registry"
