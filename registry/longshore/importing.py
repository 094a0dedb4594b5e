"""Bringing a tree from somewhere else into a registry without a copy on this machine.

A manifest's digest, and so the files' place, is known only once every byte was seen. So what comes from a hub goes to a
staging folder while it is digested, and from there the store copies it; what lies in a bucket already is read once and then
copied by the store. Of a pinned revision, files that an import which was cut short has staged are not fetched again.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from awscrt.checksums import crc64nvme

from longshore import layout
from longshore.adapters import require_base
from longshore.sending import content_at
from longshore.storage.content import Content
from longshore.storage.lanes import MEMORY, Lanes
from longshore.storage.port import Draft, Store
from longshore.storage.uploads import PART_SIZE
from longshore_runtime import paths
from longshore_runtime.addresses import redact
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import chunk_ranges, digest_chunk
from longshore_runtime.errors import Corrupt, InvalidModel, LongshoreError
from longshore_runtime.manifest import Base, File, Manifest, ModelFacts, Origin, Serving
from longshore_runtime.progress import Progress
from longshore_runtime.pull.engine import choose_entries
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.transfer import Chunk, read_chunk
from longshore_runtime.pull.verification import compare_listing, read_manifest, refuse
from longshore_runtime.serve.facts import read_facts

_PARALLEL_FILES = 4
_ATTEMPTS = 2
_DESCRIPTIONS = (".json", ".jinja")
_README = "README.md"
_LARGEST_DESCRIPTION = 16 * 1024 * 1024


@dataclass(frozen=True)
class Imported:
    """What is to be committed, the bytes of each file, and from where the store can copy it."""

    manifest: Manifest
    source: Source
    staging: str | None
    fetched: int

    def content_of(self, file: File) -> Content:
        """The file where it came from."""
        return content_at(self.source, file, self.manifest.chunk_size)

    def copy_of(self, file: File, root: str) -> str:
        """An address of the file that the store at `root` may be able to copy from."""
        return f"{root}/{self.staging}files/{file.path}" if self.staging else f"{self.source.uri.rstrip('/')}/{file.path}"


def bring(
    uri: str,
    store: Store,
    model: str,
    patterns: Patterns,
    wishes: tuple[Serving | None, Base | None, Base | None],
    progress: Progress,
) -> Imported:
    """Digest the tree at `uri`, staging what the store cannot copy from there itself.

    `wishes` are how to serve it, its base and its draft, where the push says so; a version brings its own.

    The version's files are those of its manifest, where the tree has one. Raises LongshoreError for what is no model, and
    Corrupt when a file is not what the source publishes of it.
    """
    serving, base, draft = wishes
    source = open_source(uri)
    found = read_manifest(source, source.digest)
    if found is not None:
        if patterns:
            raise LongshoreError(f"{redact(uri)} is a version, which is pushed whole", "leave --include and --exclude out")
        if findings := compare_listing(list(source.list_files()), found):
            raise refuse(findings, source.uri)
        origin = Origin(
            uri=source.uri, revision=f"sha256:{found.digest}", licence=found.source.licence if found.source else None
        )
        base = base or found.base
        require_base([file.path for file in found.files], found.model, base, redact(uri))
        draft = found.draft if serving is None else draft
        needs = {"base": base, "draft": draft}
        manifest = found.model_copy(update={"source": origin, "serving": serving or found.serving, **needs})
        return Imported(manifest, source, None, 0)
    entries = source.look_up(choose_entries(source, list(source.list_files()), patterns))
    facts, licence = _look(source, entries)
    require_base([entry.path for entry in entries], facts, base, redact(uri))
    name = hashlib.sha256(f"{source.uri} {source.revision}".encode()).hexdigest()[:32] if source.revision else uuid.uuid4().hex
    can_copy = source.uri.startswith("s3://") and store.uri.startswith("s3://")
    staging = None if can_copy else layout.staging_folder(model, name)
    importer = _Importer(source, store, staging, progress)
    files = importer.take_all(entries)
    origin = Origin(uri=source.uri, revision=source.revision, licence=licence)
    manifest = Manifest(files=files, model=facts, serving=serving or Serving(), source=origin, base=base, draft=draft)
    return Imported(manifest, source, staging, importer.fetched)


class ChosenFiles(Source):
    """The files of a source that `patterns` want, the model's own."""

    def __init__(self, source: Source, patterns: Patterns) -> None:
        self._source, self._patterns, self.uri = source, patterns, source.uri
        self.sequential = source.sequential

    def list_files(self) -> list[Entry]:
        own = (entry for entry in self._source.list_files() if not entry.path.startswith(f"{paths.METADATA}/"))
        return [entry for entry in own if self._patterns.wants(entry.path)]

    def read(self, path: str) -> bytes | None:
        return self._source.read(path)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self._source.read_into(path, offset, buffer)


