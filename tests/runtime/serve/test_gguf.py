from __future__ import annotations

from pathlib import Path

import gguf as reference
import pytest

from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.gguf import FIRST_READ, TYPES, Header, config_of, read_gguf
from support.models import write_gguf


def read(path: Path, asked: list[int] | None = None) -> Header:
    data = path.read_bytes()

    def part(offset: int, length: int) -> bytes:
        if asked is not None:
            asked.append(length)
        return data[offset : offset + length]

    return read_gguf(part, len(data), path.name)


def test_what_the_formats_library_writes_is_read(tmp_path: Path) -> None:
    header = read(write_gguf(tmp_path / "m.gguf"))
    assert header.values["tokenizer.chat_template"] == "{{ messages }}"
    assert header.values["llama.numbers"] == [1, 2, 3]
    assert {name: (tensor.dtype, tensor.elements, tensor.size) for name, tensor in header.tensors.items()} == {
        "token_embd.weight": ("F16", 64000, 128000),
        "blk.0.attn_q.weight": ("F32", 4096, 16384),
        "blk.1.attn_q.weight": ("Q4_1", 4096, 2560),
    }
    config = config_of(header)
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (
        *("llama", 64, 2),
        1000,
    )


def test_a_long_header_is_read_in_parts(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tokens=50_000)
    asked: list[int] = []
    assert config_of(read(path, asked))["vocab_size"] == 50_000
    assert len(asked) > 1
    assert asked[0] == FIRST_READ


def test_the_types_are_those_of_the_formats_library() -> None:
    sizes = {kind.value: (kind.name, *reference.GGML_QUANT_SIZES[kind]) for kind in reference.GGMLQuantizationType}
    assert {number: sizes[number] for number in TYPES} == TYPES


@pytest.mark.parametrize("damage", ["empty", "short", "magic", "version", "type"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    data = write_gguf(tmp_path / "m.gguf").read_bytes()
    spoilt = {
        "empty": b"",
        "short": data[:500],
        "magic": b"GGML" + data[4:],
        "version": data[:4] + b"\x09" + data[5:],
        "type": data[:24] + (20).to_bytes(8, "little") + b"general.architecture" + b"\x7f" + data[53:],
    }[damage]
    (tmp_path / "d.gguf").write_bytes(spoilt)
    with pytest.raises(InvalidModel, match=r"d\.gguf is damaged or cut short"):
        read(tmp_path / "d.gguf")
