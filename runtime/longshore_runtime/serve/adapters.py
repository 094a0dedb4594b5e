"""Adapters that come and go while the engine runs: the folders below one that the launcher looks at.

Only the launcher can have the engine load one, with the token that the two share; to everybody else the engine's server says
that there is no such path. What lies in a folder is copied first, and the copy held against the manifest: whoever writes to
the folder later changes nothing of what is served.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from longshore_runtime import paths
from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import Corrupt, EngineFailed, LongshoreError, Refused
from longshore_runtime.manifest import Manifest, parse
from longshore_runtime.names import check_model
from longshore_runtime.serve.client import Client
from longshore_runtime.serve.engines.port import AdapterChanges
from longshore_runtime.serve.state import AdapterState
from longshore_runtime.serve.verification import find_flaw

INTERVAL = 2.0
"""Seconds between two looks."""

LOAD_LIMIT = 300.0
"""Seconds that the engine gets to load one."""

KEPT = 600.0
"""Seconds for which the files of one that is gone are kept: requests that began with it may still need them."""


@dataclass(frozen=True)
class Site:
    """Where adapters appear: below `folder`, each in one of its own, for the base with the digest (hex) `base`."""

    folder: Path
    base: str


def find_adapters(folder: Path) -> dict[str, str]:
    """The names of the adapters below a folder, with their manifests' digests (hex).

    A pull writes the manifest last, so what has none is not there yet. A folder has the name that a pull gives it, with `_` for
    `/`; others are nobody's.
    """
    found: dict[str, str] = {}
    for manifest in sorted(folder.glob(f"*/{paths.MANIFEST}")):
        name = manifest.relative_to(folder).parts[0].replace("_", "/")
        with suppress(OSError, LongshoreError):
            found[check_model(name)] = digest_bytes(manifest.read_bytes())
    return found


def take_adapter(source: Path, target: Path, base: str) -> Manifest:
    """Copy an adapter of `base` to `target`, and hold the copy against its manifest, every byte.

    Raises LongshoreError for one that is damaged, of another base, or none.
    """
    data = (source / paths.MANIFEST).read_bytes()
    manifest = parse(data, f"{source}/{paths.MANIFEST}")
    if manifest.base is None or manifest.base.digest != base:
        other = f"an adapter of {manifest.base.reference} (sha256:{manifest.base.digest})" if manifest.base else "no adapter"
        raise Refused(f"it is {other}, and sha256:{base} is served", "pull one that was pushed with --base for this version")
    for file in manifest.files:
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, target / file.path)
    if flaw := find_flaw(target, manifest):
        raise Corrupt(f"it is not what was pushed: {flaw}", "pull it again")
    return manifest


class _Refusal(NamedTuple):
    """The digest (hex) of what is not served, and why."""

    digest: str
    reason: str


class AdapterWatch:
    """Has the engine load what appears at a site, and forget what disappears. `taken` are names that others answer to."""

    def __init__(
        self, site: Site, taken: Collection[str], changes: AdapterChanges, client: Client, say: Callable[[str], None]
    ) -> None:
        self._site, self._taken, self._changes, self._client, self._say = site, frozenset(taken), changes, client, say
        self._copies = Path(tempfile.mkdtemp(prefix="longshore-adapters-"))
        self._loaded: dict[str, str] = {}
        self._refused: dict[str, _Refusal] = {}
        self._old: list[tuple[float, Path]] = []
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)

    @property
    def states(self) -> tuple[AdapterState, ...]:
        """What it has had the engine load, and what it refused, by name. Another thread may ask."""
        served = [AdapterState(name, digest, late=True) for name, digest in list(self._loaded.items())]
        refused = [AdapterState(name, found.digest, True, found.reason) for name, found in list(self._refused.items())]
        return tuple(sorted(served + refused, key=lambda state: (state.name, state.refused is not None)))

    def start(self) -> None:
        """Look every few seconds from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the copies go when the engine does."""
        self._ended.set()

    def pause(self) -> None:
        """Return when nothing is being loaded, and load nothing until `resume`. Raises EngineFailed if a load does not end."""
        if not self._turn.acquire(timeout=LOAD_LIMIT):
            raise EngineFailed("an adapter is being loaded and does not come to an end", "see the engine's output")

    def resume(self) -> None:
        """Go on looking."""
        self._turn.release()

    def close(self) -> None:
        """Remove the copies."""
        self.stop()
        shutil.rmtree(self._copies, ignore_errors=True)

    def look(self) -> None:
        """One look: what is new or changed is loaded, what is gone is unloaded. What was refused is not tried again."""
        found = find_adapters(self._site.folder)
        for name in self._loaded.keys() - found.keys():
            self._unload(name)
        self._refused = {name: refusal for name, refusal in self._refused.items() if found.get(name) == refusal.digest}
        for name, digest in found.items():
            if digest == self._loaded.get(name) or name in self._refused:
                continue
            try:
                self._load(name, digest)
            except (LongshoreError, OSError) as error:
                self._refused[name] = _Refusal(digest, str(error))
                self._say(f"the adapter {name} is not served: {error}")
        self._sweep(time.monotonic())

    def _load(self, name: str, digest: str) -> None:
        if name in self._taken:
            raise Refused("something else answers to this name", "give the folder the name of another model")
        source, target = self._site.folder / name.replace("/", "_"), self._copy_of(name, digest)
        shutil.rmtree(target, ignore_errors=True)
        try:
            if take_adapter(source, target, self._site.base).digest != digest:
                shutil.rmtree(target, ignore_errors=True)
                return  # it was replaced meanwhile: the next look sees what it is now
            status, answer = self._client.ask(*self._changes.load(name, target, name in self._loaded), LOAD_LIMIT)
        except (LongshoreError, OSError):
            shutil.rmtree(target, ignore_errors=True)
            raise
        if status == 0:
            return  # the engine is busy with something else, or ending
        if status >= 400:
            shutil.rmtree(target, ignore_errors=True)
            raise Refused(f"the engine refused it: {answer[:300]}", "see the engine's output")
        before, self._loaded[name] = self._loaded.get(name), digest
        if before:
            self._discard(name, before)
        self._say(f"the adapter {name} is {'replaced' if before else 'added'}: sha256:{digest}")

    def _unload(self, name: str) -> None:
        status, answer = self._client.ask(*self._changes.unload(name), LOAD_LIMIT)
        if status == 0:
            return
        self._discard(name, self._loaded.pop(name))
        self._say(f"the adapter {name} is gone" + (f": {answer[:300]}" if status >= 400 else ""))

    def _copy_of(self, name: str, digest: str) -> Path:
        return self._copies / f"{name.replace('/', '_')}-{digest}"

    def _discard(self, name: str, digest: str) -> None:
        self._old.append((time.monotonic(), self._copy_of(name, digest)))

    def _sweep(self, now: float) -> None:
        """Remove the copies that were given up long ago, unless they are in use again."""
        used = {self._copy_of(name, digest) for name, digest in self._loaded.items()}
        over = {path for at, path in self._old if now - at > KEPT}
        self._old = [(at, path) for at, path in self._old if now - at <= KEPT]
        for path in over - used:
            shutil.rmtree(path, ignore_errors=True)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            if self._turn.acquire(timeout=INTERVAL):
                try:
                    self.look()
                finally:
                    self._turn.release()
