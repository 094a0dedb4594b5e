"""What the environment says, read once into typed values."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """`registry` is the root URI that is used when none is named, `identity` who a record says has acted."""

    registry: str
    identity: str
    cache: Path


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings: LONGSHORE_REGISTRY, LONGSHORE_IDENTITY and the XDG base directories."""
    data = Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Settings(
        registry=environment.get("LONGSHORE_REGISTRY") or (data / "longshore" / "registry").as_uri(),
        identity=environment.get("LONGSHORE_IDENTITY") or _login(),
        cache=cache / "longshore",
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's arbitrary UID has no name
        return f"uid-{os.getuid()}"
