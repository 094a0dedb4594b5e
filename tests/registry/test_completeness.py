"""Trees of which the store lists every file, and trees of which it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore import Registry
from longshore.completeness import find_missing, require_complete
from longshore.storage.port import Stored
from longshore_runtime.errors import Interrupted, NotFound


@pytest.fixture
def registry(root: str, model: Path) -> Registry:
    registry = Registry(root)
    registry.push(model, "m:1")
    return registry


def test_what_is_missing_or_of_another_size_is_named(registry: Registry) -> None:
    version = registry.resolve("m:1")
    manifest = registry.manifest(version)
    assert find_missing(registry._store, "m", manifest) is None
    key = next(stored.key for stored in registry._store.list_tree("") if stored.key.endswith("tokenizer.json"))
    registry._store.delete([key])
    assert find_missing(registry._store, "m", manifest) == "tokenizer.json"
    registry._store.create(key, b"shorter")
    assert find_missing(registry._store, "m", manifest) == "tokenizer.json"


def test_a_file_that_is_away_for_a_moment_is_waited_for(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, list_tree, asked = registry.manifest(registry.resolve("m:1")), registry._store.list_tree, list[str]()

    def blink(folder: str) -> Iterator[Stored]:
        asked.append(folder)
        return (stored for stored in list_tree(folder) if len(asked) > 1 or not stored.key.endswith("tokenizer.json"))

    monkeypatch.setattr(registry._store, "list_tree", blink)
    require_complete(registry._store, "m", manifest)
    assert len(asked) == 2


def test_a_copy_that_lacks_a_file_is_not_committed(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Registry((tmp_path / "other").as_uri())
    list_tree = other._store.list_tree
    monkeypatch.setattr(
        other._store, "list_tree", lambda folder: (s for s in list_tree(folder) if not s.key.endswith("tokenizer.json"))
    )
    with pytest.raises(Interrupted, match=r"has not kept tokenizer\.json of m"):
        registry.copy("m:1", other)
    with pytest.raises(NotFound):
        other.resolve("m:1")
