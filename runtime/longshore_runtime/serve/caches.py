"""Where an engine keeps what it compiles: a folder for each combination of engine, device, model and arguments.

What was compiled for one is worthless to another, and a volume that outlives its pod collects them; two pods of the same
combination share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from longshore_runtime import paths, tree
from longshore_runtime.digests import digest_bytes
from longshore_runtime.handover import read_handover
from longshore_runtime.serve.host import Host

_SIZE = 16
"""Hexadecimal digits of a key: enough for a volume's folders."""


def fingerprint(folder: Path) -> str:
    """What tells a model from others: the digest of its manifest, or of its files' names and sizes where it has none."""
    manifest = folder / paths.MANIFEST
    if manifest.is_file():
        return digest_bytes(manifest.read_bytes())
    if handover := read_handover(folder):
        return handover.manifest.digest
    return _digest([(file.path, file.size) for file in tree.scan(folder)])


def choose_key(engine: tuple[str, str], machine: Host, model: str, arguments: Sequence[str]) -> str:
    """The name of the folder: readable in part, the same for the same combination. `engine` is its name and version."""
    devices = [machine.device, *(gpu.name for gpu in machine.gpus)]
    return f"{engine[0]}-{_digest([*engine, devices, model, *arguments])[:_SIZE]}"


def place(root: Path, key: str, caches: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for the engine's `caches` (variable → subfolder), whose folders are made.

    Raises OSError where they cannot be.
    """
    places = {variable: root / key / name for variable, name in caches.items()}
    for folder in places.values():
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied", str(folder))
    return {variable: str(folder) for variable, folder in places.items()}


def _digest(content: object) -> str:
    return digest_bytes(json.dumps(content).encode())
