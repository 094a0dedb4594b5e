"""Starts `trtllm-serve` with settings that it has no options for: `… trtllm_server SETTINGS COMMAND… [--config FILE]`.

SETTINGS are JSON. They go into a file with those of the user's FILE, which win; the command then takes this process's place.
A file beats options too: that is the engine's own rule (`update_llm_args_with_extra_dict`, `llmapi/llm_args.py`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

OPTION = "--config"

NEEDED = {"enable_iter_perf_stats": True, "return_perf_metrics": True}
"""By these it tells of its iterations at /metrics, by which the launcher sees it work, and has its /prometheus/metrics."""

OWNED = frozenset({"model", "revision", "backend"})
DIVIDING = frozenset({"tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size"})


class Wrong(Exception):
    """The user's file cannot be used; the message says why."""


def merge(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """All settings: what was derived, the user's `own` in its place, and what the launcher needs.

    Where the user's divide the model, none that were derived do. Raises Wrong for one that the launcher sets.
    """
    if taken := sorted(OWNED & own.keys()):
        raise Wrong(f"it sets {taken[0]}, which is the launcher's")
    divided = DIVIDING if DIVIDING & own.keys() else frozenset()
    return {name: value for name, value in settings.items() if name not in divided} | dict(own) | NEEDED


def read(path: Path) -> dict[str, Any]:
    """A user's settings. Raises Wrong for a file that has none."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Wrong(" ".join(str(error).split())) from None
    if not isinstance(content, dict):
        raise Wrong("it is not a table of settings")
    return content


def main(arguments: list[str]) -> NoReturn:
    """Become the command, with a file of all settings; ends with 2 where the user's cannot be used."""
    settings, command = json.loads(arguments[0]), arguments[1:]
    own = command.pop() if command[-2:-1] == [OPTION] else None
    try:
        merged = merge(settings, read(Path(own)) if own else {})
    except Wrong as wrong:
        sys.stderr.write(f"error: the settings in {own} cannot be used: {wrong}\n")
        sys.exit(2)
    with tempfile.NamedTemporaryFile("w", prefix="trtllm-", suffix=".yaml", delete=False) as file:
        yaml.safe_dump(merged, file)
    command += [file.name] if own else [OPTION, file.name]
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - the command is the adapter's


if __name__ == "__main__":
    main(sys.argv[1:])
