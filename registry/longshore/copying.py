"""Copying a version to another registry, wherever that is: the same bytes under the same digest, verified on the way.

Running it again goes on where it was cut short: files that are there are not sent again. Nothing is resolved in the other
registry before its own commit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from longshore import layout
from longshore.storage.port import Store
from longshore_runtime.digests import chunk_ranges
from longshore_runtime.errors import Corrupt, StoreFailed
from longshore_runtime.manifest import File, Manifest
from longshore_runtime.progress import Progress
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.file import split_uri
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.pull.transfer import Chunk, read_chunk

_PARALLEL_FILES = 4


def copy_tree(uri: str, manifest: Manifest, store: Store, model: str, progress: Progress) -> int:
    """Have the files of the tree at `uri` in the store, then the manifest; returns the bytes that were not there yet.

    A file that does not lie on this machine passes through its temporary folder, a few at a time.
    """
    source = open_source(uri)

    def put(file: File) -> int:
        key = layout.tree_key(model, manifest.digest, file.path)
        with _on_this_machine(source, file, manifest.chunk_size) as location:
            return file.size if store.put_file(key, location, file, manifest.chunk_size, progress.advance) else 0

    progress.begin("copying", manifest.size)
    try:
        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            sent = sum(pool.map(put, sorted(manifest.files, key=lambda file: -file.size)))
    finally:
        progress.end()
    stored = store.create(layout.manifest_key(model, manifest.digest), manifest.encode())
    if stored.data != manifest.encode():
        key = layout.manifest_key(model, manifest.digest)
        raise Corrupt(f"{store.uri}/{key} was changed by somebody", "remove that object, then copy again")
    return sent


def copy_objects(source: Store, target: Store, keys: list[str]) -> None:
    """Small objects under the same keys; those that are there stay."""

    def copy(key: str) -> None:
        if (data := source.read(key)) is not None:
            target.create(key, data)

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(copy, keys))


@contextmanager
def _on_this_machine(source: Source, file: File, chunk_size: int) -> Iterator[Path]:
    """A path with the file's bytes: where it lies, or a verified copy that vanishes."""
    if source.uri.startswith("file:"):
        yield split_uri(source.uri) / file.path
        return
    with tempfile.TemporaryDirectory(prefix="longshore-copy-") as folder:
        location = Path(folder) / "file"
        _fetch(source, file, chunk_size, location)
        yield location


def _fetch(source: Source, file: File, chunk_size: int, location: Path) -> None:
    buffer = memoryview(bytearray(chunk_size))
    try:
        with open(location, "wb", buffering=0) as out:
            for (offset, length), digest in zip(chunk_ranges(file.size, chunk_size), file.blake3, strict=True):
                chunk, part = Chunk(file.path, offset, length, digest), buffer[:length]
                read_chunk(source, chunk, part)
                if not chunk.matches(part):
                    raise Corrupt(f"{chunk} in {source.uri} is not what was pushed", "push the version's files again there")
                while part:
                    part = part[out.write(part) :]
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreFailed(
            f"cannot keep {file.path} on its way: {location}: {reason}", "point TMPDIR to a folder with room for it"
        ) from error
