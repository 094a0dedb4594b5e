"""What a command is pointed at: a version of the registry, a folder, or an address that can be pulled from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from longshore.registry import Registry
from longshore.version import Version
from longshore_runtime.addresses import redact


@dataclass(frozen=True)
class Target:
    """The tree at `uri`, which must have the manifest `digest` (hex) where one is known; `name` and `title` are for people.

    `version` and the `registry` that has it are there when a reference was given.
    """

    uri: str
    name: str
    title: str
    digest: str | None = None
    version: Version | None = None
    registry: Registry | None = None


def find_target(text: str, registry: str | None) -> Target:
    """What `text` names. Raises LongshoreError when a reference names nothing."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "longshore":
        last = urlsplit(text).path.rstrip("/").rpartition("/")[2] or urlsplit(text).netloc
        return Target(text, last.partition(":")[0].partition("@")[0], redact(text))
    if not separator and Path(text).is_dir():
        folder = Path(text).resolve()
        return Target(folder.as_uri(), folder.name, text)
    if separator:  # as it is written for a pod, whose environment names the registry
        text = ":".join(rest.rsplit("/", 1)) if "@" not in rest else rest
    opened = Registry(registry)
    version = opened.resolve(text)
    return Target(version.uri, version.model, version.reference, version.digest, version, opened)
