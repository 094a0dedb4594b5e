"""Holding a folder against the manifest in it, where another initializer than ours has brought it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from longshore_runtime import paths, tree
from longshore_runtime.digests import chunk_ranges, digest_chunk, read_fully
from longshore_runtime.errors import Corrupt
from longshore_runtime.handover import read_handover
from longshore_runtime.manifest import File, Manifest, parse
from longshore_runtime.marker import is_vouched
from longshore_runtime.progress import format_size

_READERS = 4


def require_verified(folder: Path, say: Callable[[str], None]) -> None:
    """Read all of a model that nobody of ours vouches for. Raises Corrupt, naming a file, unless it is as its manifest says.

    Where there is no manifest, nothing can be said.
    """
    manifest = folder / paths.MANIFEST
    if not manifest.is_file() or read_handover(folder) or is_vouched(folder):
        return
    content = parse(manifest.read_bytes(), str(manifest))
    say(f"another initializer has brought these files: reading {format_size(content.size)} to hold them against the manifest")
    if flaw := find_flaw(folder, content):
        raise Corrupt(f"{folder} is not what was pushed: {flaw}", "use Longshore's initializer, or pull the files again")


def find_flaw(folder: Path, manifest: Manifest) -> str | None:
    """The first thing in a folder that is not as the manifest says, in words; every byte is read."""
    present = {file.path: file for file in tree.scan(folder)}
    for file in manifest.files:
        found = present.pop(file.path, None)
        if found is None or found.size != file.size:
            return f"{file.path} is {'missing' if found is None else f'{found.size} bytes instead of {file.size}'}"
    if present:
        return f"{min(present)} is extra"
    local = threading.local()

    def differs(file: File) -> bool:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(manifest.chunk_size))
        return not _matches(folder / file.path, file, manifest.chunk_size, local.buffer)

    with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as pool:
        wrong = [file.path for file, bad in zip(manifest.files, pool.map(differs, manifest.files), strict=True) if bad]
    return f"{min(wrong)} is changed" if wrong else None


def _matches(path: Path, file: File, chunk_size: int, buffer: memoryview) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for (offset, length), digest in zip(chunk_ranges(file.size, chunk_size), file.blake3, strict=True):
            chunk = buffer[:length]
            if read_fully(descriptor, chunk, offset) != length or digest_chunk(chunk) != digest:
                return False
    finally:
        os.close(descriptor)
    return True
