"""A version in another registry: the same bytes, the same digest, with all that belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.errors import Corrupt, NotFound, Refused
from support.models import flip_byte, make_model
from support.servers import S3Server


@pytest.fixture
def source(root: str, model: Path) -> Registry:
    """A registry that holds m:1, signed, to which prod points."""
    registry = Registry(root, identity="ana")
    version = registry.push(model, "m:1", alias="prod", message="first").version
    registry._store.create(f"m/signatures/{version.digest}/key.sigstore.json", b"{}")
    return registry


@pytest.fixture
def target(tmp_path: Path) -> Registry:
    return Registry((tmp_path / "target").as_uri(), identity="ben")


def test_a_copy_has_the_digest_the_signatures_and_the_events(source: Registry, target: Registry) -> None:
    version = source.resolve("m@prod")
    copied = source.copy("m@prod", target, aliases=["staging", "prod"])
    assert (copied.created, copied.sent) == (True, copied.size)
    assert target.resolve("m@staging").digest == version.digest
    assert (copied.version.by, copied.version.message) == ("ben", "first")
    assert target.verify("m:1") == []
    assert target._store.read(f"m/signatures/{version.digest}/key.sigstore.json") == b"{}"
    events = list(target.log("m"))
    assert [(event.verb, event.by) for event in events[-3:]] == [("copy", "ben"), ("alias", "ana"), ("push", "ana")]
    assert events[-3].note == f"from {source.uri}"
    again = source.copy("m:1", target, aliases=["prod"])
    assert (again.created, again.sent, len(list(target.log("m")))) == (False, 0, len(events))


def test_a_copy_goes_back(source: Registry, target: Registry, model: Path, tmp_path: Path) -> None:
    target.push(make_model(tmp_path / "other", seed=5), "other:7")
    assert target.copy("other:7", source).created
    assert source.verify("other:7") == []


def test_a_copy_that_was_cut_short_is_resumed(source: Registry, target: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    put, left = target._store.put_file, iter(range(2))

    def put_two(*arguments: object) -> object:
        if next(left, None) is None:
            raise ConnectionAbortedError
        return put(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(target._store, "put_file", put_two)
        with pytest.raises(ConnectionAbortedError):
            source.copy("m:1", target)
    assert target.labels("m") == []
    copied = source.copy("m:1", target)
    assert 0 < copied.sent < copied.size
    assert target.verify("m:1") == []


def test_other_content_or_a_deletion_there_is_refused(source: Registry, target: Registry, tmp_path: Path) -> None:
    target.push(make_model(tmp_path / "other", seed=5), "m:1")
    with pytest.raises(Refused, match="has m:1 with other content"):
        source.copy("m:1", target)
    target.delete("m:1")
    with pytest.raises(NotFound, match="m:1 was deleted by ben"):
        source.copy("m:1", target)


def test_damaged_bytes_are_not_copied(
    versitygw: S3Server, monkeypatch: pytest.MonkeyPatch, target: Registry, model: Path
) -> None:
    use_server(versitygw, monkeypatch)
    versitygw.make_bucket("copydamaged")
    source = Registry("s3://copydamaged/r")
    source.push(model, "m:1")
    assert versitygw.folder
    (shard,) = (versitygw.folder / "copydamaged").glob("r/m/trees/*/model-00001-of-00002.safetensors")
    flip_byte(shard)
    with pytest.raises(Corrupt, match=r"model-00001-of-00002\.safetensors"):
        source.copy("m:1", target)
    assert target.labels("m") == []
