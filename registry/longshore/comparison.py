"""What changed between two versions: files, configuration, serving, tensors. Reads headers, and little more.

Two tensors of one type and shape are the same when the chunks of the manifests that cover them are: chunks that lie wholly
inside tell by their digests alone, and of those that a tensor shares with its neighbours only its own bytes are read. That
works where both tensors begin at the same place of a chunk, as they do in files that one program wrote. Elsewhere nothing
but reading them tells, which `deep` does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import Corrupt
from longshore_runtime.manifest import File, Manifest
from longshore_runtime.pull.blob import SourceBlob
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.serve.safetensors import Tensor, read_tensors

CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
_PARALLEL = 8
_PIECE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Side:
    """One of the two: a tree and what its manifest says of it."""

    source: Source
    manifest: Manifest


@dataclass(frozen=True)
class Change:
    """A thing called `name` was `old` and is `new`; None where it is not there."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Tensors:
    """Tensors by what became of them. `undecided` ones have the same type and shape, and their bytes were not compared."""

    added: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    reshaped: list[Change] = field(default_factory=list)
    retyped: list[Change] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    same: int = 0

    @property
    def differ(self) -> bool:
        """Whether any of them is not known to be the same."""
        return bool(self.added or self.removed or self.reshaped or self.retyped or self.changed or self.undecided)


@dataclass(frozen=True)
class Difference:
    """All that differs; `files` with their sizes, `config` by file and key. `read` is how many bytes were read to tell."""

    files: list[Change]
    config: dict[str, list[Change]]
    serving: list[Change]
    tensors: Tensors
    read: int

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return bool(self.files or self.config or self.serving)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"differ": self.any, **asdict(self)}


def compare(old: Side, new: Side, *, deep: bool = False) -> Difference:
    """What changed from `old` to `new`. Raises LongshoreError when a file cannot be read or is not what was pushed."""
    reader = _Reader()
    config = {path: found for path in CONFIGS if (found := _compare_json(path, old, new, reader))}
    return Difference(
        files=list(_compare_files(old.manifest, new.manifest)),
        config=config,
        serving=list(_compare_values(_plain(old.manifest.serving), _plain(new.manifest.serving))),
        tensors=_compare_tensors(old, new, reader, deep),
        read=reader.count,
    )


def _plain(document: Any) -> dict[str, Any]:
    content: dict[str, Any] = document.model_dump(mode="json", exclude_none=True)
    return content


def _compare_files(old: Manifest, new: Manifest) -> Iterator[Change]:
    before, after = _by_path(old), _by_path(new)
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None or other is None or one.sha256 != other.sha256:
            yield Change(path, one.size if one else None, other.size if other else None)


def _compare_json(path: str, old: Side, new: Side, reader: _Reader) -> list[Change]:
    before, after = _by_path(old.manifest).get(path), _by_path(new.manifest).get(path)
    if before and after and before.sha256 == after.sha256:
        return []
    return list(_compare_values(reader.json(old, before), reader.json(new, after)))


