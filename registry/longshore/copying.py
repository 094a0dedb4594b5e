"""Copying a version to another registry, wherever that is: the same bytes under the same digest, verified on the way.

Running it again goes on where it was cut short: files that are there are not sent again. Nothing is resolved in the other
registry before its own commit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from longshore.sending import content_at, send_tree
from longshore.storage.port import Store
from longshore_runtime.manifest import Manifest
from longshore_runtime.progress import Progress
from longshore_runtime.pull.sources import open_source

_PARALLEL_FILES = 4


def copy_tree(uri: str, manifest: Manifest, store: Store, model: str, progress: Progress) -> int:
    """Have the files of the tree at `uri` in the store, then the manifest; returns the bytes that were sent.

    A store that can reach the tree copies the files itself; else they pass through this machine's memory.
    """
    source = open_source(uri)
    return send_tree(
        store,
        model,
        manifest,
        lambda file: content_at(source, file, manifest.chunk_size),
        lambda file: f"{uri}/{file.path}",
        progress,
        what="copying",
    )


def copy_objects(source: Store, target: Store, keys: list[str]) -> None:
    """Small objects under the same keys; those that are there stay."""

    def copy(key: str) -> None:
        if (data := source.read(key)) is not None:
            target.create(key, data)

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(copy, keys))
