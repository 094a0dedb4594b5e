"""Trees from elsewhere: pinned, held against what their source publishes, with no copy on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore import Registry, layout
from longshore_runtime.errors import Corrupt, InvalidModel, LongshoreError, NotFound
from longshore_runtime.manifest import Serving
from longshore_runtime.pull.patterns import Patterns
from support.hubs import Asked, FakeHuggingFace, FakeModelScope, Reply, model_of
from support.models import MEBI, make_model

README = b"---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n"


@pytest.fixture
def registry(root: str) -> Registry:
    return Registry(root, identity="ana")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A model whose shards have several parts."""
    made = make_model(tmp_path / "origin", elements=10 * MEBI)
    return {path.name: path.read_bytes() for path in made.iterdir()} | {"README.md": README, "original/params.bin": b"x"}


@pytest.fixture
def hub(huggingface: FakeHuggingFace, files: dict[str, bytes]) -> FakeHuggingFace:
    huggingface.models["org/m"] = model_of(files)
    return huggingface


def staged(registry: Registry) -> list[str]:
    return [stored.key for stored in registry._store.list_tree(layout.staging_folder("m"))]


def fetched(hub: FakeHuggingFace) -> int:
    """How often a range of a large file was asked for."""
    return sum("Signature=" in asked.path for asked in hub.asked)


def test_a_hubs_model_comes_pinned_with_its_licence(
    hub: FakeHuggingFace, files: dict[str, bytes], registry: Registry, tmp_path: Path
) -> None:
    pushed = registry.push("hf://org/m@v1", "m:1", alias="prod")
    assert pushed.created
    assert pushed.sent == pushed.size == sum(map(len, files.values()))
    manifest = registry.manifest(pushed.version)
    assert manifest.source
    assert manifest.source.uri == "hf://org/m@v1"
    assert manifest.source.revision == hub.models["org/m"].names["v1"]
    assert manifest.source.licence == "apache-2.0"
    assert manifest.model.architecture == "LlamaForCausalLM"
    assert (manifest.model.parameters or 0) >= 2 * 10 * MEBI
    assert registry.verify("m:1") == []
    registry.pull("m@prod", tmp_path / "target")
    assert {path: (tmp_path / "target" / path).read_bytes() for path in files} == files
    assert staged(registry) == []


def test_an_import_has_the_content_of_the_same_directory(hub: FakeHuggingFace, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "origin" / "README.md").write_bytes(README)
    (tmp_path / "origin" / "original").mkdir()
    (tmp_path / "origin" / "original" / "params.bin").write_bytes(b"x")
    first = registry.push(tmp_path / "origin", "m")
    again = registry.push("hf://org/m", "m")
    assert (again.version, again.created) == (first.version, False)


def test_patterns_choose_what_is_imported(hub: FakeHuggingFace, registry: Registry) -> None:
    pushed = registry.push("hf://org/m", "m", patterns=Patterns(ignore=("original/", "README.md")))
    paths = [file.path for file in registry.manifest(pushed.version).files]
    assert "config.json" in paths
    assert not {"README.md", "original/params.bin"} & set(paths)
    with pytest.raises(NotFound, match="is wanted by the patterns"):
        registry.push("hf://org/m", "m", patterns=Patterns(allow=("*.gguf",)))


@pytest.mark.parametrize("root", ["file", "versitygw"], indirect=True)
def test_bytes_that_are_not_what_the_hub_publishes_are_not_committed(hub: FakeHuggingFace, registry: Registry) -> None:
    def spoil(asked: Asked, reply: Reply) -> Reply:
        large = "Signature=" in asked.path and len(reply.body) > MEBI
        return Reply(reply.status, b"?" + reply.body[1:], reply.headers) if large else reply

    hub.spoil = spoil
    with pytest.raises(Corrupt, match=r"\.safetensors in hf://org/m is not what the source publishes: sha256:"):
        registry.push("hf://org/m", "m:1")
    assert registry.labels("m") == []


