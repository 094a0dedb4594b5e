from __future__ import annotations

from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, NotFound
from longshore_runtime.manifest import Serving
from longshore_runtime.serve.model import read_model


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


def test_an_empty_mount_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a directory"):
        read_model(tmp_path / "nothing")
