from __future__ import annotations

from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, InvalidModel, NotFound
from longshore_runtime.manifest import Serving
from longshore_runtime.serve.engines.port import Adapter
from longshore_runtime.serve.model import read_adapter, read_model
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
    for place, wish in ((folder, Serving()), (tmp_path / "pulled/.longshore/adapters/sql", Serving(arguments=("--seed=1",)))):
        assert read_adapter("sql", place) == (Adapter("sql", place, 24), wish)
        with pytest.raises(InvalidModel, match="holds an adapter, which serves nothing without its base"):
            read_model(place)
    with pytest.raises(InvalidModel, match="holds no LoRA adapter"):
        read_adapter("sql", model)
    (tmp_path / "pulled/.longshore/adapters/sql/adapter_model.safetensors").unlink()
    assert registry.pull("sql:1", tmp_path / "pulled").fetched > 0


def test_an_empty_mount_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a directory"):
        read_model(tmp_path / "nothing")