@pytest.mark.parametrize("root", ["file", "versitygw"], indirect=True)
def test_damage_that_passes_is_survived(hub: FakeHuggingFace, registry: Registry) -> None:
    spoilt: list[str] = []

    def spoil(asked: Asked, reply: Reply) -> Reply:
        if "Signature=" in asked.path and len(reply.body) > MEBI and not spoilt:
            spoilt.append(asked.path)
            return Reply(reply.status, b"?" + reply.body[1:], reply.headers)
        return reply

    hub.spoil = spoil
    registry.push("hf://org/m", "m:1")
    assert spoilt
    assert registry.verify("m:1") == []


@pytest.mark.parametrize("root", ["file", "versitygw", "moto"], indirect=True)
def test_an_import_that_was_cut_short_goes_on_where_it_was(
    hub: FakeHuggingFace, files: dict[str, bytes], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("longshore.pushing.send_tree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.push("hf://org/m", "m:1")
    assert len(staged(registry)) == 2 * len(files)
    hub.asked.clear()
    pushed = registry.push("hf://org/m", "m:1", check=False)
    assert fetched(hub) <= 4, "only the headers are read again"
    assert (pushed.created, pushed.sent) == (True, 0)
    assert registry.verify("m:1") == []
    assert staged(registry) == []


def test_a_model_that_cannot_be_served_is_refused_before_its_weights_are_fetched(
    hub: FakeHuggingFace, files: dict[str, bytes], registry: Registry
) -> None:
    del files["model-00002-of-00002.safetensors"]
    hub.models["org/m"] = model_of(files)
    with pytest.raises(InvalidModel, match="model-00002-of-00002"):
        registry.push("hf://org/m", "m")
    assert list(registry.models()) == staged(registry) == []


@pytest.mark.parametrize("root", ["file", "versitygw"], indirect=True)
def test_modelscope_is_imported_too(modelscope: FakeModelScope, files: dict[str, bytes], registry: Registry) -> None:
    modelscope.models["org/m"] = model_of(files)
    pushed = registry.push("modelscope://org/m", "m")
    assert pushed.size == sum(map(len, files.values()))
    assert registry.verify("m:1") == []


@pytest.mark.parametrize("root", ["moto", "versitygw", "minio"], indirect=True)
def test_what_lies_in_a_bucket_is_copied_by_the_store(registry: Registry, files: dict[str, bytes]) -> None:
    store = registry._store
    bucket = store.uri.removeprefix("s3://").partition("/")[0]
    for path, data in files.items():
        store.client.put_object(Bucket=bucket, Key=f"plain/{path}", Body=data)  # type: ignore[attr-defined]
    pushed = registry.push(f"s3://{bucket}/plain", "m")
    assert registry.verify("m:1") == staged(registry) == []
    source = registry.manifest(pushed.version).source
    assert source
    assert (source.uri, source.licence) == (f"s3://{bucket}/plain", "apache-2.0")


def test_a_version_of_another_registry_keeps_its_digests(registry: Registry, model: Path, tmp_path: Path) -> None:
    other = Registry((tmp_path / "other").as_uri())
    origin = other.push(model, "n:7", serving=Serving(arguments=("--enforce-eager",))).version
    pushed = registry.push(origin.uri, "m")
    manifest = registry.manifest(pushed.version)
    assert manifest.files == other.manifest(origin).files
    assert manifest.serving.arguments == ("--enforce-eager",)
    assert manifest.source
    assert manifest.source.revision == f"sha256:{origin.digest}"
    assert registry.verify("m:1") == []
    with pytest.raises(LongshoreError, match="is a version, which is pushed whole"):
        registry.push(origin.uri, "m", patterns=Patterns(allow=("*.json",)))


@pytest.mark.parametrize("address", ["hf://org", "hf://org/absent", "nfs://x/y", "s3://"])
def test_what_is_no_address_of_a_model_is_one_line(hub: FakeHuggingFace, registry: Registry, address: str) -> None:
    with pytest.raises(LongshoreError):
        registry.push(address, "m")
    assert list(registry.models()) == []
