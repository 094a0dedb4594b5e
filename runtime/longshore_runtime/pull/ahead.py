"""What a pull has before the engine starts, when the weights are to arrive while it does.

Everything but the weights, and of each file of weights the first chunk: it has the header that an engine reads long before
the tensors, and a file that cannot be read fails here, where KServe shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from longshore_runtime import paths
from longshore_runtime.handover import Handover, Loan, write_handover
from longshore_runtime.manifest import Manifest
from longshore_runtime.progress import Progress
from longshore_runtime.pull.rate import MAX_RATE, read_rate
from longshore_runtime.pull.sources.port import Source

WAITING = ("vllm",)
"""Engines that can be started before the weights are there, and then wait for them."""

TOGETHER = (".gguf",)
"""Weights that hold the configuration and the tokenizer too, without which no engine starts."""


def is_ahead(path: str, offset: int) -> bool:
    """Whether a chunk is had before the engine starts."""
    return offset == 0 or not path.endswith(paths.WEIGHT_SUFFIXES)


def lend(source: Source, manifest: Manifest, progress: Progress) -> Loan | None:
    """What the launcher needs to pull the weights. None, and said why, where everything is pulled at once."""
    weights = [file.path for file in manifest.files if file.path.endswith(paths.WEIGHT_SUFFIXES)]
    if not _remaining(manifest):
        return None
    reason, loan = "", None
    if manifest.serving.engine not in WAITING:
        reason = f"{manifest.serving.engine} does not wait for weights"
    elif any(path.endswith(TOGETHER) for path in weights):
        reason = "the configuration lies in the weights"
    elif (loan := source.lend(weights)) is None:
        reason = "this source has no addresses to hand over"
    if reason:
        progress.say(f"everything is pulled before the engine starts: {reason}")
    if loan and (rate := read_rate()):  # of the initializer's variables the launcher has none
        return loan.model_copy(update={"settings": {**loan.settings, MAX_RATE: str(rate)}})
    return loan


def hand_over(target: Path, source: Source, manifest: Manifest, verified: Literal["digest", "manifest"], loan: Loan) -> int:
    """Leave for the launcher what it needs to pull the weights; returns the bytes that are still to come."""
    write_handover(target, Handover(source=source.uri, verified=verified, manifest=manifest, loan=loan))
    return _remaining(manifest)


def _remaining(manifest: Manifest) -> int:
    """The bytes that are not had ahead."""
    sizes = (file.size for file in manifest.files if file.path.endswith(paths.WEIGHT_SUFFIXES))
    return sum(max(0, size - manifest.chunk_size) for size in sizes)
