"""Whose signature a pod asks for before it fetches anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore_runtime import paths
from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from longshore_runtime.signatures import FOLDER, SUFFIX, Key, Signed, find_signer, keep_bundles, kept_bundles, read_keys

if TYPE_CHECKING:
    from longshore_runtime.manifest import Manifest
    from longshore_runtime.outline import Outline
    from longshore_runtime.pull.sources.port import Source
    from longshore_runtime.pull.verdict import Verdict

MODE, KEYS = "LONGSHORE_SIGNATURES", "LONGSHORE_KEYS"
DEFAULT_KEYS = "/etc/longshore/keys"

_MOST, _LARGEST = 64, 32 * 1024 * 1024
"""Bundles of one version that are looked at, and the bytes of the largest."""


@dataclass(frozen=True)
class Policy:
    """The keys of which one must have signed what is pulled."""

    keys: tuple[Key, ...]


def read_policy(environment: Mapping[str, str] = os.environ) -> Policy | None:
    """The policy, or None where no signature is asked for. Raises LongshoreError where it asks for one and has no keys."""
    mode = environment.get(MODE, "").strip() or "off"
    if mode not in ("off", "require"):
        raise LongshoreError(f"{MODE} is neither off nor require: {mode}", f"set {MODE}=require to ask for signatures")
    if mode == "off":
        return None
    return Policy(read_keys(Path(environment.get(KEYS, "").strip() or DEFAULT_KEYS)))


class Judge:
    """Judges one tree by a policy; `signed` is then the name of the key that vouches for it."""

    def __init__(self, policy: Policy, uri: str) -> None:
        self._policy, self._uri = policy, uri
        self.signed: str | None = None
        self._bundles: dict[str, bytes] = {}

    def approve(self, source: Source, manifest: Manifest | Outline | None) -> None:
        """Raise Refused unless the tree at `source` is signed; fetches signatures and nothing else."""
        if manifest is None:
            raise Refused(
                f"{redact(self._uri)} has no manifest that somebody could have signed",
                "push it to a registry and sign it: longshore push SOURCE MODEL:VERSION --sign KEY",
            )
        files = {file.path: file.sha256 for file in manifest.files}
        self._decide(_fetch_bundles(source.place), Signed(files, manifest.digest))

    def approve_tree(self, tree: Path, digest: str) -> str:
        """The same for a whole tree on the disk, whose manifest has the digest: by the signatures there, or at the source."""
        content: dict[str, Any] = json.loads((tree / paths.MANIFEST).read_bytes())
        signed = Signed({file["path"]: file["sha256"] for file in content["files"]}, digest)
        try:
            return self._decide(kept_bundles(tree), signed)
        except Refused:
            from longshore_runtime.pull.sources import open_source

            return self._decide(_fetch_bundles(open_source(self._uri).place), signed)

    def _decide(self, bundles: dict[str, bytes], signed: Signed) -> str:
        name, key = find_signer(bundles, signed, self._policy.keys, redact(self._uri))
        self.signed, self._bundles = key.name, {name: bundles[name]}
        return key.name

    def sign(self, verdict: Verdict, tree: Path) -> Verdict:
        """The verdict that names the key; the signature is left in the tree."""
        keep_bundles(tree, self._bundles)
        return replace(verdict, signed=self.signed)


def _fetch_bundles(place: str) -> dict[str, bytes]:
    """The signatures beside the tree at an address in a registry, and those that a pull has left in it, by name."""
    found = _read_folder(f"{place}/{FOLDER}")
    head, separator, digest = place.rpartition("/trees/")
    return found | (_read_folder(f"{head}/signatures/{digest}") if separator else {})


def _read_folder(uri: str) -> dict[str, bytes]:
    from longshore_runtime.pull.sources import open_source

    source = open_source(uri)
    try:
        entries = [entry for entry in source.list_files() if entry.path.endswith(SUFFIX) and "/" not in entry.path]
    except NotFound:
        return {}
    usable = [entry.path for entry in entries if entry.size <= _LARGEST][:_MOST]
    return {path: data for path in usable if (data := source.read(path)) is not None}
