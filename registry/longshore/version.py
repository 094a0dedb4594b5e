"""A committed version, as a registry finds it."""

from __future__ import annotations

from dataclasses import dataclass

from longshore import layout
from longshore.records import VersionRecord


@dataclass(frozen=True)
class Version:
    """A committed version. `digest` is hex, `uri` the address of its tree, `created` UTC."""

    model: str
    version: str
    digest: str
    uri: str
    created: str
    by: str
    message: str | None = None

    @property
    def reference(self) -> str:
        """`model:version`."""
        return f"{self.model}:{self.version}"


def make_version(root: str, model: str, label: str, record: VersionRecord) -> Version:
    """The version that `record` commits in the registry at `root`."""
    uri = f"{root}/{layout.tree_folder(model, record.digest)}".rstrip("/")
    return Version(model, label, record.digest, uri, record.created, record.by, record.message)
