"""Whether a pod's pull and its engine's start follow each other or overlap: annotations of the pod say so."""

from __future__ import annotations

import os
from collections.abc import Mapping

from longshore_runtime.errors import LongshoreError
from longshore_runtime.progress import Progress

MODE, READONLY = "LONGSHORE_PULL", "LONGSHORE_READONLY"
"""The environment variables: `overlap` or `before`, and whether the main container may write to the model's folder."""


def read_mode(progress: Progress, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the weights are left to the launcher. Raises LongshoreError for a word that is none."""
    mode = environment.get(MODE) or "before"
    if mode not in ("overlap", "before"):
        raise LongshoreError(f"{MODE} is {mode!r}", "write overlap or before (the annotation longshore.dev/pull)")
    if mode == "overlap" and environment.get(READONLY, "false") != "false":
        progress.say('everything is pulled before the engine starts: annotate with storage.kserve.io/readonly: "false"')
        return False
    return mode == "overlap"
