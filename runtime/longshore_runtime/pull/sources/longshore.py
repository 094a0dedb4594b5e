"""`longshore://MODEL/VERSION`: a version of the registry that LONGSHORE_REGISTRY names.

The version's record says which tree it is, and the manifest there must have the record's digest. An alias is
refused: it may move between two starts of a pod.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.handover import Loan
from longshore_runtime.names import check_label, check_model
from longshore_runtime.pull import sources
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.ranges import Take
from longshore_runtime.versions import VersionRecord, deletions_folder, tree_folder, version_key

REGISTRY = "LONGSHORE_REGISTRY"


class LongshoreSource(Source):
    """Reads the tree of a version where the registry keeps it."""

    def __init__(self, uri: str, environment: Mapping[str, str] = os.environ) -> None:
        self._model, self._version = parse_address(uri)
        self.uri = uri
        root = environment.get(REGISTRY, "").rstrip("/")
        if not root.startswith(("s3://", "file://")):
            raise LongshoreError(
                f"{uri} needs a registry to be in",
                f"set {REGISTRY} to s3://BUCKET/PREFIX in the environment of the initializer",
            )
        self._root = root

    @cached_property
    def _record(self) -> VersionRecord:
        key = version_key(self._model, self._version)
        data = sources.open_source(self._root).read(key)
        if data is None:
            raise NotFound(
                f"{self._model} has no version {self._version} in {redact(self._root)}",
                f"see what there is: longshore list {self._model}",
            )
        if self._is_deleted():
            reference = f"{self._model}:{self._version}"
            raise NotFound(
                f"{reference} was deleted from {redact(self._root)}", f"bring it back: longshore undelete {reference}"
            )
        return VersionRecord.parse(data, key)

    def _is_deleted(self) -> bool:
        changes = sources.open_source(f"{self._root}/{deletions_folder(self._model, self._version)}".rstrip("/"))
        try:
            return len(list(changes.list_files())) % 2 == 1
        except NotFound:  # a registry on a disk has no such folder before the first
            return False

    @property
    def place(self) -> str:
        return f"{self._root}/{tree_folder(self._model, self._record.digest)}".rstrip("/")

    @cached_property
    def _tree(self) -> Source:
        return sources.open_source(self.place)

    @property
    def digest(self) -> str:
        return self._record.digest

    def list_files(self) -> Iterable[Entry]:
        return self._tree.list_files()

    def read(self, path: str) -> bytes | None:
        return self._tree.read(path)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self._tree.read_into(path, offset, buffer)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        self._tree.read_through(path, offset, buffer, take)

    def lend(self, paths: Collection[str]) -> Loan | None:
        loan = self._tree.lend(paths)
        return loan and loan.model_copy(update={"settings": {**loan.settings, REGISTRY: self._root}})


def parse_address(uri: str) -> tuple[str, str]:
    """Model and version of `longshore://MODEL/VERSION`; raises LongshoreError for anything else."""
    model, _, version = uri.removeprefix("longshore://").rpartition("/")
    if "@" in uri:
        raise Refused(
            "longshore:// with an '@' is not the address of a version: an alias may move between two starts of a pod",
            "write longshore://MODEL/VERSION",
        )
    if not model or not version or any(sign in uri for sign in "?#%"):
        raise LongshoreError(f"{redact(uri)} is not the address of a version", "write longshore://MODEL/VERSION")
    return check_model(model), check_label(version, "version")
