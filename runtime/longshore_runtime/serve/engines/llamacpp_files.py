"""Which files of a folder llama.cpp is told of: the model, or the first of its shards, and what lets it see or hear."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from longshore_runtime import paths
from longshore_runtime.blobs import LocalBlob
from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.gguf import MODEL, read_gguf

SUFFIX = ".gguf"
PROJECTOR = "mmproj"
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def find_files(folder: Path) -> tuple[Path, Path | None]:
    """The model's file and the projector's in a folder. Raises InvalidModel unless there is one model.

    Links are followed: the node's cache is full of them, and whoever pulled has judged them.
    """
    found = {place.relative_to(folder).as_posix(): place for place in folder.rglob(f"*{SUFFIX}") if place.is_file()}
    locations = {path: place for path, place in found.items() if not path.startswith(f"{paths.METADATA}/")}
    lone = len([path for path in locations if not _is_later_shard(path)]) == 1
    kinds = {path: MODEL if lone else _read_kind(place, path) for path, place in locations.items()}
    model, projector = choose_files(kinds)
    return folder / model, folder / projector if projector else None


def choose_files(kinds: Mapping[str, str]) -> tuple[str, str | None]:
    """Of files with what is in them (`gguf.Header.kind`): the model's and the projector's path."""
    models = sorted(path for path, kind in kinds.items() if kind == MODEL and not _is_later_shard(path))
    projectors = sorted(path for path, kind in kinds.items() if kind == PROJECTOR)
    if not models:
        raise InvalidModel("there is no GGUF file of a model in the folder", "llama.cpp serves GGUF files; push one")
    if len(models) > 1:
        raise InvalidModel(
            f"there are {len(models)} GGUF files, each a model of its own: {models[0]}, {models[1]}, …",
            "push the one that is to be served",
        )
    if lacking := _find_lacking(models[0], kinds):
        raise InvalidModel(f"the shard {lacking} is missing", "push the folder again with all shards")
    if len(projectors) > 1:
        raise InvalidModel(f"there are {len(projectors)} projectors: {', '.join(projectors)}", "push one of them")
    return models[0], projectors[0] if projectors else None


def _read_kind(place: Path, path: str) -> str:
    blob = LocalBlob(place)
    return read_gguf(blob.read, blob.size, path).kind


def _is_later_shard(path: str) -> bool:
    shard = _SHARD.fullmatch(path)
    return shard is not None and int(shard["number"]) > 1


def _find_lacking(first: str, present: Collection[str]) -> str | None:
    """The first shard that is not there; llama.cpp finds the others by the name of the first."""
    shard = _SHARD.fullmatch(first)
    if shard is None:
        return None
    names = (f"{shard['stem']}-{number:05}-of-{shard['count']}{SUFFIX}" for number in range(1, int(shard["count"]) + 1))
    return next((name for name in names if name not in present), None)
