"""`pvc://CLAIM/PATH`: a claim that is mounted where KServe mounts the source of a copy.

KServe mounts such an address by itself wherever a pod only reads it; this serves a job that copies from one claim
into another place.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError, NotFound
from longshore_runtime.pull.sources.file import FileSource

MOUNT = Path("/mnt/pvc")
"""Where a claim lies: `/mnt/pvc/CLAIM` if there is such a folder, otherwise `/mnt/pvc` is the claim."""


class PvcSource(FileSource):
    """Reads a folder of a mounted claim."""

    def __init__(self, uri: str) -> None:
        claim, _, path = unquote(uri.removeprefix("pvc://")).partition("/")
        segments = path.strip("/").split("/") if path.strip("/") else []
        if not claim or "@" in claim or any(segment in ("", ".", "..") for segment in [claim, *segments]) or "\0" in path:
            raise LongshoreError(f"{redact(uri)} is not the address of a claim", "write pvc://CLAIM/PATH")
        if not MOUNT.is_dir():
            raise NotFound(f"the claim of {uri} is not mounted here", f"mount it at {MOUNT}, or let KServe mount it by itself")
        root = MOUNT / claim if (MOUNT / claim).is_dir() else MOUNT
        super().__init__(root.joinpath(*segments).as_uri())
        self.uri = uri
