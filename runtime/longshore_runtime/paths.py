"""Which names a file of a model may have, everywhere: in a manifest, in a bucket, on a disk.

One rule for what is pushed and for what is pulled, so that a name that could leave the target
folder, or mean two files on one disk and one on another, is refused at the first place it is seen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

METADATA = ".longshore"
"""The folder of a tree that belongs to Longshore; a model's own files never lie in it."""

MANIFEST = f"{METADATA}/manifest.json"

ADAPTERS = f"{METADATA}/adapters"
"""Where the adapters that are served with a tree lie, a folder each: there they are no part of it."""

DRAFT = f"{METADATA}/draft"
"""Where the second model lies that guesses for a tree's; there it is no part of it."""

PARTIAL = f"{METADATA}/partial"
"""Where a file lies below its own path until all of its bytes are right."""

WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
"""Files that hold tensors: nearly all of a model's bytes, and the last that an engine reads."""


def adapter_folder(name: str) -> str:
    """The folder of the adapter that a model of this name is, in its base's; names have no `_` of their own."""
    return f"{ADAPTERS}/{name.replace('/', '_')}"


def find_flaw(path: str) -> str | None:
    """Why `path` cannot name a file of a model, or None. Names are relative, POSIX, Unicode NFC."""
    segments = path.split("/")
    if not path or path.startswith("/"):
        return "it is empty or absolute"
    if any(segment in ("", ".", "..") for segment in segments):
        return "it has an empty, '.' or '..' segment"
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "it has a backslash, a control character or bytes that are not UTF-8"
    if unicodedata.normalize("NFC", path) != path:
        return "it is not in Unicode's composed form (NFC)"
    if any(len(segment.encode()) > 255 for segment in segments) or len(path.encode()) > 900:
        return "it is too long (255 bytes a segment, 900 in all)"
    if segments[0].casefold() == METADATA:
        return f"{METADATA}/ is Longshore's own"
    return None


def find_collision(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two of `paths` that cannot lie on every disk together, or None.

    Names that differ only in case, or a name that is a file and a folder at once.
    """
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        segments = path.split("/")
        for count in range(1, len(segments) + 1):
            name, is_file = "/".join(segments[:count]), count == len(segments)
            folded = unicodedata.normalize("NFC", name.casefold())
            if folded in seen and (is_file or seen[folded] != (name, False)):
                return seen[folded][0], path
            seen[folded] = name, is_file
    return None
