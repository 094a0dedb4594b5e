"""`longshore://MODEL/VERSION`, on every kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime.errors import Corrupt, LongshoreError, NotFound, Refused
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source


@pytest.mark.parametrize("name", ["m", "team/m"])
def test_a_version_is_found_and_pinned(
    root: str, name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Registry(root).push(model, f"{name}:v1.2", alias="prod").version
    monkeypatch.setenv("LONGSHORE_REGISTRY", root + "/")
    verdict = engine.pull(f"longshore://{name}/v1.2", tmp_path / "t", Silent())
    assert (verdict.verified, verdict.digest, verdict.source) == ("digest", version.digest, f"longshore://{name}/v1.2")
    assert {path.name for path in model.iterdir()} == {path.name for path in (tmp_path / "t").iterdir()} - {".longshore"}
    with pytest.raises(NotFound, match=rf"{name} has no version 9 in .*; see what there is: longshore list {name}"):
        engine.pull(f"longshore://{name}/9", tmp_path / "u", Silent())


def test_a_deleted_version_is_not_pulled(root: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(root)
    registry.push(model, "m:1")
    registry.delete("m:1")
    monkeypatch.setenv("LONGSHORE_REGISTRY", root)
    with pytest.raises(NotFound, match=r"m:1 was deleted from .*; bring it back: longshore undelete m:1"):
        engine.pull("longshore://m/1", tmp_path / "t", Silent())
    registry.undelete("m:1")
    assert engine.pull("longshore://m/1", tmp_path / "t", Silent()).verified == "digest"


def test_the_record_pins_the_manifest(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "registry"
    version = Registry(root.as_uri()).push(model, "m:1").version
    manifest = root / f"m/trees/{version.digest}/.longshore/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"LlamaForCausalLM", b"LlamaForCausalLN"))
    monkeypatch.setenv("LONGSHORE_REGISTRY", root.as_uri())
    with pytest.raises(Corrupt, match=rf"expected sha256:{version.digest}"):
        engine.pull("longshore://m/1", tmp_path / "t", Silent())
    (root / "m/versions/1.json").write_text("{}")
    with pytest.raises(Corrupt, match="is not a valid record"):
        engine.pull("longshore://m/1", tmp_path / "t", Silent())


def test_an_alias_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_REGISTRY", "file:///registry")
    with pytest.raises(Refused, match="an alias may move between two starts of a pod; write longshore://MODEL/VERSION"):
        open_source("longshore://m@prod")


@pytest.mark.parametrize("address", ["m", "", "/1", "a/b/c/1", "m/", "M/1", "versions/1", "m/../1", "m/1?x", "m/1#x", "m/%31"])
def test_what_names_no_version_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_REGISTRY", "file:///registry")
    with pytest.raises(LongshoreError):
        open_source(f"longshore://{address}")


@pytest.mark.parametrize("registry", [None, "", "longshore://m/1", "https://user:hidden@host"])
def test_a_pod_without_a_registry_says_so(registry: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGSHORE_REGISTRY", raising=False)
    if registry is not None:
        monkeypatch.setenv("LONGSHORE_REGISTRY", registry)
    with pytest.raises(LongshoreError, match="longshore://m/1 needs a registry to be in; set LONGSHORE_REGISTRY") as caught:
        open_source("longshore://m/1")
    assert "hidden" not in str(caught.value)