class _Importer:
    """The files of one source on their way through this machine's memory."""

    def __init__(self, source: Source, store: Store, staging: str | None, progress: Progress) -> None:
        self._source, self._store, self._staging, self._progress = source, store, staging, progress
        self.fetched = 0

    def take_all(self, entries: list[Entry]) -> tuple[File, ...]:
        """Every file, digested and, where that is wanted, staged."""
        count = 1 if self._source.sequential else min(_PARALLEL_FILES, len(entries))
        self._progress.begin("importing", sum(entry.size for entry in entries))
        try:
            with Lanes() as lanes, ThreadPoolExecutor(count) as pool:
                window = 1 if self._source.sequential else MEMORY // PART_SIZE // count
                largest_first = sorted(entries, key=lambda entry: -entry.size)
                return tuple(pool.map(lambda entry: self._take(entry, lanes, window), largest_first))
        finally:
            self._progress.end()

    def _take(self, entry: Entry, lanes: Lanes, window: int) -> File:
        if (known := self._find_staged(entry, lanes)) is not None:
            self._progress.advance(entry.size)
            return known
        for _ in range(_ATTEMPTS):
            draft = (
                self._store.open_draft(f"{self._staging}files/{entry.path}", entry.size, CHUNK_SIZE) if self._staging else None
            )
            try:
                file = self._digest(entry, draft, lanes, window)
            except BaseException:
                if draft:
                    draft.discard()
                raise
            if file is None:
                if draft:
                    draft.discard()
                continue
            if draft:
                draft.finish()
                self._store.create(self._record(entry), file.model_dump_json(exclude_none=True).encode())
            self.fetched += entry.size
            return file
        raise Corrupt(
            f"{entry.path} in {self._source.uri} is not what the source publishes: {entry.checksum}",
            "try another mirror, or ask the model's owner",
        )

    def _digest(self, entry: Entry, draft: Draft | None, lanes: Lanes, window: int) -> File | None:
        """Read a file once, digest it, pass it on; None when it is not what is published of it."""
        part = draft.part_size if draft else CHUNK_SIZE
        ranges = list(chunk_ranges(entry.size, part)) or [(0, 0)]
        sha256 = hashlib.sha256()
        other = entry.checksum.begin(entry.size) if entry.checksum and entry.checksum.algorithm != "sha256" else None
        crc64, chunks, idle = 0, list[str](), list[bytearray]()
        told = self._progress.advance
        tasks = (partial(self._move, entry, number, *each, draft, idle) for number, each in enumerate(ranges))
        for data, digests in lanes.stream(tasks, window):
            sha256.update(data)
            if other:
                other.update(data)
            crc64 = crc64nvme(data, crc64)
            chunks += digests
            told(len(data))
            idle.append(data)
        if entry.checksum and (other or sha256).hexdigest() != entry.checksum.value:
            told(-entry.size)
            return None
        return File(
            path=entry.path, size=entry.size, sha256=sha256.hexdigest(), crc64nvme=f"{crc64:016x}", blake3=tuple(chunks)
        )

    def _move(
        self, entry: Entry, number: int, offset: int, length: int, draft: Draft | None, idle: list[bytearray]
    ) -> tuple[bytearray, list[str]]:
        """One part from the source to the draft, by way of a buffer that is idle, where there is one."""
        data = _reuse(idle, length)
        view = memoryview(data)
        for start, size in chunk_ranges(length, CHUNK_SIZE):
            read_chunk(self._source, Chunk(entry.path, offset + start, size), view[start : start + size])
        if draft:
            draft.put(number, data)
        return data, [digest_chunk(view[start : start + size]) for start, size in chunk_ranges(length, CHUNK_SIZE)]

    def _find_staged(self, entry: Entry, lanes: Lanes) -> File | None:
        """The file, when an earlier import of the same revision has staged it and it is still right."""
        if self._staging is None or not self._source.revision or (data := self._store.read(self._record(entry))) is None:
            return None
        try:
            file = File.model_validate_json(data)
        except ValueError:
            return None
        content = content_at(self._source, file, CHUNK_SIZE)
        return file if file.size == entry.size and self._store.holds(self._staged(entry), content, lanes) else None

    def _staged(self, entry: Entry) -> str:
        return f"{self._staging}files/{entry.path}"

    def _record(self, entry: Entry) -> str:
        return f"{self._staging}digests/{entry.path}.json"


def _reuse(idle: list[bytearray], length: int) -> bytearray:
    """One of the idle buffers, or a new one where that is not of this length."""
    try:
        data = idle.pop()
    except IndexError:
        return bytearray(length)
    return data if len(data) == length else bytearray(length)


def _look(source: Source, entries: Iterable[Entry]) -> tuple[ModelFacts, str | None]:
    """The facts of the model, and its licence, before its weights are fetched: from the small files and the headers alone."""
    with tempfile.TemporaryDirectory(prefix="longshore-import-") as folder:
        locations: dict[str, Path] = {}
        for number, entry in enumerate(entries):
            location = locations[entry.path] = Path(folder) / f"{number}{Path(entry.path).suffix}"
            with open(location, "wb") as file:
                wanted = entry.path.endswith(_DESCRIPTIONS) or entry.path == _README
                if wanted and entry.size <= _LARGEST_DESCRIPTION:
                    file.write(_read(source, entry, 0, entry.size))
                elif entry.path.endswith(".safetensors"):
                    file.write(_read_header(source, entry))
                file.truncate(entry.size)  # the rest is a hole
        try:
            facts = read_facts(locations)
        except InvalidModel as error:
            raise InvalidModel(_name_paths(error.message, locations), error.hint) from error
        return facts, _read_licence(locations.get(_README))


def _name_paths(message: str, locations: dict[str, Path]) -> str:
    for path, location in locations.items():
        message = message.replace(str(location), path)
    return message


def _read_header(source: Source, entry: Entry) -> bytes:
    start = _read(source, entry, 0, min(8, entry.size))
    length = min(int.from_bytes(start, "little"), entry.size - len(start), 100_000_000)
    return start + _read(source, entry, len(start), length)


def _read(source: Source, entry: Entry, offset: int, length: int) -> bytes:
    data = bytearray(length)
    if length:
        read_chunk(source, Chunk(entry.path, offset, length), memoryview(data))
    return bytes(data)


def _read_licence(readme: Path | None) -> str | None:
    """The licence that a model card's front matter names."""
    text = readme.read_text(encoding="utf-8", errors="replace") if readme else ""
    if not text.startswith("---\n"):
        return None
    import yaml

    try:
        card = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return None
    licence = card.get("license") if isinstance(card, dict) else None
    return licence if isinstance(licence, str) else None
