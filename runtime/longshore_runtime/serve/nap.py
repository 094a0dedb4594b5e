"""Puts the engine of this pod to sleep, or wakes it: `python3 -m longshore_runtime.serve.nap sleep|wake`.

It returns when that is done, and prints one line of JSON: `phase`, and where it failed `error` and `hint`. What is being done
meanwhile goes to stderr. Only the user that the launcher runs as can do it, inside the pod.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.bell import find_place, ring

VERBS = ("sleep", "wake")


def main(arguments: list[str], place: Path | None = None) -> int:
    """Ask the launcher that listens at `place`; returns the exit code, 0 when it is done."""
    parser = argparse.ArgumentParser("python3 -m longshore_runtime.serve.nap", description=__doc__, allow_abbrev=False)
    parser.add_argument("verb", choices=VERBS)
    verb: str = parser.parse_args(arguments).verb
    try:
        told = ring(place or find_place(), verb, _hear)
    except LongshoreError as error:
        told = {"phase": None, "error": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps({name: told.get(name) for name in ("phase", "error", "hint")}) + "\n")
    return 1 if told.get("error") else 0


def _hear(told: dict[str, Any]) -> None:
    sys.stderr.write(f"{told['phase']}: {told['step']}\n" if told.get("step") else f"{told['phase']}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
