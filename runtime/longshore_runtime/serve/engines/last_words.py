"""What the last output of an engine that ended says of the reason, by a table of its messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.vllm_causes import CAUSES, Cause, first_error

_KEPT = 300
"""Characters of what an engine said itself."""

_COMMON = {"remote-code", "no-device", "nccl", "shared-memory", "damaged-weights", "read-only", "disk-full"}

COMMON = tuple(cause for cause in CAUSES if cause.name in _COMMON)
"""What the libraries say that engines in Python have in common: Transformers, PyTorch, NCCL, safetensors, Python itself."""


def explain(engine: str, causes: Iterable[Cause], output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name; the first cause in the table whose message is there."""
    text = "\n".join(output)
    for cause in causes:
        if found := re.search(cause.pattern, text):
            words = {name: " ".join((value or "").split())[:_KEPT] for name, value in found.groupdict().items()}
            return EngineFailed(f"{engine} refused the model: {cause.sentence.format(**words)}", cause.hint, cause.name)
    return EngineFailed(
        f"{engine} ended: {first_error(output)}", "see its output above, or run again with --verbose", "unknown"
    )
