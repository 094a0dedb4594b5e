"""Reading a tree of the cache again, every byte of it."""

from __future__ import annotations

from longshore_runtime import paths
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import parse
from longshore_runtime.progress import Progress
from longshore_runtime.pull.cache.entries import Entry
from longshore_runtime.pull.cache.witness import has_digest
from longshore_runtime.pull.sources.file import FileSource
from longshore_runtime.pull.verification import verify


def find_damage(entry: Entry, progress: Progress) -> str | None:
    """What of the tree is not as its digest says, in a few words; None where all of it is right. Writes nothing."""
    if not has_digest(entry.tree, entry.digest):
        return f"{paths.MANIFEST} is damaged"
    try:
        manifest = parse((entry.tree / paths.MANIFEST).read_bytes())
        findings = verify(FileSource(entry.tree.as_uri()), manifest, progress)
    except (LongshoreError, OSError) as error:
        return str(error)
    return "; ".join(map(str, findings[:4])) or None
