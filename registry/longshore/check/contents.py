"""A tree as the checks see it: names and sizes, the beginning of every file, small files whole, ranges of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longshore.check.findings import Finding
from longshore_runtime.progress import Progress
from longshore_runtime.pull.blob import SourceBlob, read_range
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.serve.safetensors import FIRST_READ

_PARALLEL = 8
_SMALL = 128 * 1024 * 1024
"""Bytes of the largest file that is read whole: tokenizers reach some 40 MB."""


class Contents:
    """The files of a tree by path. JSON that is none becomes a finding in `flaws`, and {} where it is asked for."""

    def __init__(self, source: Source, entries: Iterable[Entry], progress: Progress) -> None:
        """Reads the beginning of every file, several at a time."""
        self.uri = source.uri
        self.flaws: list[Finding] = []
        self._parsed: dict[str, Any] = {}
        sizes = {entry.path: entry.size for entry in entries}

        def read_head(path: str) -> bytes:
            length = min(FIRST_READ, sizes[path])
            head = read_range(source, path, 0, length) if length else b""
            progress.advance(length)
            return head

        progress.begin("checking", sum(min(FIRST_READ, size) for size in sizes.values()))
        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                heads = dict(zip(sizes, pool.map(read_head, sizes), strict=True))
        finally:
            progress.end()
        self.files: Mapping[str, SourceBlob] = {
            path: SourceBlob(source, path, size, heads[path]) for path, size in sorted(sizes.items())
        }

    def __contains__(self, path: str) -> bool:
        return path in self.files

    def read_text(self, path: str) -> str | None:
        """A small text file, None when there is none of this name or it is not UTF-8."""
        if path not in self.files or self.files[path].size > _SMALL:
            return None
        try:
            return self.files[path].read_all().decode()
        except UnicodeDecodeError:
            self._complain(path, "it is not UTF-8 text")
            return None

    def read_json(self, path: str) -> dict[str, Any]:
        """The JSON object in a file, {} when there is no such file or no object in it."""
        if path not in self._parsed:
            self._parsed[path] = self._parse(path)
        content: dict[str, Any] = self._parsed[path]
        return content

    def _parse(self, path: str) -> dict[str, Any]:
        if path not in self.files:
            return {}
        if self.files[path].size > _SMALL:
            self._complain(path, f"it has {self.files[path].size} bytes")
            return {}
        try:
            content = json.loads(self.files[path].read_all())
        except (ValueError, RecursionError):
            self._complain(path, "it is not valid JSON")
            return {}
        if not isinstance(content, dict):
            self._complain(path, "it does not hold a JSON object")
            return {}
        return content

    def _complain(self, path: str, detail: str) -> None:
        finding = Finding("config-invalid", path, detail)
        if finding not in self.flaws:
            self.flaws.append(finding)
