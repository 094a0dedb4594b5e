"""Whether a store has every file of a tree, by its own listing."""

from __future__ import annotations

import time

from longshore import layout
from longshore.storage.port import Store
from longshore_runtime.errors import Interrupted
from longshore_runtime.manifest import Manifest

_LOOKS = 4


def find_missing(store: Store, model: str, manifest: Manifest) -> str | None:
    """The path of a file that the store does not list with its size, or None when it has them all."""
    folder = layout.tree_folder(model, manifest.digest)
    sizes = {stored.key.removeprefix(folder): stored.size for stored in store.list_tree(folder)}
    return next((file.path for file in manifest.files if sizes.get(file.path) != file.size), None)


def require_complete(store: Store, model: str, manifest: Manifest) -> None:
    """Raise Interrupted unless the store lists every file, whatever it has answered when it was sent."""
    for look in range(_LOOKS):
        # Another pusher of the same bytes may be replacing a file: versitygw has none of that name for a moment.
        time.sleep(0.1 * (2**look - 1))
        if (missing := find_missing(store, model, manifest)) is None:
            return
    raise Interrupted(f"the store has not kept {missing} of {model}, although it said so", "run the command again; it resumes")
