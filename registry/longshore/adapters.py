"""What is served together: a version, the adapters that add to it, and the draft that guesses for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longshore.version import Version
from longshore_runtime import paths
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.manifest import Base, Manifest, ModelFacts, Serving
from longshore_runtime.progress import Progress
from longshore_runtime.pull.engine import pull
from longshore_runtime.pull.verdict import Verdict
from longshore_runtime.serve.facts import is_adapter
from longshore_runtime.serve.options import flatten, group_options, merge_options

Role = Literal["base", "draft", "adapter"]


@dataclass(frozen=True)
class Part:
    """A tree that is served under `name`, of which the manifest must have the `digest` (hex) where one is known.

    A draft is not served itself: its name says what it is.
    """

    name: str
    uri: str
    digest: str | None = None
    role: Role = "base"

    @property
    def place(self) -> str:
        """The folder that is its own, in the base's; the base's is the whole."""
        return {"base": "", "draft": paths.DRAFT, "adapter": paths.adapter_folder(self.name)}[self.role]


@dataclass(frozen=True)
class Composition:
    """What is served together: `base` with `manifest`, and its `adapters`. `version` was asked for: the base or an adapter.

    `serving` is how: as the base wishes, and over that as the adapters do, in their order. `draft` guesses for the base, with
    weights of `draft_bytes`.
    """

    version: Version
    base: Version
    manifest: Manifest
    adapters: tuple[Version, ...]
    serving: Serving
    draft: Version | None = None
    draft_bytes: int = 0

    @property
    def versions(self) -> tuple[Version, ...]:
        """The base, then its draft, where it has one, then the adapters."""
        return (self.base, *([self.draft] if self.draft else []), *self.adapters)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The same as trees."""
        roles: list[Role] = ["base"]
        roles += ["draft"] if self.draft else []
        roles += ["adapter"] * len(self.adapters)
        named = zip(self.versions, roles, strict=True)
        return tuple(Part(version.model, version.uri, version.digest, role) for version, role in named)


def pull_together(parts: Sequence[Part], folder: Path, progress: Progress, max_rate: int | None = None) -> list[Verdict]:
    """Bring a base into a folder, and each of its other parts into the one there that is its own; every byte verified.

    `max_rate` are the bytes per second that are taken at most.
    """
    places = [folder / part.place for part in parts]
    return [
        pull(part.uri, place, progress, part.digest, others=[other for other in places if other != place], max_rate=max_rate)
        for part, place in zip(parts, places, strict=True)
    ]


def require_base(files: Collection[str], facts: ModelFacts, base: Base | None, name: str) -> None:
    """Raise Refused, before anything is sent, for an adapter that names no base, and for a base of what is no adapter."""
    if is_adapter(files) and base is None:
        configured = f" (its configuration says {facts.base_model})" if facts.base_model else ""
        raise Refused(
            f"{name} is an adapter, and nothing says which version it is for{configured}",
            "name the version of its base in this registry: --base MODEL:VERSION",
        )
    if base is not None and not is_adapter(files):
        raise Refused(f"{name} is no adapter: it needs no base", "leave out --base, and base in the serving file")


def pin(base: Version, manifest: Manifest, adapter: str) -> Base:
    """The base of a version of the model `adapter`. Raises Refused for one that cannot be a base."""
    if manifest.base is not None or is_adapter([file.path for file in manifest.files]):
        own = f" of {manifest.base.reference}" if manifest.base else ""
        raise Refused(f"{base.reference} is itself an adapter{own}", "name a whole model: --base MODEL:VERSION")
    if base.model == adapter:
        raise Refused(
            f"an adapter of {base.reference} cannot be a version of {adapter} too: both answer by their model's name",
            f"give it a name of its own, such as {adapter}-tuned",
        )
    return Base(model=base.model, version=base.version, digest=base.digest)


def layer(base: Serving, adapters: Collection[Serving]) -> Serving:
    """How a base is served with its adapters: what an adapter wishes replaces what the base does."""
    found = base
    for wish in adapters:
        options = merge_options(group_options(found.arguments), group_options(wish.arguments))
        gpus = found.gpus if wish.gpus is None else wish.gpus
        found = found.model_copy(
            update={"arguments": tuple(flatten(options)), "gpus": gpus, "scaling": wish.scaling or found.scaling}
        )
    return found


def check_together(base: Version, adapters: Collection[tuple[Version, Manifest]]) -> None:
    """Raise LongshoreError unless all the adapters are of this base, each under a name of its own."""
    names: dict[str, str] = {}
    for adapter, manifest in adapters:
        if manifest.base is None:
            raise LongshoreError(f"{adapter.reference} is no adapter", f"push it as one: --base {base.reference}")
        if (manifest.base.model, manifest.base.digest) != (base.model, base.digest):
            raise LongshoreError(
                f"{adapter.reference} is an adapter of {manifest.base.reference}, not of {base.reference}",
                f"serve it with its own base, or push it with --base {base.reference}",
            )
        if other := names.get(adapter.model):
            raise LongshoreError(
                f"{other} and {adapter.reference} would both answer as {adapter.model}", "serve them apart, or one of them"
            )
        names[adapter.model] = adapter.reference
