from __future__ import annotations

import json
from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, InvalidModel, LongshoreError, NotFound
from longshore_runtime.manifest import Serving, Speculation
from longshore_runtime.serve.engines.port import Adapter
from longshore_runtime.serve.model import choose_draft, read_adapter, read_model
from support.models import make_adapter


def test_a_plain_folder_is_read_from_its_files(model: Path) -> None:
    facts, serving = read_model(model)
    assert (facts.layers, serving) == (2, Serving())


def test_a_pulled_folder_says_how_it_wants_to_be_served(model: Path, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    wanted = Serving(arguments=("--max-model-len=512",))
    registry.push(model, "m:1", serving=wanted)
    registry.pull("m:1", tmp_path / "pulled")
    facts, serving = read_model(tmp_path / "pulled")
    assert (facts.layers, serving) == (2, wanted)
    (tmp_path / "pulled" / paths.MANIFEST).write_text("{}")
    with pytest.raises(Corrupt):
        read_model(tmp_path / "pulled")


def test_an_adapter_is_read_beside_its_base_and_never_in_its_place(model: Path, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    registry.push(model, "m:1")
    folder = make_adapter(tmp_path / "adapter", model, rank=4, rank_pattern={"v_proj": 24})
    registry.push(folder, "sql:1", base="m:1", serving=Serving(arguments=("--seed=1",)))
    assert registry.pull("sql:1", tmp_path / "pulled").target == str(tmp_path / "pulled/.longshore/adapters/sql")
    assert read_model(tmp_path / "pulled") == read_model(model)
    pulled = tmp_path / "pulled/.longshore/adapters/sql"
    digest = registry.resolve("sql:1").digest
    for place, wish, known in ((folder, Serving(), None), (pulled, Serving(arguments=("--seed=1",)), digest)):
        assert read_adapter("sql", place) == (Adapter("sql", place, 24, known), wish)
        with pytest.raises(InvalidModel, match="holds an adapter, which serves nothing without its base"):
            read_model(place)
    with pytest.raises(InvalidModel, match="holds no LoRA adapter"):
        read_adapter("sql", model)
    (tmp_path / "pulled/.longshore/adapters/sql/adapter_model.safetensors").unlink()
    assert registry.pull("sql:1", tmp_path / "pulled").fetched > 0


def test_an_empty_mount_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a directory"):
        read_model(tmp_path / "nothing")


METHODS = {"ngram", "draft", "eagle", "eagle3"}


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        ("LlamaForCausalLM", "draft"),
        ("EagleLlamaForCausalLM", "eagle"),
        ("LlamaForCausalLMEagle3", "eagle3"),
        ("PeagleQwen3ForCausalLM", "eagle3"),
        ("Eagle2_5_VLForConditionalGeneration", "draft"),
    ],
)
def test_a_draft_says_how_it_guesses(model: Path, architecture: str, method: str) -> None:
    config = json.loads((model / "config.json").read_text()) | {"architectures": [architecture]}
    (model / "config.json").write_text(json.dumps(config))
    wanted, folder = choose_draft(Serving(), METHODS, model)
    assert wanted
    assert (wanted.method, folder) == (method, model)
    said = Speculation(method="eagle", tokens=7)
    assert choose_draft(Serving(speculative=said), METHODS, model) == (said, model)


def test_a_wish_to_guess_that_cannot_be_followed_is_refused(model: Path, tmp_path: Path) -> None:
    ngram, draft = (Serving(speculative=Speculation(method=method)) for method in ("ngram", "draft"))  # type: ignore[arg-type]
    assert choose_draft(ngram, METHODS, None) == (ngram.speculative, None)
    assert choose_draft(Serving(), set(), None) == (None, None)
    for serving, methods, folder, message in (
        (draft, METHODS, None, "there is none; say where it was pulled to: --draft DIR"),
        (ngram, METHODS, model, "need no second model; leave --draft out"),
        (ngram, {"draft"}, None, "the engine vllm cannot speculate by ngram"),
        (Serving(), set[str](), model, "the engine vllm cannot speculate by draft"),
        (Serving(), METHODS, tmp_path / "nothing", "is not a directory"),
    ):
        with pytest.raises(LongshoreError, match=message):
            choose_draft(serving, methods, folder)
