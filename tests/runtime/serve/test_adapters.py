"""Adapters that appear and disappear while an engine runs, which here is one that remembers what it is told."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from longshore import Registry
from longshore_runtime import paths
from longshore_runtime.errors import EngineFailed, LongshoreError
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve import adapters as module
from longshore_runtime.serve.adapters import AdapterWatch, Site, find_adapters
from longshore_runtime.serve.client import Client
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.engines.vllm import VLLM
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.model import find_site
from longshore_runtime.serve.state import AdapterState
from support.engine import TestEngine
from support.models import flip_byte, make_adapter, make_model


class Told(Client):
    """A client whose engine answers with `status`, and notes what it was asked and what lay in the folder that it was shown."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], list[str]]] = []
        self.status = 200

    def ask(self, path: str, body: dict[str, Any], timeout: float) -> tuple[int, str]:
        folder = Path(str(body.get("lora_path", "/nowhere")))
        self.asked.append((path, body, sorted(file.name for file in folder.glob("*"))))
        return self.status, "the reason"


class Bench:
    """A watched folder for a base in a registry, and what came of looking at it."""

    def __init__(self, place: Path) -> None:
        self.registry, self.folder, self.base = Registry((place / "registry").as_uri()), place / "site", make_model(place / "m")
        self.folder.mkdir()
        self.registry.push(self.base, "m:1")
        self.told, self.said, self._place = Told(), list[str](), place
        changes = VLLM().adapter_changes
        assert changes
        site = Site(self.folder, self.registry.resolve("m:1").digest)
        self.watch = AdapterWatch(site, ["m", "fixed"], changes, self.told, self.said.append)

    def bring(self, name: str, *, seed: int = 0, base: str = "m:1", folder: str = "") -> Path:
        """Have an adapter at the site, as a copy of its tree."""
        made = make_adapter(self._place / f"{name}-{seed}", self.base, seed=seed)
        version = self.registry.push(made, name, base=base).version
        target = self.folder / (folder or name.replace("/", "_"))
        shutil.copytree(version.uri.removeprefix("file://"), target, dirs_exist_ok=True)
        return target

    def look(self) -> list[tuple[str, str, bool]]:
        """Look once; what the engine was asked for since: load or unload, the name, whether in place of another."""
        self.told.asked.clear()
        self.said.clear()
        self.watch.look()
        return [
            (path.removeprefix("/v1/").partition("_")[0], body["lora_name"], body.get("load_inplace", False))
            for path, body, _ in self.told.asked
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.watch.close()
    assert not made.watch._copies.exists()


def test_what_appears_is_loaded_once_and_what_disappears_unloaded(bench: Bench) -> None:
    assert bench.look() == []
    source = bench.bring("team/sql")
    assert bench.look() == [("load", "team/sql", False)]
    path, body, files = bench.told.asked[0]
    assert (path, files) == ("/v1/load_lora_adapter", ["adapter_config.json", "adapter_model.safetensors"])
    assert not Path(body["lora_path"]).is_relative_to(bench.folder), "the engine reads a copy that nobody else writes to"
    assert bench.said[0].startswith("the adapter team/sql is added: sha256:")
    flip_byte(source / "adapter_model.safetensors")
    assert bench.look() == [], "what is served is what was verified"
    bench.bring("chat")
    assert bench.look() == [("load", "chat", False)]
    shutil.rmtree(source)
    assert bench.look() == [("unload", "team/sql", False)]
    assert bench.look() == []
    bench.bring("team/sql")
    assert bench.look() == [("load", "team/sql", False)]


def test_the_same_under_two_names_is_two(bench: Bench) -> None:
    first = bench.bring("sql")
    shutil.copytree(first, bench.folder / "same")
    assert sorted(bench.look()) == [("load", "same", False), ("load", "sql", False)]
    kept = next(Path(body["lora_path"]) for _, body, _ in bench.told.asked if body["lora_name"] == "same")
    shutil.rmtree(first)
    assert bench.look() == [("unload", "sql", False)]
    bench.watch._sweep(float("inf"))
    assert (kept / "adapter_model.safetensors").exists()


def test_another_version_replaces_the_one_that_is_served(bench: Bench) -> None:
    source = bench.bring("sql")
    bench.look()
    first = bench.told.asked[0][1]["lora_path"]
    shutil.rmtree(source)
    bench.bring("sql", seed=1)
    assert bench.look() == [("load", "sql", True)]
    assert bench.told.asked[0][1]["lora_path"] != first, "by another path: what was cached for the first is not used"
    assert "is replaced" in bench.said[0]
    assert Path(first).exists(), "requests that began with it may still run"
    bench.watch._sweep(float("inf"))
    assert not Path(first).exists()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_what_is_not_what_was_pushed_never_reaches_the_engine(bench: Bench, damage: str) -> None:
    source = bench.bring("sql")
    weights = source / "adapter_model.safetensors"
    if damage == "changed":
        flip_byte(weights)
    else:
        weights.unlink()
    assert bench.look() == []
    assert bench.said[0].startswith("the adapter sql is not served: ")
    assert ("adapter_model.safetensors is changed" if damage == "changed" else "No such file") in bench.said[0]
    assert bench.look() == []
    assert bench.said == [], "it is said once"


def test_other_peoples_adapters_and_names_are_refused(bench: Bench, tmp_path: Path) -> None:
    bench.registry.push(make_model(tmp_path / "other", seed=5), "other:1")
    bench.bring("foreign", base="other:1")
    bench.bring("own", folder="fixed")
    shutil.copytree(bench.registry.resolve("m:1").uri.removeprefix("file://"), bench.folder / "whole")
    assert bench.look() == []
    said = " ".join(bench.said)
    assert "foreign is not served: it is an adapter of other:1 (sha256:" in said
    assert "fixed is not served: something else answers to this name" in said
    assert "whole is not served: it is no adapter" in said


def test_what_is_served_and_what_is_not_can_be_asked_for(bench: Bench) -> None:
    assert bench.watch.states == ()
    bench.bring("sql")
    bench.bring("own", folder="fixed")
    bench.look()
    refused, served = bench.watch.states
    assert served == AdapterState("sql", bench.registry.resolve("sql:1").digest, late=True)
    assert (refused.name, refused.digest) == ("fixed", bench.registry.resolve("own:1").digest)
    assert refused.refused == "something else answers to this name; give the folder the name of another model"
    shutil.rmtree(bench.folder / "sql")
    flip_byte(bench.bring("sql", seed=1) / "adapter_model.safetensors")
    bench.look()
    states = [(state.name, state.digest, state.refused is None) for state in bench.watch.states]
    digests = [bench.registry.resolve(f"sql:{number}").digest for number in (1, 2)]
    assert states[1:] == [("sql", digests[0], True), ("sql", digests[1], False)], "the one before goes on"
    shutil.rmtree(bench.folder / "fixed")
    shutil.rmtree(bench.folder / "sql")
    bench.look()
    assert bench.watch.states == ()


def test_only_folders_with_a_manifest_and_a_models_name_are_looked_at(bench: Bench) -> None:
    assert find_adapters(bench.folder / "absent") == {}
    source = bench.bring("sql")
    (source / paths.MANIFEST).rename(source / "later")
    (bench.folder / "file").touch()
    shutil.copytree(source, bench.folder / "Not A Name")
    assert find_adapters(bench.folder) == {}
    (source / "later").rename(source / paths.MANIFEST)
    assert list(find_adapters(bench.folder)) == ["sql"]


def test_what_the_engine_refuses_is_said_once_and_what_it_does_not_hear_is_repeated(bench: Bench) -> None:
    bench.bring("sql")
    bench.told.status = 0
    assert bench.look() == bench.look() == [("load", "sql", False)]
    assert bench.said == []
    bench.told.status = 500
    bench.look()
    assert "the adapter sql is not served: the engine refused it: the reason" in bench.said[0]
    assert bench.look() == []
    shutil.rmtree(bench.folder / "sql")
    bench.look()
    bench.told.status = 200
    bench.bring("sql")
    assert bench.look() == [("load", "sql", False)]


def test_adapters_may_appear_only_where_it_can_be_told_whose_they_are(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(LongshoreError, match="has no manifest, so nobody can tell which adapters are for it"):
        find_site(bench.folder, bench.base)
    assert find_site(None, bench.base) is None
    bench.registry.pull("m:1", tmp_path / "pulled")
    site = find_site(bench.folder, tmp_path / "pulled")
    assert site == Site(bench.folder, bench.registry.resolve("m:1").digest)
    task = Task(bench.base, "m", ModelFacts(), "127.0.0.1", 1, 5)
    with pytest.raises(LongshoreError, match="testengine takes no adapters while it runs; leave --adapters-dir out"):
        Launcher(TestEngine("well"), task, bench.said.append, site=site)


def test_while_the_engine_sleeps_nothing_is_loaded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    bench.bring("sql")
    bench.watch.pause()
    bench.watch.start()
    time.sleep(0.3)
    assert bench.told.asked == []
    monkeypatch.setattr(module, "LOAD_LIMIT", 0.01)
    with pytest.raises(EngineFailed, match="does not come to an end"):
        bench.watch.pause()
    bench.watch.resume()
    end = time.monotonic() + 60
    while not bench.told.asked:
        assert time.monotonic() < end
        time.sleep(0.01)
