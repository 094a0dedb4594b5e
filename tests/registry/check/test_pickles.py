from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.check.pickles import find_pickle
from longshore_runtime.blobs import LocalBlob
from support.models import safetensors


def judge(folder: Path, data: bytes, name: str = "weights.bin") -> str | None:
    (folder / "file").write_bytes(data)
    return find_pickle(name, LocalBlob(folder / "file"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles")


@given(value=st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats())), protocol=st.integers(2, 5))
def test_every_modern_pickle_is_told(folder: Path, value: Any, protocol: int) -> None:
    assert f"protocol {protocol}" in str(judge(folder, pickle.dumps(value, protocol)))


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_old_pickle_that_calls_something_is_told(folder: Path, protocol: int) -> None:
    assert "protocol 0 or 1" in str(judge(folder, pickle.dumps(OrderedDict(a=1), protocol)))


@given(text=st.text())
def test_json_is_none(folder: Path, text: str) -> None:
    assert judge(folder, json.dumps({"text": text}).encode()) is None


def test_what_else_lies_in_trees_is_none(folder: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("weights.npy", b"x")
    for data in (
        safetensors({"a": ("U8", [1], b"x")}),
        archive.getvalue(),
        archive.getvalue()[:40],
        b"",
        b"\x80",
        b"\x80\x02\xff",
        b"GGUF",
    ):
        assert judge(folder, data) is None


@pytest.mark.parametrize("name", ["a.pt", "a.PTH", "a.ckpt", "deep/a.pkl", "a.joblib"])
def test_names_that_are_unpickled_are_told_whatever_is_in_them(folder: Path, name: str) -> None:
    assert judge(folder, b"x", name) == "its name says that it is loaded by unpickling"
