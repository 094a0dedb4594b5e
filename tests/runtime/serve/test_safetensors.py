from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.safetensors import FIRST_READ, Tensor, read_header
from support.models import safetensors

TENSORS = {"a": ("BF16", [2, 3], b"x" * 12), "b": ("F32", [], b"y" * 4), "empty": ("F32", [0], b"")}


def test_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(TENSORS))
    header = read_header(path)
    start = path.stat().st_size - 16
    assert header == {
        "a": Tensor("BF16", (2, 3), 12, start),
        "b": Tensor("F32", (), 4, start + 12),
        "empty": Tensor("F32", (0,), 0, start + 16),
    }
    assert [tensor.elements for tensor in header.values()] == [6, 1, 0]


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_header(path) == {}


@given(st.integers(0, len(safetensors(TENSORS)) - 1))
def test_every_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "m.safetensors"
    path.write_bytes(safetensors(TENSORS)[:length])
    with pytest.raises(InvalidModel, match="damaged or cut short"):
        read_header(path)


def raw(header: object) -> bytes:
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 8 + b"x" * 100,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        raw([]),
        raw({"a": {}}),
        raw({"a": 1}),
        raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
        raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}) + b"x" * 8,
        raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + b"x" * 4,
        raw({"a": {"dtype": "F4", "shape": [9], "data_offsets": [0, 4]}}) + b"x" * 4,
        raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"x" * 4,
        raw({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}) + b"x" * 4,
        b"\x04" + b"\0" * 7 + b"null",
        raw({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}) + b"x" * 4,
        safetensors(TENSORS) + b"!",
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=r"m\.safetensors is damaged"):
        read_header(path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    entry = '"a": {"dtype": "U8", "shape": [1], "data_offsets": [%d, %d]}'
    header = ("{" + entry % (0, 1) + "," + entry % (1, 2) + "}").encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"xy")
    with pytest.raises(InvalidModel, match="it has a twice"):
        read_header(path)


def test_a_long_header_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {f"tensor-number-{number:06d}": ("U8", [1], b"x") for number in range(3000)}
    path.write_bytes(safetensors(tensors))
    assert len(path.read_bytes()) > FIRST_READ
    assert read_header(path).keys() == tensors.keys()
