"""Pulls as a pod's environment asks for them: through the node's cache, with the signatures that are required.

What a start from the cache does not need is not imported before it is: a second start is to take no time.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from longshore_runtime.addresses import pinned_digest
from longshore_runtime.progress import Progress
from longshore_runtime.pull.cache.settings import read_settings
from longshore_runtime.pull.mode import read_mode
from longshore_runtime.pull.patterns import read_patterns
from longshore_runtime.pull.policy import Judge, read_policy
from longshore_runtime.pull.rate import read_rate

if TYPE_CHECKING:
    from longshore_runtime.pull.cache.pulling import Cache, Request
    from longshore_runtime.pull.verdict import Verdict


class Pod:
    """One pod's pulls into its folders `targets`. Raises LongshoreError for an environment that makes no sense."""

    def __init__(self, targets: Collection[Path], progress: Progress) -> None:
        self._targets, self._policy = tuple(targets), read_policy()
        # The cache's initializer may be another user than the launcher, who could not go on with what it leaves.
        self._overlap = read_mode(progress) and read_settings() is None
        self._max_rate = read_rate()
        self._cache = self._open_cache(progress)

    def _open_cache(self, progress: Progress) -> Cache | None:
        settings = read_settings()
        if settings is None:
            return None
        from longshore_runtime.pull.cache.pulling import Bypassed, Cache

        try:
            return Cache(settings, self._targets)
        except Bypassed as error:
            progress.say(f"not through the cache: {error}")
            return None

    def pull(self, uri: str, target: Path, progress: Progress) -> Verdict:
        """Bring the tree at `uri` into `target`; see `engine.pull`."""
        others = tuple(other for other in self._targets if other != target)
        if self._cache is not None and (digest := self._find_digest(uri)):
            from longshore_runtime.pull.cache.links import unlink_tree
            from longshore_runtime.pull.cache.pulling import Bypassed

            try:
                return self._cache.pull(self._request(uri, digest, target, others, progress))
            except Bypassed as error:
                progress.say(f"not through the cache: {error}")
                unlink_tree(self._cache.root, target)
        from longshore_runtime.pull.engine import pull

        judge = Judge(self._policy, uri) if self._policy else None
        approve = judge.approve if judge else None
        overlap = self._overlap and all(target in other.parents for other in others)  # the model with its adapters
        verdict = pull(uri, target, progress, None, read_patterns(), others, approve, overlap, self._max_rate)
        return judge.sign(verdict, target) if judge else verdict

    def _find_digest(self, uri: str) -> str | None:
        """The digest (hex) of the tree at an address that says or looks up which it is; others are not cached."""
        if uri.startswith("longshore://"):
            from longshore_runtime.pull.sources import open_source

            return open_source(uri).digest
        return pinned_digest(uri)

    def _request(self, uri: str, digest: str, target: Path, others: tuple[Path, ...], progress: Progress) -> Request:
        from longshore_runtime.pull.cache.pulling import Request

        judge = Judge(self._policy, uri) if self._policy else None

        def measure() -> int:
            from longshore_runtime.pull.sources import open_source
            from longshore_runtime.pull.verification import read_manifest

            source = open_source(uri)
            manifest = read_manifest(source, digest)
            if judge:
                judge.approve(source, manifest)
            return manifest.size if manifest else 0

        def fill(folder: Path) -> Verdict:
            from longshore_runtime.pull.engine import pull

            verdict = pull(uri, folder, progress, digest, max_rate=self._max_rate)
            return judge.sign(verdict, folder) if judge else verdict

        def approve(tree: Path) -> str | None:
            return judge.approve_tree(tree, digest) if judge else None

        return Request(uri, digest, target, others, progress, measure, fill, approve)
