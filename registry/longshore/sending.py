"""Having a tree's files in a store: what is there stays, what the store can copy it copies, the rest is sent."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from longshore import layout
from longshore.storage.content import Content
from longshore.storage.lanes import Lanes
from longshore.storage.port import Store
from longshore_runtime.errors import Corrupt
from longshore_runtime.manifest import File, Manifest
from longshore_runtime.progress import Progress
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.pull.transfer import Chunk, read_chunk

_PARALLEL_FILES = 4


def send_tree(
    store: Store,
    model: str,
    manifest: Manifest,
    content_of: Callable[[File], Content],
    copies_of: Callable[[File], str | None],
    progress: Progress,
    *,
    what: str = "pushing",
    repair: bool = False,
) -> int:
    """Have the files of the manifest in the store, then the manifest; returns the bytes that were sent.

    `copies_of` knows an address from which the store may copy a file by itself, `content_of` the bytes where it cannot.
    What is stored already is believed to be what the store's checksums say, unless it is to be read, for `repair`.
    Running it again goes on where it was cut short.
    """

    def put(file: File, lanes: Lanes) -> int:
        key = layout.tree_key(model, manifest.digest, file.path)
        content = content_of(file)
        if not store.holds(key, content, lanes, reread=repair):
            source = copies_of(file)
            if source is None or not store.copy_file(source, key, content, lanes):
                return store.put_file(key, content, lanes, progress.advance)
        progress.advance(file.size)
        return 0

    progress.begin(what, manifest.size)
    try:
        with Lanes() as lanes, ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            sent = sum(pool.map(lambda file: put(file, lanes), sorted(manifest.files, key=lambda file: -file.size)))
    finally:
        progress.end()
    key = layout.manifest_key(model, manifest.digest)
    if store.create(key, manifest.encode()).data != manifest.encode():
        raise Corrupt(f"{store.uri}/{key} was changed by somebody", "remove that object, then run the command again")
    return sent


def content_at(source: Source, file: File, chunk_size: int) -> Content:
    """The content of a file that lies somewhere else. Reading raises Corrupt when it is not what `file` says."""

    def read_into(offset: int, buffer: memoryview) -> None:
        read_chunk(source, Chunk(file.path, offset, len(buffer)), buffer)

    hint = "push the version's files again there, with --repair"
    wrong = Corrupt(f"{file.path} in {source.uri} is not what was pushed", hint)
    return Content(file, chunk_size, read_into, wrong)
