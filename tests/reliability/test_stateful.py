"""The registry against a dictionary: whatever is done in whatever order, both tell the same.

A few runs are part of every test run; `make test-reliability` has hundreds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from longshore import Registry
from longshore_runtime.errors import LongshoreError, NotFound, Refused
from support.models import make_model

FULL = os.environ.get("LONGSHORE_RELIABILITY") == "full"

labels = st.sampled_from(["1", "2", "3", "v1"])
contents = st.integers(0, 2)
aliases = st.sampled_from(["prod", "canary"])


@dataclass
class Alias:
    """The versions to go back to, newest last, after where it is now; every version that it has pointed to."""

    current: str
    stack: list[str] = field(default_factory=list)
    moves: list[tuple[str, list[str]]] = field(default_factory=list)
    protected: bool = False

    def move(self, version: str, stack: list[str]) -> None:
        self.moves.append((self.current, self.stack))
        self.current, self.stack = version, stack


class RegistryMachine(RuleBasedStateMachine):
    """`versions` maps labels to contents, `deleted` to whether a collection has been since."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="longshore-stateful-"))
        self.models = [make_model(self.folder / f"{seed}", seed=seed, shards=1, elements=64) for seed in range(3)]
        self.registry = Registry((self.folder / "registry").as_uri(), identity="ana")
        self.other = Registry((self.folder / "other").as_uri(), identity="ben")
        self.versions: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.lost: set[str] = set()
        self.aliases: dict[str, Alias] = {}
        self.copied: dict[str, int] = {}

    def live(self) -> dict[str, int]:
        return {label: content for label, content in self.versions.items() if label not in self.deleted}

    @rule(label=labels, content=contents)
    def push(self, label: str, content: int) -> None:
        if label in self.deleted:
            with pytest.raises(NotFound):
                self.registry.push(self.models[content], f"m:{label}")
        elif self.versions.get(label, content) != content:
            with pytest.raises(Refused):
                self.registry.push(self.models[content], f"m:{label}")
        else:
            pushed = self.registry.push(self.models[content], f"m:{label}")
            assert pushed.created == (label not in self.versions)
            self.versions[label] = content

    @rule(content=contents)
    def push_next(self, content: int) -> None:
        newest = max((int(label) for label in self.versions if label.isdecimal()), default=0)
        same = self.live().get(str(newest)) == content
        expected = str(newest if same else newest + 1)
        assert self.registry.push(self.models[content], "m").version.version == expected
        self.versions[expected] = content

    @rule(alias=aliases, label=labels, expected=st.none() | labels, confirmed=st.booleans())
    def promote(self, alias: str, label: str, expected: str | None, confirmed: bool) -> None:
        known = self.aliases.get(alias)
        there = known is not None and known.current == label
        allowed = label in self.live() and (
            there
            or (expected in (None, known.current if known else None) and not (known and known.protected and not confirmed))
        )
        if not allowed:
            with pytest.raises(LongshoreError):
                self.registry.promote("m", alias, label, expected=expected, confirmed=confirmed)
            return
        assert self.registry.promote("m", alias, label, expected=expected, confirmed=confirmed).version == label
        if known is None:
            self.aliases[alias] = Alias(label)
        elif not there:
            known.move(label, [*known.stack, known.current])

    @rule(alias=aliases, confirmed=st.booleans())
    def rollback(self, alias: str, confirmed: bool) -> None:
        known = self.aliases.get(alias)
        if not known or not known.stack or (known.protected and not confirmed) or known.stack[-1] in self.deleted:
            with pytest.raises(LongshoreError):
                self.registry.rollback("m", alias, confirmed=confirmed)
            return
        assert self.registry.rollback("m", alias, confirmed=confirmed).version == known.stack[-1]
        known.move(known.stack[-1], known.stack[:-1])

    @rule(alias=aliases, label=labels)
    def rollback_to(self, alias: str, label: str) -> None:
        known = self.aliases.get(alias)
        past = [stack for version, stack in known.moves if version == label] if known else []
        if known and known.current == label:
            assert self.registry.rollback("m", alias, to=label).version == label
        elif not known or not past or known.protected or label in self.deleted:
            with pytest.raises(LongshoreError):
                self.registry.rollback("m", alias, to=label)
        else:
            assert self.registry.rollback("m", alias, to=label).version == label
            known.move(label, past[-1])

    @rule(alias=aliases, protected=st.booleans())
    def protect(self, alias: str, protected: bool) -> None:
        if known := self.aliases.get(alias):
            assert self.registry.protect("m", alias, protected=protected, confirmed=True).protected == protected
            known.protected = protected

    @rule(label=labels)
    def delete(self, label: str) -> None:
        if label not in self.live() or label in {known.current for known in self.aliases.values()}:
            with pytest.raises(LongshoreError):
                self.registry.delete(f"m:{label}")
        else:
            self.registry.delete(f"m:{label}")
            self.deleted.add(label)

    @rule(label=labels)
    def undelete(self, label: str) -> None:
        needed = set(self.live().values())
        if label not in self.versions or (label in self.lost and self.versions[label] not in needed):
            with pytest.raises(LongshoreError):
                self.registry.undelete(f"m:{label}")
        else:
            self.registry.undelete(f"m:{label}")
            self.deleted.discard(label)
            self.lost.discard(label)

    @rule(grace=st.sampled_from([0.0, 3600.0]))
    def collect(self, grace: float) -> None:
        collector, found = self.registry.find_garbage(grace=grace)
        gone = sum(self.registry.collect(collector, garbage) for garbage in found)
        needed = set(self.live().values())
        removed = {self.versions[label] for label in self.deleted - self.lost} - needed if grace == 0 else set()
        assert gone >= len(removed)
        if grace == 0:
            self.lost |= {label for label in self.deleted if self.versions[label] not in needed}
            assert len(list(self.registry._store.list_folders("m/trees/"))) == len(needed)

    @rule(label=labels)
    def copy(self, label: str) -> None:
        if label not in self.live() or self.copied.get(label, self.versions[label]) != self.versions[label]:
            with pytest.raises(LongshoreError):
                self.registry.copy(f"m:{label}", self.other)
        else:
            created = self.registry.copy(f"m:{label}", self.other).created
            assert created == (label not in self.copied)
            self.copied[label] = self.versions[label]

    @invariant()
    def both_tell_the_same(self) -> None:
        assert self.registry.labels("m") == sorted(self.live())
        assert self.registry.deleted("m") == sorted(self.deleted)
        assert self.other.labels("m") == sorted(self.copied)
        found = self.registry.aliases("m")
        assert {alias: (move.version, move.protected) for alias, move in found.items()} == {
            alias: (known.current, known.protected) for alias, known in self.aliases.items()
        }
        digests = {label: self.registry.resolve(f"m:{label}").digest for label in self.live()}
        same = {(a, b) for a in digests for b in digests if digests[a] == digests[b]}
        assert same == {(a, b) for a in digests for b in digests if self.versions[a] == self.versions[b]}
        for label in digests:
            assert self.registry.verify(f"m:{label}") == []

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=300 if FULL else 12,
    stateful_step_count=40 if FULL else 25,
    suppress_health_check=list(HealthCheck),
)
TestRegistryMachine.pytestmark = [pytest.mark.timeout(3600 if FULL else 300)]
