"""Holding a tree against its manifest, byte by byte, wherever it lies."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from longshore_runtime import paths
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import Corrupt, NotFound
from longshore_runtime.outline import Outline, outline
from longshore_runtime.progress import Progress
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.transfer import WORKERS, Chunk, for_each_chunk, read_chunk, split_entry, split_file

if TYPE_CHECKING:
    from longshore_runtime.manifest import Manifest


@dataclass(frozen=True)
class Finding:
    """One file that is not as the manifest says: `missing`, `extra`, or `changed`, with what was seen."""

    path: str
    problem: Literal["missing", "extra", "changed"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path} is {self.problem}" + (f" ({self.detail})" if self.detail else "")

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def read_manifest(source: Source, digest: str | None) -> Manifest | None:
    """The manifest of the tree at `source`, held against `digest` where one is expected; None when it has none."""
    data = _read_document(source, digest)
    return None if data is None else _parse(data, source)


def read_outline(source: Source, digest: str | None) -> Manifest | Outline | None:
    """The same as far as a pull goes by it."""
    data = _read_document(source, digest)
    return None if data is None else outline(data) or _parse(data, source)


def _read_document(source: Source, digest: str | None) -> bytes | None:
    data = source.read(paths.MANIFEST)
    if data is None:
        if digest is not None:
            raise NotFound(f"{source.uri} holds no committed version", "check the address with: longshore list MODEL")
        return None
    if digest is not None and digest_bytes(data) != digest:
        raise Corrupt(
            f"{paths.MANIFEST} in {source.uri} has the digest sha256:{digest_bytes(data)}, expected sha256:{digest}",
            "its bytes were changed after the push; serve another version and push this one again",
        )
    return data


def _parse(data: bytes, source: Source) -> Manifest:
    from longshore_runtime.manifest import parse  # which takes longer than all else that is imported

    return parse(data, f"{source.uri}/{paths.MANIFEST}")


def compare_listing(entries: list[Entry], manifest: Manifest | Outline) -> list[Finding]:
    """What a listing alone shows: files that are missing, of another size, or not in the manifest."""
    sizes = {entry.path: entry.size for entry in entries if not entry.path.startswith(f"{paths.METADATA}/")}
    findings: list[Finding] = []
    for file in manifest.files:
        size = sizes.pop(file.path, None)
        if size is None:
            findings.append(Finding(file.path, "missing"))
        elif size != file.size:
            findings.append(Finding(file.path, "changed", f"{size} bytes instead of {file.size}"))
    return findings + [Finding(path, "extra", f"{size} bytes") for path, size in sizes.items()]


def verify(source: Source, manifest: Manifest, progress: Progress) -> list[Finding]:
    """Read every byte of the tree at `source`; returns all that is not as `manifest` says, ordered by path."""
    findings = compare_listing(list(source.list_files()), manifest)
    skipped = {finding.path for finding in findings}
    files = [file for file in manifest.files if file.path not in skipped]
    changed: dict[str, Chunk] = {}
    lock = threading.Lock()

    def check(chunk: Chunk, buffer: memoryview) -> None:
        read_chunk(source, chunk, buffer, patient=False)
        if not chunk.matches(buffer):
            with lock:
                changed[chunk.path] = min(changed.get(chunk.path, chunk), chunk, key=lambda found: found.offset)
        progress.advance(chunk.length)

    progress.begin("verifying", sum(file.size for file in files))
    try:
        for_each_chunk((c for file in files for c in split_file(file, manifest.chunk_size)), manifest.chunk_size, check)
    finally:
        progress.end()
    findings += [Finding(c.path, "changed", f"bytes {c.offset}–{c.offset + c.length - 1}") for c in changed.values()]
    return sorted(findings, key=lambda finding: finding.path)


def verify_published(source: Source, entries: list[Entry], progress: Progress) -> list[Finding]:
    """Read every file of a source that publishes digests; returns those that differ, ordered by path."""

    def check(entry: Entry) -> Finding | None:
        if entry.checksum is None:
            return None
        hasher, buffer = entry.checksum.begin(entry.size), memoryview(bytearray(min(CHUNK_SIZE, entry.size)))
        for chunk in split_entry(entry):
            read_chunk(source, chunk, buffer[: chunk.length])
            hasher.update(buffer[: chunk.length])
            progress.advance(chunk.length)
        right = hasher.hexdigest() == entry.checksum.value
        return None if right else Finding(entry.path, "changed", f"it does not have the digest {entry.checksum}")

    from concurrent.futures import ThreadPoolExecutor

    progress.begin("verifying", sum(entry.size for entry in entries))
    try:
        with ThreadPoolExecutor(1 if source.sequential else WORKERS) as pool:
            findings = [finding for finding in pool.map(check, entries) if finding]
    finally:
        progress.end()
    return sorted(findings, key=lambda finding: finding.path)


def refuse(findings: list[Finding], where: str) -> Corrupt:
    """The error that names all findings (the first few in full)."""
    return Corrupt(
        f"{where} is not what was pushed: {_name(findings)}",
        "push the version's files again with --repair, or use another version",
    )


def refuse_published(findings: list[Finding], where: str) -> Corrupt:
    """The same for what nobody here has pushed."""
    return Corrupt(
        f"{where} is not what its publisher says: {_name(findings)}",
        "run the command again; if it stays so, the source or a proxy before it serves damaged bytes",
    )


def _name(findings: list[Finding]) -> str:
    named = ", ".join(str(finding) for finding in findings[:4])
    return named + (f" and {len(findings) - 4} more" if len(findings) > 4 else "")
