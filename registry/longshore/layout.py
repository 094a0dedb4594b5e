"""Where things lie in a registry; keys are relative to its root. What a pod reads too is defined in the runtime's `versions`.

<model>/versions/<version>.json          the commit
<model>/aliases/<alias>/<n>.json         the n-th move of the alias, newest first in a listing
<model>/trees/<digest>/…                 the files, and `.longshore/manifest.json`
.longshore/…                             what the registry keeps for itself
"""

from __future__ import annotations

from longshore_runtime import paths
from longshore_runtime.versions import tree_folder, version_key

__all__ = [
    "aliases_folder",
    "manifest_key",
    "move_key",
    "move_of",
    "moves_folder",
    "tree_folder",
    "tree_key",
    "version_key",
    "version_of",
    "versions_folder",
]

CONDITIONS = ".longshore/conditions"
"""What every process that commits tries to overwrite, to see that it cannot. No model's name begins with a dot."""

PROBES = ".longshore/probes/"
"""Where a store is tried out."""

_MOVES = 10**12
"""Moves are numbered downwards in their keys, so that one LIST of one key finds the newest of any number."""


def versions_folder(model: str) -> str:
    """The folder of a model's version records."""
    return f"{model}/versions/"


def version_of(key: str) -> str:
    """The version whose record `key` is."""
    return key.rpartition("/")[2].removesuffix(".json")


def aliases_folder(model: str) -> str:
    """The folder of a model's aliases."""
    return f"{model}/aliases/"


def moves_folder(model: str, alias: str) -> str:
    """The folder of an alias's moves."""
    return f"{model}/aliases/{alias}/"


def move_key(model: str, alias: str, number: int) -> str:
    """The record of the `number`-th move, counted from 1."""
    return f"{moves_folder(model, alias)}{_MOVES - number:012d}.json"


def move_of(key: str) -> int:
    """The number of the move whose record `key` is."""
    return _MOVES - int(key.rpartition("/")[2].removesuffix(".json"))


def tree_key(model: str, digest: str, path: str) -> str:
    """One file of a version."""
    return f"{tree_folder(model, digest)}{path}"


def manifest_key(model: str, digest: str) -> str:
    """The manifest of a version."""
    return tree_key(model, digest, paths.MANIFEST)
