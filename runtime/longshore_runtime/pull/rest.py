"""The rest of a pull that an initializer has begun: the weights, held against the manifest that it verified.

With it a preview of the folder, on which an engine may be started: links to all that is there, and in place of weights
that are still to come their heads, which are verified. A head is no file of weights: whoever reads more of it than the
header finds that it ends. The link takes its place when the file is there and right.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from longshore_runtime import paths
from longshore_runtime.handover import Handover, require_handover
from longshore_runtime.handover_files import PREVIEW, remove_handover
from longshore_runtime.progress import Progress, Silent
from longshore_runtime.pull.engine import explained
from longshore_runtime.pull.job import Job
from longshore_runtime.pull.rate import Throttle, read_rate
from longshore_runtime.pull.sources.lent import LentSource
from longshore_runtime.pull.verdict import Verdict

PREFIX = 8
HEADED = ".safetensors"
"""Weights of which engines read the header beforehand: its length in eight bytes, then itself."""


def pull_rest(target: Path, progress: Progress, previewed: Callable[[Path], None], arrived: Callable[[str], None]) -> Verdict:
    """Bring the weights that the hand-over in `target` names; resumes from what is there.

    `previewed` is called with the preview when an engine may be started on it, `arrived` from any thread with the name of
    each file that is there and right. Raises LongshoreError, and then a later call can go on.
    """
    started, handover = time.monotonic(), require_handover(target)
    preview = Preview(target, handover)
    source = LentSource(handover)
    source.throttle = Throttle(read_rate())
    job = Job(source, target, [], handover.manifest)
    had: set[str] = set()

    def link(path: str) -> None:
        preview.link(path)
        arrived(path)

    with explained(target):
        job.check_disk()
        preview.clear()
        job.run(Silent(), lambda path, offset: offset == 0 and path in handover.weights, had.add)
        heads = {path: preview.measure_head(path, size) for path, size in handover.weights.items() if path not in had}
        if max(heads.values(), default=0) > handover.manifest.chunk_size:
            job.run(Silent(), lambda path, offset: offset < heads.get(path, 0))
        preview.fill(heads)
        previewed(target / PREVIEW)
        for path in had:
            arrived(path)
        fetched = job.run(progress, lambda path, _offset: path in heads, link)
        job.finish()
        remove_handover(target)
    return Verdict(
        source=handover.source,
        target=str(target),
        digest=handover.manifest.digest,
        revision=None,
        verified=handover.verified,
        files=len(handover.weights),
        size=sum(handover.weights.values()),
        fetched=fetched,
        seconds=round(time.monotonic() - started, 3),
    )


class Preview:
    """The folder below a model's own on which an engine may be started."""

    def __init__(self, target: Path, handover: Handover) -> None:
        self._target, self._handover = target, handover

    def clear(self) -> None:
        """Take away what an earlier pull has left: its links may lead to what is not verified yet."""
        shutil.rmtree(self._target / PREVIEW, ignore_errors=True)

    def measure_head(self, path: str, size: int) -> int:
        """Bytes that the head of a file has, of which the first chunk is there; 0 where engines read none of its kind."""
        if not path.endswith(HEADED) or size < PREFIX:
            return 0
        with open(self._target / paths.PARTIAL / path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(PREFIX))
        return PREFIX + int(length) if PREFIX + length <= size else 0

    def fill(self, heads: Mapping[str, int]) -> None:
        """Link what is there, and put heads of these many bytes where weights are to come."""
        (self._target / PREVIEW).mkdir(parents=True, exist_ok=True)
        for file in self._handover.manifest.files:
            if file.path not in heads:
                self.link(file.path)
            elif length := heads[file.path]:
                with open(self._target / paths.PARTIAL / file.path, "rb") as partial:
                    self._place(file.path).write_bytes(partial.read(length))

    def link(self, path: str) -> None:
        """Have the file itself where its head was."""
        place = self._place(path)
        draft = place.with_name(f"{place.name}.link")
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.path.relpath(self._target / path, place.parent))
        os.replace(draft, place)

    def _place(self, path: str) -> Path:
        place = self._target / PREVIEW / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place
