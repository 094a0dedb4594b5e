"""The command line of the relay, and what the adapters of the engines behind it have in common. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.port import Task

MODULE = "longshore_runtime.serve.engines.relay"
PORT = "{port}"
"""In an engine's command: where the relay will look for it."""

INNER_HOST = "127.0.0.1"


def require(engine: str) -> None:
    """Raise EngineFailed when what stands before the engine is not installed."""
    if missing := [name for name in ("uvicorn", "h11") if importlib.util.find_spec(name) is None]:
        raise EngineFailed(
            f"what stands before {engine} needs the package {missing[0]}, which is not installed",
            f"install {' and '.join(missing)}, as the extra engine-llamacpp does",
            "not-installed",
        )


def wrap(engine: str, task: Task, command: Sequence[str]) -> list[str]:
    """The relay at the task's address before the engine that this command starts."""
    relay = [sys.executable, "-m", MODULE, "--engine", engine, "--host", task.host, "--port", str(task.port)]
    return [*relay, "--", *command]
