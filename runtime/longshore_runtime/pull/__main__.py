"""The storage initializer's command: `python -m longshore_runtime.pull SOURCE FOLDER [SOURCE FOLDER …]`.

The arguments are those that KServe gives its own initializer. Progress goes to stderr; each verdict is
one line of JSON on stdout. Before a non-zero exit one line of JSON goes to the termination log, which
KServe shows in the InferenceService's status.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError
from longshore_runtime.progress import Lines
from longshore_runtime.pull.engine import pull
from longshore_runtime.pull.patterns import read_patterns
from longshore_runtime.termination import leave_message


def main(arguments: list[str]) -> int:
    """Pull every source into its folder, in order; returns the exit code."""
    if not arguments or len(arguments) % 2:
        print("usage: python -m longshore_runtime.pull SOURCE FOLDER [SOURCE FOLDER …]", file=sys.stderr)
        return 2
    for source, folder in zip(arguments[::2], arguments[1::2], strict=True):
        try:
            verdict = pull(source, Path(folder), Lines(), patterns=read_patterns())
            print(json.dumps(verdict.as_dict()), flush=True)
        except LongshoreError as error:
            print(f"error: {error}", file=sys.stderr)
            leave_message(error, source=redact(source))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
