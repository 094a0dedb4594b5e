"""What a command is pointed at: a version of the registry, a folder, or an address that can be pulled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from longshore.adapters import Part
from longshore.registry import Registry
from longshore.version import Version
from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.engines import choose_engine


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


def find_parts(target: Target, adapters: Sequence[str] = ()) -> tuple[list[Part], str | None]:
    """The trees that are served together: the base, its draft and its adapters, or what is at an address alone.

    With them the name of the engine that serves them, None where no manifest tells it yet.

    Raises LongshoreError when they do not go together.
    """
    if target.version is None or target.registry is None:
        if adapters:
            raise LongshoreError(
                f"{target.title} is no version, so it has no adapters", "push it, then its adapters with --base"
            )
        return [Part(target.name, target.uri, target.digest)], None
    found = target.registry.compose(target.version, adapters)
    return list(found.parts), choose_engine(found.serving, found.manifest.model)


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
