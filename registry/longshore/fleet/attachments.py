"""What pods get beside their model: the cache of their node, keys by which versions must be signed, a place for adapters.

The volumes belong to the InferenceService, whose pod it is; the initializer's mounts and environment to the storage container,
which therefore has a name of its own: one without the volumes must stay for services that have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kubernetes import client as k8s

from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.cache.settings import LIMIT, ROOT, parse_size
from longshore_runtime.pull.policy import DEFAULT_KEYS, KEYS, MODE

CACHE_AT = "/var/cache/longshore"
"""Where containers see the cache."""

ADAPTERS_AT = "/mnt/adapters"
"""Where the launcher looks for adapters that come while it runs."""

COMPILED_AT = "/var/cache/engine"
"""Where the engine keeps what it compiles: a volume of the runtime's, which is gone with the pod, or a claim in its place."""

_CACHE, _KEYS, _ADAPTERS, _COMPILED = "longshore-cache", "longshore-keys", "longshore-adapters", "longshore-compiled"
_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_CLAIM = re.compile(rf"pvc://({_NAME})/?")


@dataclass(frozen=True)
class Attachments:
    """`cache` is a folder of the nodes or `pvc://CLAIM`, `cache_size` its limit; `keys` is the name of a secret.

    `adapters` is the `pvc://CLAIM` on which adapters may appear, `compiled` that on which compiled code is kept.
    """

    cache: str | None = None
    cache_size: str | None = None
    keys: str | None = None
    adapters: str | None = None
    compiled: str | None = None

    @property
    def claim(self) -> str | None:
        """The claim that holds the cache, where one does."""
        return _find_claim(self.cache)

    @property
    def adapters_claim(self) -> str | None:
        """The claim on which adapters may appear."""
        return _find_claim(self.adapters)

    @property
    def compiled_claim(self) -> str | None:
        """The claim on which compiled code is kept."""
        return _find_claim(self.compiled)

    @property
    def suffix(self) -> str:
        """What the storage container's name ends in."""
        cache = "" if self.cache is None else "-claim" if self.claim else "-cache"
        return cache + ("-signed" if self.keys else "")

    @property
    def as_root(self) -> bool:
        """Whether the initializer is root, whose folders the kubelet makes on a node and to which nobody else writes."""
        return self.cache is not None and self.claim is None


def _find_claim(place: str | None) -> str | None:
    found = _CLAIM.fullmatch(place or "")
    return found[1] if found else None


def check_attachments(attachments: Attachments) -> None:
    """Raise LongshoreError for what no pod could be given."""
    cache = attachments.cache
    if cache is not None and attachments.claim is None and (not cache.startswith("/") or ".." in cache.split("/")):
        raise LongshoreError(
            f"{cache} is no place for a cache", "give a folder of the nodes, /var/cache/longshore, or pvc://CLAIM"
        )
    if attachments.cache_size is not None:
        if cache is None:
            raise LongshoreError("there is no cache that could have a size", "give --cache, too")
        parse_size(attachments.cache_size)
    if attachments.keys is not None and not re.fullmatch(_NAME, attachments.keys):  # an empty one, too: it would ask for none
        raise LongshoreError(f"{attachments.keys!r} is not the name of a secret", "give the secret that has the public keys")
    if attachments.adapters is not None and attachments.adapters_claim is None:
        raise LongshoreError(
            f"{attachments.adapters!r} is no place where adapters may appear", "give a claim in the namespace: pvc://CLAIM"
        )
    if attachments.compiled is not None and attachments.compiled_claim is None:
        raise LongshoreError(
            f"{attachments.compiled!r} is no place where compiled code is kept", "give a claim in the namespace: pvc://CLAIM"
        )


def pod_volumes(attachments: Attachments) -> list[Any] | None:
    """The volumes of the InferenceService's pods."""
    found = []
    if attachments.claim:
        found.append(_claimed(_CACHE, attachments.claim))
    elif attachments.cache:
        folder = k8s.V1HostPathVolumeSource(path=attachments.cache, type="DirectoryOrCreate")
        found.append(k8s.V1Volume(name=_CACHE, host_path=folder))
    if attachments.keys:
        found.append(k8s.V1Volume(name=_KEYS, secret=k8s.V1SecretVolumeSource(secret_name=attachments.keys)))
    if attachments.adapters_claim:
        found.append(_claimed(_ADAPTERS, attachments.adapters_claim))
    if attachments.compiled_claim:
        found.append(_claimed(_COMPILED, attachments.compiled_claim))
    return found or None


def _claimed(name: str, claim: str) -> Any:
    return k8s.V1Volume(name=name, persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource(claim_name=claim))


def engine_mounts(attachments: Attachments) -> list[Any] | None:
    """What the engine sees: the cache, where it writes nothing but the pods' signs of life, adapters, what it has compiled."""
    found = []
    if attachments.cache:
        found.append(k8s.V1VolumeMount(name=_CACHE, mount_path=CACHE_AT, read_only=True))
        found.append(k8s.V1VolumeMount(name=_CACHE, mount_path=f"{CACHE_AT}/leases", sub_path="leases"))
    if attachments.adapters:
        found.append(k8s.V1VolumeMount(name=_ADAPTERS, mount_path=ADAPTERS_AT, read_only=True))
    if attachments.compiled:
        found.append(k8s.V1VolumeMount(name=_COMPILED, mount_path=COMPILED_AT))
    return found or None


def launcher_arguments(attachments: Attachments) -> list[str]:
    """What the launcher is told of them."""
    return ([f"--adapters-dir={ADAPTERS_AT}"] if attachments.adapters else []) + (
        ["--keep-compiled"] if attachments.compiled else []
    )


def initializer_mounts(attachments: Attachments) -> list[Any] | None:
    """What the initializer sees."""
    found = []
    if attachments.cache:
        found.append(k8s.V1VolumeMount(name=_CACHE, mount_path=CACHE_AT))
    if attachments.keys:
        found.append(k8s.V1VolumeMount(name=_KEYS, mount_path=DEFAULT_KEYS, read_only=True))
    return found or None


def initializer_environment(attachments: Attachments) -> list[Any] | None:
    """What the initializer is told."""
    found = {}
    if attachments.cache:
        found[ROOT] = CACHE_AT
    if attachments.cache_size:
        found[LIMIT] = attachments.cache_size
    if attachments.keys:
        found |= {MODE: "require", KEYS: DEFAULT_KEYS}
    return [k8s.V1EnvVar(name=name, value=value) for name, value in found.items()] or None
