"""LoRA adapters: pinned to a version of their base, which stays as long as they do."""

from __future__ import annotations

import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longshore import Registry, deletion, guards, pushing
from longshore.dependents import list_dependents
from longshore_runtime.errors import Corrupt, LongshoreError, NotFound, Refused
from longshore_runtime.manifest import Serving
from support.hubs import FakeHuggingFace, model_of
from support.models import make_adapter, make_model


@pytest.fixture
def registry(root: str, model: Path) -> Registry:
    """A registry that holds llama:1."""
    registry = Registry(root, identity="ana")
    registry.push(model, "llama:1", alias="prod", serving=Serving(arguments=("--max-model-len=64", "--seed=1"), gpus=2))
    return registry


@pytest.fixture
def local(tmp_path: Path, model: Path) -> Registry:
    registry = Registry((tmp_path / "local").as_uri(), identity="ana")
    registry.push(model, "llama:1")
    return registry


@pytest.fixture
def adapter(tmp_path: Path, model: Path) -> Path:
    return make_adapter(tmp_path / "adapter", model)


def collect(registry: Registry) -> list[str]:
    """Run a collection without grace; the digests of the trees that it removed."""
    time.sleep(0.01)
    collector, found = registry.find_garbage(grace=0)
    return [garbage.name for garbage in found if registry.collect(collector, garbage) and garbage.kind == "tree"]


def test_an_adapter_is_pinned_to_its_base_and_keeps_it(registry: Registry, adapter: Path) -> None:
    base = registry.resolve("llama:1")
    pushed = registry.push(adapter, "sql", base="llama@prod", serving=Serving(arguments=("--max-model-len=32",)))
    assert pushed.version.reference == "sql:1"
    manifest = registry.manifest(pushed.version)
    assert manifest.base
    assert (manifest.base.reference, manifest.base.digest) == ("llama:1", base.digest)
    assert (manifest.model.adapter_rank, manifest.model.base_model) == (8, "org/base")
    served = registry.compose("sql:1")
    assert (served.version, served.base, served.adapters) == (pushed.version, base, (pushed.version,))
    assert served.serving == Serving(arguments=("--seed=1", "--max-model-len=32"), gpus=2)
    assert served.manifest == registry.manifest(base)

    registry.promote("llama", "prod", registry.push(make_model(adapter.parent / "next", seed=9), "llama").version.version)
    with pytest.raises(Refused, match=r"llama:1 is needed by sql:1; delete that first: longshore delete sql:1"):
        registry.delete("llama:1")
    assert collect(registry) == []
    registry.delete("sql:1")
    registry.delete("llama:1")
    with pytest.raises(Refused, match=r"llama:1, .* is deleted; bring it back: longshore undelete llama:1"):
        registry.undelete("sql:1")
    registry.undelete("llama:1")
    registry.undelete("sql:1")
    with pytest.raises(Refused, match=r"needed by sql:1"):
        registry.delete(f"llama@sha256:{base.digest}")
    registry.delete("sql:1")
    registry.delete("llama:1")
    assert set(collect(registry)) == {base.digest, pushed.version.digest}
    assert not list(registry._store.list_keys("llama/dependents/"))


def test_several_adapters_go_with_one_base(local: Registry, adapter: Path, model: Path, tmp_path: Path) -> None:
    local.push(adapter, "team/sql:1", base="llama:1", alias="prod")
    local.push(make_adapter(tmp_path / "other", model, seed=1), "chat:7", base="llama")
    local.push(adapter, "team/sql:2", base=f"llama@sha256:{local.resolve('llama:1').digest}", message="the same")
    local.push(make_model(tmp_path / "next", seed=9), "llama:2")
    served = local.compose("llama:1", ["team/sql@prod", "chat:7"])
    assert [version.reference for version in served.adapters] == ["team/sql:1", "chat:7"]
    assert served.version == served.base == local.resolve("llama:1")
    together = local.compose("chat:7", ["team/sql:1"])
    assert [version.reference for version in together.adapters] == ["chat:7", "team/sql:1"]
    with pytest.raises(Refused, match=r"llama:1 is needed by chat:7, team/sql:1, team/sql:2"):
        local.delete("llama:1")
    for wanted, message in (
        (("llama:2", ["chat:7"]), "chat:7 is an adapter of llama:1, not of llama:2"),
        (("llama:1", ["llama:2"]), "llama:2 is no adapter; push it as one: --base llama:1"),
        (("llama:1", ["team/sql:1", "team/sql:2"]), "team/sql:1 and team/sql:2 would both answer as team/sql"),
    ):
        with pytest.raises(LongshoreError, match=message):
            local.compose(*wanted)


