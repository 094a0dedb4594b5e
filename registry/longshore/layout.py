"""Where things lie in a registry; keys are relative to its root. What a pod reads too is defined in the runtime's `versions`.

<model>/versions/<version>.json          the commit
<model>/aliases/<alias>/<n>.json         the n-th move of the alias, newest first in a listing
<model>/trees/<digest>/…                 the files, and `.longshore/manifest.json`
<model>/signatures/<digest>/…            detached signatures of a version's files
<model>/deletions/<version>/<n>.json     the n-th change of whether the version is deleted: odd ones delete, even ones restore
<model>/events/<time>-<id>.json          what was done, newest first in a listing
<model>/dependents/<digest>/….json       which adapters have said that they need a tree of the model
<model>/guards/<digest>/…                who is writing a tree, or removing it, at this moment
<model>/staging/<id>/…                   files whose tree's digest is not known yet
.longshore/…                             what the registry keeps for itself
"""

from __future__ import annotations

import re

from longshore_runtime import paths
from longshore_runtime.errors import Corrupt
from longshore_runtime.versions import deletions_folder, tree_folder, version_key

__all__ = [
    "aliases_folder",
    "deletions_folder",
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

_DIGITS = 17
_NUMBERED = re.compile(r"([0-9]+)\.json")
"""Of a moment in microseconds since the epoch."""

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
    return _MOVES - _number_at(key)


def tree_key(model: str, digest: str, path: str) -> str:
    """One file of a version."""
    return f"{tree_folder(model, digest)}{path}"


def manifest_key(model: str, digest: str) -> str:
    """The manifest of a version."""
    return tree_key(model, digest, paths.MANIFEST)


def trees_folder(model: str) -> str:
    """The folder of all trees."""
    return f"{model}/trees/"


def signatures_folder(model: str, digest: str = "") -> str:
    """The folder of a tree's signatures; of all, without a digest."""
    return f"{model}/signatures/{digest}/" if digest else f"{model}/signatures/"


def deletion_key(model: str, version: str, number: int) -> str:
    """The `number`-th of them, counted from 1."""
    return f"{deletions_folder(model, version)}{number:06d}.json"


def deletion_of(key: str) -> tuple[str, int]:
    """The version and the number of the record at `key`."""
    return key.rsplit("/", 2)[1], _number_at(key)


def events_folder(model: str) -> str:
    """The folder of a model's events."""
    return f"{model}/events/"


def event_key(model: str, microseconds: int, name: str) -> str:
    """The record of an event at a moment since the epoch; later ones come first, `name` tells those of one moment apart."""
    return f"{events_folder(model)}{10**_DIGITS - microseconds:0{_DIGITS}d}-{name}.json"


def dependents_folder(model: str, digest: str) -> str:
    """The folder of those who need a tree."""
    return f"{model}/dependents/{digest}/"


def dependent_key(model: str, digest: str, adapter: str, adapter_digest: str) -> str:
    """Where a tree of the model `adapter` says that it needs this one. No model's name has a `_` of its own."""
    return f"{dependents_folder(model, digest)}{adapter.replace('/', '_')}_{adapter_digest}.json"


def guards_folder(model: str, digest: str = "") -> str:
    """The folder of those who write or remove a tree now; of all trees, without a digest."""
    return f"{model}/guards/{digest}/" if digest else f"{model}/guards/"


def staging_folder(model: str, name: str = "") -> str:
    """The folder of one upload whose digest is not known yet; of all, without a name."""
    return f"{model}/staging/{name}/" if name else f"{model}/staging/"


def _number_at(key: str) -> int:
    """The number that is the name of a record. Raises Corrupt for the name of anything else."""
    if found := _NUMBERED.fullmatch(key.rpartition("/")[2]):
        return int(found[1])
    raise Corrupt(f"{key} lies in the registry and is no record of it", "take it away, then run the command again")
