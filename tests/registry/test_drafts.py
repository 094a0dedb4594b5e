"""Drafts: pinned to the version that they guess for, and kept, copied and pulled with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime.errors import Corrupt, LongshoreError, Refused
from longshore_runtime.manifest import Serving, Speculation
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest
from support.models import make_adapter, make_model

GUESSING = Serving(speculative=Speculation(method="draft", tokens=4))


@pytest.fixture
def registry(tmp_path: Path, model: Path) -> Registry:
    """A registry that holds small:1, and quick:1, for which it guesses."""
    registry = Registry((tmp_path / "registry").as_uri(), identity="ana")
    registry.push(make_model(tmp_path / "small", seed=3, elements=1024), "small:1", alias="prod")
    registry.push(model, "quick:1", serving=GUESSING, draft="small@prod")
    return registry


def test_a_draft_is_pinned_and_stays_as_long_as_it_is_needed(registry: Registry, tmp_path: Path) -> None:
    quick, small = registry.resolve("quick:1"), registry.resolve("small:1")
    pinned = registry.manifest(quick).draft
    assert pinned
    assert (pinned.reference, pinned.digest) == ("small:1", small.digest)
    registry.promote("small", "prod", registry.push(make_model(tmp_path / "next", seed=9), "small").version.version)
    found = registry.compose("quick:1")
    assert (found.draft, found.versions) == (small, (quick, small))
    assert found.draft_bytes == registry.manifest(small).model.weight_bytes > 0
    with pytest.raises(Refused, match=r"small:1 is needed by quick:1; delete that first: longshore delete quick:1"):
        registry.delete("small:1")
    registry.delete("quick:1")
    registry.delete("small:1")
    with pytest.raises(Refused, match=r"small:1, which quick needs, is deleted; bring it back: longshore undelete small:1"):
        registry.undelete("quick:1")
    registry.undelete("small:1")
    registry.undelete("quick:1")
    with pytest.raises(Refused, match=r"is needed by quick:1"):
        registry.delete("small:1")


def test_a_draft_goes_wherever_its_version_does(registry: Registry, model: Path, tmp_path: Path) -> None:
    registry.push(make_adapter(tmp_path / "adapter", model), "sql:1", base="quick:1")
    for reference, places in (
        ("quick:1", {"": "quick:1", ".longshore/draft": "small:1"}),
        ("sql:1", {"": "quick:1", ".longshore/draft": "small:1", ".longshore/adapters/sql": "sql:1"}),
    ):
        into = tmp_path / reference
        verdict = registry.pull(reference, into)
        assert verdict.digest == registry.resolve(reference).digest
        for place, version in places.items():
            assert (found := read_manifest(open_source((into / place).as_uri()), None))
            assert found.digest == registry.resolve(version).digest
        assert registry.pull(reference, into).fetched == 0
    target = Registry((tmp_path / "target").as_uri(), identity="ben")
    registry.copy("quick:1", target)
    assert target.verify("small:1") == target.verify("quick:1") == []
    assert target.compose("quick:1").draft
    with pytest.raises(Refused, match="is needed by quick:1"):
        target.delete("small:1")
    imported = target.push(registry.resolve("quick:1").uri, "again:1").version
    assert target.manifest(imported).draft == registry.manifest(registry.resolve("quick:1")).draft
    plain = target.push(registry.resolve("quick:1").uri, "plain:1", serving=Serving()).version
    assert target.manifest(plain).draft is None


def test_a_wish_and_a_draft_must_belong_together(registry: Registry, model: Path, tmp_path: Path) -> None:
    registry.push(make_adapter(tmp_path / "adapter", model), "sql:1", base="quick:1")
    for serving, draft, message in (
        (GUESSING, None, "speculative.method draft needs a second model"),
        (None, "small:1", "a second model is named, and nothing asks it"),
        (Serving(speculative=Speculation(method="ngram")), "small:1", "a second model is named, and nothing asks it"),
        (GUESSING, "small:7", "small has no version 7"),
        (GUESSING, "sql:1", "sql:1 is an adapter, which guesses nothing"),
    ):
        with pytest.raises(LongshoreError, match=message):
            registry.push(model, "other", serving=serving, draft=draft)
    with pytest.raises(LongshoreError, match="an adapter is guessed for as its base is"):
        registry.push(tmp_path / "adapter", "other", base="quick:1", serving=Serving(speculative=Speculation(method="ngram")))
    assert list(registry.models()) == ["quick", "small", "sql"]


def test_a_draft_that_has_other_tokens_is_refused(registry: Registry, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=5)
    config = json.loads((other / "config.json").read_text()) | {"vocab_size": 130}
    (other / "config.json").write_text(json.dumps(config))
    for source in (other, other.as_uri()):
        with pytest.raises(Refused, match=r"small:1 has 128 tokens in its vocabulary, and the model 130: .*; name a smaller"):
            registry.push(source, "other:1", serving=GUESSING, draft="small:1", check=False)
    heads = Serving(speculative=Speculation(method="eagle3"))
    assert registry.push(other, "other:1", serving=heads, draft="small:1", check=False).created


def test_heads_of_another_model_are_refused(registry: Registry, tmp_path: Path, model: Path) -> None:
    heads = make_model(tmp_path / "heads", seed=5, shards=1)
    config = json.loads((heads / "config.json").read_text()) | {"architectures": ["LlamaForCausalLMEagle3"]}
    serving = Serving(speculative=Speculation(method="eagle3"))
    for label, told, why in (
        ("1", config | {"hidden_size": 96}, "they read vectors of 96, and the model's have 64"),
        ("2", config | {"vocab_size": 5000}, "they read a vocabulary of 5000 tokens, and the model's has 128"),
    ):
        (heads / "config.json").write_text(json.dumps(told))
        registry.push(heads, f"heads:{label}", check=False)
        for source in (model, model.as_uri()):
            with pytest.raises(Refused, match=f"the heads heads:{label} are not for this model: {why}; name heads that were"):
                registry.push(source, "other:1", serving=serving, draft=f"heads:{label}", check=False)
    (heads / "config.json").write_text(json.dumps(config | {"draft_vocab_size": 100}))
    registry.push(heads, "heads:3", check=False)
    assert registry.push(model, "other:1", serving=serving, draft="heads:3", check=False).created


def test_the_same_files_with_another_draft_are_another_version(registry: Registry, model: Path, tmp_path: Path) -> None:
    assert not registry.push(model, "quick:1", serving=GUESSING, draft="small:1").created
    registry.push(make_model(tmp_path / "next", seed=9), "small:2")
    with pytest.raises(Refused, match="quick:1 exists with other content"):
        registry.push(model, "quick:1", serving=GUESSING, draft="small:2")
    (tmp_path / "registry/small/versions/1.json").unlink()
    with pytest.raises(Corrupt, match=r"quick:1 needs small:1 with sha256:\w+, which is not in file"):
        registry.compose("quick:1")