def test_an_adapter_without_a_fitting_base_is_refused(local: Registry, adapter: Path, model: Path, tmp_path: Path) -> None:
    local.push(adapter, "sql:1", base="llama:1")
    local.push(make_model(tmp_path / "next", seed=9), "llama:2")
    for base, target, message in (
        (
            None,
            "other",
            r"adapter is an adapter, and nothing says which version it is for \(its configuration says org/base\); ",
        ),
        ("nothing:1", "other", "has no model nothing|nothing has no version 1"),
        ("sql:1", "other", r"sql:1 is itself an adapter of llama:1; name a whole model: --base MODEL:VERSION"),
        ("llama:1", "llama:3", r"an adapter of llama:1 cannot be a version of llama too"),
        ("llama", "other", r"llama names a model, not a version; say which: llama:2"),
    ):
        with pytest.raises(LongshoreError, match=message):
            local.push(adapter, target, base=base)
    with pytest.raises(Refused, match="is no adapter: it needs no base"):
        local.push(model, "whole", base="llama:1")
    assert (list(local.models()), local.labels("llama")) == (["llama", "sql"], ["1", "2"])


def test_an_adapter_comes_from_a_hub_and_goes_to_another_registry(
    registry: Registry, adapter: Path, huggingface: FakeHuggingFace, tmp_path: Path
) -> None:
    huggingface.models["org/sql"] = model_of({path.name: path.read_bytes() for path in adapter.iterdir()})
    with pytest.raises(Refused, match="hf://org/sql is an adapter, and nothing says"):
        registry.push("hf://org/sql", "sql:1")
    version = registry.push("hf://org/sql", "sql:1", base="llama:1").version
    target = Registry((tmp_path / "target").as_uri(), identity="ben")
    with pytest.raises(Refused, match=r"llama:1 with sha256:\w+, .* is not in file.*; copy it here: longshore copy llama:1"):
        target.push(version.uri, "sql:1")
    assert registry.copy("sql:1", target).version.digest == version.digest
    assert target.verify("llama:1") == target.verify("sql:1") == []
    assert target.compose("sql:1").base.digest == registry.resolve("llama:1").digest
    with pytest.raises(Refused, match="needed by sql:1"):
        target.delete("llama:1")
    imported = target.push(version.uri, "again:1").version
    assert target.manifest(imported).base == registry.manifest(version).base
    assert not registry.copy("sql:1", target).created


def test_a_base_that_is_not_what_it_was_is_not_served(local: Registry, adapter: Path, tmp_path: Path) -> None:
    local.push(adapter, "sql:1", base="llama:1")
    shutil.rmtree(tmp_path / "local/llama/versions")
    with pytest.raises(Corrupt, match=r"sql:1 needs llama:1 with sha256:\w+, which is not in file"):
        local.compose("sql:1")