def _compare_values(old: Any, new: Any, place: str = "") -> Iterator[Change]:
    """The leaves that differ, by their place: `rope_scaling.factor`. Lists are leaves."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _compare_values(old.get(key), new.get(key), f"{place}.{key}" if place else key)
    elif old != new or type(old) is not type(new):
        yield Change(place, old, new)


@dataclass(frozen=True)
class Place:
    """A tensor and the file that it is in."""

    tensor: Tensor
    file: File


def _compare_tensors(old: Side, new: Side, reader: _Reader, deep: bool) -> Tensors:
    shared = {file.sha256 for file in old.manifest.files} & {file.sha256 for file in new.manifest.files}
    before, after = reader.tensors(old, shared), reader.tensors(new, shared)
    result = Tensors()
    pairs: list[tuple[str, Place, Place]] = []
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            (result.added if one is None else result.removed).append(Change(name, _describe(one), _describe(other)))
        elif one.tensor.shape != other.tensor.shape:
            result.reshaped.append(Change(name, _describe(one), _describe(other)))
        elif one.tensor.dtype != other.tensor.dtype:
            result.retyped.append(Change(name, _describe(one), _describe(other)))
        else:
            pairs.append((name, one, other))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        verdicts = list(pool.map(lambda pair: _is_same(old, new, pair[1], pair[2], reader, deep), pairs))
    result.changed.extend(name for (name, _, _), same in zip(pairs, verdicts, strict=True) if same is False)
    result.undecided.extend(name for (name, _, _), same in zip(pairs, verdicts, strict=True) if same is None)
    return Tensors(**{**vars(result), "same": sum(same is True for same in verdicts)})


def _describe(place: Place | None) -> str | None:
    return f"{place.tensor.dtype} {list(place.tensor.shape)}" if place else None


def _is_same(old: Side, new: Side, one: Place, other: Place, reader: _Reader, deep: bool) -> bool | None:
    """Whether two tensors of one type and shape have the same bytes; None when only reading them would tell."""
    size = old.manifest.chunk_size
    if size != new.manifest.chunk_size or one.tensor.offset % size != other.tensor.offset % size:
        return _have_same_bytes(old, new, one, other, [(0, one.tensor.size)], reader) if deep else None
    ranges, alike = split_range(one, other, size)
    return alike and _have_same_bytes(old, new, one, other, ranges, reader)


def split_range(one: Place, other: Place, size: int) -> tuple[list[tuple[int, int]], bool]:
    """The ranges of a tensor that its chunks leave open, and whether the chunks wholly inside are the same. Pure.

    Ranges are offsets within the tensor. A chunk that is the same in both files leaves nothing open.
    """
    start, end = one.tensor.offset, one.tensor.offset + one.tensor.size
    shift = (other.tensor.offset - start) // size
    open_ranges: list[tuple[int, int]] = []
    for number in range(start // size, -(-end // size) if end > start else 0):
        first, last = max(start, number * size), min(end, (number + 1) * size)
        if one.file.blake3[number] == other.file.blake3[number + shift]:
            continue
        if last - first == size:
            return [], False
        open_ranges.append((first - start, last - start))
    return open_ranges, True


def _have_same_bytes(old: Side, new: Side, one: Place, other: Place, ranges: list[tuple[int, int]], reader: _Reader) -> bool:
    for first, last in ranges:
        for at in range(first, last, _PIECE):
            length = min(_PIECE, last - at)
            left = reader.range(old, one.file, one.tensor.offset + at, length)
            if left != reader.range(new, other.file, other.tensor.offset + at, length):
                return False
    return True


def _by_path(manifest: Manifest) -> dict[str, File]:
    return {file.path: file for file in manifest.files}


class _Reader:
    """Reads, and counts what it read."""

    def __init__(self) -> None:
        self.count, self._lock = 0, threading.Lock()

    def range(self, side: Side, file: File, offset: int, length: int) -> bytes:
        data = SourceBlob(side.source, file.path, file.size).read(offset, length)
        with self._lock:
            self.count += len(data)
        return data

    def json(self, side: Side, file: File | None) -> Mapping[str, Any]:
        """The object in a small file of a tree; {} where there is none."""
        if file is None:
            return {}
        data = self.range(side, file, 0, file.size)
        if digest_bytes(data) != file.sha256:
            raise Corrupt(f"{file.path} in {side.source.uri} is not what was pushed", "push the version's files again")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def tensors(self, side: Side, shared: set[str]) -> dict[str, Place]:
        """The tensors by name, but for those in files that both sides have; of a subfolder with its name before them."""
        files = [file for file in side.manifest.files if file.path.endswith(".safetensors") and file.sha256 not in shared]

        def read(file: File) -> dict[str, Tensor]:
            return read_tensors(_Counted(self, side, file))

        with ThreadPoolExecutor(_PARALLEL) as pool:
            headers = list(pool.map(read, files))
        found: dict[str, Place] = {}
        for file, header in zip(files, headers, strict=True):
            folder = file.path.rpartition("/")[0]
            found |= {f"{folder}/{name}" if folder else name: Place(tensor, file) for name, tensor in header.items()}
        return found


@dataclass(frozen=True)
class _Counted:
    """A file whose readings are counted."""

    reader: _Reader
    side: Side
    file: File

    @property
    def name(self) -> str:
        return f"{self.side.source.uri}/{self.file.path}"

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, offset: int, length: int) -> bytes:
        return self.reader.range(self.side, self.file, offset, min(length, self.file.size - offset))