@pytest.mark.parametrize("moment", ["before the word", "after the word", "after the commit"])
def test_of_a_deletion_and_a_push_of_an_adapter_one_prevails(
    local: Registry, adapter: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion of the base goes through its looks while the push stands still at a certain moment."""
    other, refused = Registry(local.uri, identity="ben"), []

    def delete_base() -> None:
        try:
            other.delete("llama:1")
        except Refused as refusal:
            refused.append(str(refusal))

    add, commit = pushing.add_dependent, pushing.Pusher._commit

    def add_late(*arguments: object) -> None:
        if moment == "before the word":
            delete_base()
        add(*arguments)  # type: ignore[arg-type]
        if moment == "after the word":
            delete_base()

    def commit_late(*arguments: object) -> object:
        done = commit(*arguments)  # type: ignore[arg-type]
        if moment == "after the commit":
            delete_base()
        return done

    monkeypatch.setattr(pushing, "add_dependent", add_late)
    monkeypatch.setattr(pushing.Pusher, "_commit", commit_late)
    if moment == "before the word":
        with pytest.raises(Refused, match="is deleted"):
            local.push(adapter, "sql:1", base="llama:1")
        assert (refused, local.labels("llama")) == ([], [])
        assert collect(local)
        return
    local.push(adapter, "sql:1", base="llama:1")
    why = "sql; it is being pushed: wait" if moment == "after the word" else "sql:1; delete that first"
    assert [why in words for words in refused] == [True]
    assert local.compose("sql:1")


def test_a_deletion_that_an_adapter_overtakes_is_taken_back(
    local: Registry, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = deletion.change

    def push_just_before(*arguments: object, **keywords: object) -> bool:
        if not keywords["restore"]:
            Registry(local.uri).push(adapter, "sql:1", base="llama:1")
        return change(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(deletion, "change", push_just_before)
    with pytest.raises(Refused, match="needed by sql:1"):
        local.delete("llama:1")
    assert local.resolve("llama:1")


def test_a_push_that_was_killed_keeps_its_base_for_an_hour(local: Registry, adapter: Path, tmp_path: Path) -> None:
    digest = local.push(adapter, "sql:1", base="llama:1").version.digest
    local.delete("sql:1")
    flight = guards.Flight(local._store, "sql", digest)
    with pytest.raises(Refused, match="sql; it is being pushed: wait"):
        local.delete("llama:1")
    marks = list((tmp_path / "local/sql/guards").rglob("push-*"))
    for mark in marks:
        moment = time.time() - guards.LIFE - 1
        os.utime(mark, (moment, moment))
    local.delete("llama:1")
    with pytest.raises(LongshoreError, match="a gc has given it up"):
        flight.confirm()


@pytest.mark.parametrize("root", ["file", "versitygw"], indirect=True)
def test_pushes_of_adapters_and_deletions_of_their_base_never_leave_one_without(root: str, tmp_path: Path, model: Path) -> None:
    first = Registry(root)
    base = first.push(model, "llama:1").version
    adapters = [make_adapter(tmp_path / f"a{seed}", model, seed=seed) for seed in range(2)]

    end = time.monotonic() + 60

    def push(name: str, adapter: Path) -> int:
        registry, done = Registry(root), 0
        while done < 3 and time.monotonic() < end:
            try:
                version = registry.push(adapter, name, base="llama:1").version
            except (Refused, NotFound):
                continue
            registry.delete(version.reference)
            done += 1
        return done

    def delete_and_restore() -> int:
        registry, done = Registry(root), 0
        while not all(pusher.done() for pusher in pushers) and time.monotonic() < end:
            try:
                registry.delete("llama:1")
                needed = [name for name in list_dependents(registry._store, "llama", base.digest) if ":" in name]
                assert needed == [], "an adapter was committed whose base was deleted"
                done += 1
            except (Refused, NotFound):
                pass
            registry.undelete("llama:1")
            time.sleep(random.random() / 10)
        return done

    with ThreadPoolExecutor(3) as pool:
        pushers = [pool.submit(push, name, adapter) for name, adapter in zip("ab", adapters, strict=True)]
        deletions = pool.submit(delete_and_restore).result(90)
        assert [pusher.result(30) for pusher in pushers] == [3, 3]
    assert deletions > 0
    assert first.resolve("llama:1").digest == base.digest
