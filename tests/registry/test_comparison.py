"""What differs between two trees, held against comparing them byte by byte."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.comparison import Change, Difference, Side, compare
from longshore_runtime import tree
from longshore_runtime.digests import digest_file
from longshore_runtime.errors import Corrupt
from longshore_runtime.manifest import File, Manifest, ScalingDefaults, Serving
from longshore_runtime.pull.sources import open_source
from longshore_runtime.serve.safetensors import FIRST_READ
from support.models import make_model, safetensors

CHUNK = 4096


def side(directory: Path, serving: Serving | None = None) -> Side:
    def describe(file: tree.LocalFile) -> File:
        digest = digest_file(file.location, CHUNK)
        return File(path=file.path, size=digest.size, sha256=digest.sha256, blake3=digest.chunks)

    files = tuple(describe(file) for file in tree.scan(directory))
    return Side(open_source(directory.as_uri()), Manifest(chunk_size=CHUNK, files=files, serving=serving or Serving()))


def diff(old: Path, new: Path, **options: Any) -> Difference:
    return compare(side(old), side(new), **options)


def edit(directory: Path, name: str, **changes: Any) -> None:
    content = json.loads((directory / name).read_text()) | changes
    (directory / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_the_same_is_the_same_and_nothing_is_read(tmp_path: Path) -> None:
    found = diff(make_model(tmp_path / "a"), make_model(tmp_path / "b"))
    assert (found.any, found.tensors.differ, found.read) == (False, False, 0)


def test_files_config_and_serving(tmp_path: Path) -> None:
    old, new = make_model(tmp_path / "a"), make_model(tmp_path / "b")
    (old / "gone").write_text("1")
    (new / "come").write_text("22")
    edit(new, "config.json", max_position_embeddings=4096, rope_scaling={"factor": 2.0}, tie_word_embeddings=None)
    serving = Serving(arguments=("--x",), scaling=ScalingDefaults(max=3))
    found = compare(side(old), side(new, serving))
    assert [(change.name, change.old, change.new) for change in found.files if change.name != "config.json"] == [
        ("come", None, 2),
        ("gone", 1, None),
    ]
    assert found.config == {
        "config.json": [
            Change("max_position_embeddings", 2048, 4096),
            Change("rope_scaling", None, {"factor": 2.0}),
            Change("tie_word_embeddings", True, None),
        ]
    }
    assert found.serving == [Change("arguments", [], ["--x"]), Change("scaling", None, {"max": 3})]
    assert not found.tensors.differ


def write(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(safetensors(tensors))


def test_tensors_come_go_and_change_their_form(tmp_path: Path) -> None:
    write(tmp_path / "a/m.safetensors", {"a": ("F16", [2], b"1234"), "b": ("F16", [2], b"1234"), "c": ("F16", [2], b"1234")})
    write(tmp_path / "b/m.safetensors", {"b": ("BF16", [2], b"1234"), "c": ("F16", [1, 2], b"1234"), "d": ("U8", [1], b"1")})
    found = diff(tmp_path / "a", tmp_path / "b").tensors
    assert found.removed == [Change("a", "F16 [2]", None)]
    assert found.retyped == [Change("b", "F16 [2]", "BF16 [2]")]
    assert found.reshaped == [Change("c", "F16 [2]", "F16 [1, 2]")]
    assert found.added == [Change("d", None, "U8 [1]")]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 3 * CHUNK), min_size=1, max_size=6),
    flips=st.lists(st.floats(0, 1, exclude_max=True), max_size=3),
    shift=st.booleans(),
    seed=st.integers(0, 9),
)
def test_changed_tensors_are_those_whose_bytes_differ(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], flips: list[float], shift: bool, seed: int
) -> None:
    folder, numbers = tmp_path_factory.mktemp("diff"), random.Random(seed)
    before = {f"t{number}": numbers.randbytes(size) for number, size in enumerate(sizes)}
    after = dict(before)
    for flip in flips:
        name = f"t{int(flip * len(sizes))}"
        data = bytearray(after[name])
        if data:
            data[int(flip * 7919) % len(data)] ^= 1
        after[name] = bytes(data)
    more = {"longer-name-in-the-header": ("U8", [0], b"")} if shift else {}
    write(folder / "a/m.safetensors", {name: ("U8", [len(data)], data) for name, data in before.items()})
    write(folder / "b/m.safetensors", {name: ("U8", [len(data)], data) for name, data in after.items()} | more)
    wanted = sorted(name for name in before if before[name] != after[name])
    assert diff(folder / "a", folder / "b", deep=True).tensors.changed == wanted
    shallow = diff(folder / "a", folder / "b").tensors
    assert set(shallow.changed) <= set(wanted) <= {*shallow.changed, *shallow.undecided}
    if not shift:
        assert shallow.changed == wanted


def test_large_tensors_are_compared_by_their_digests(tmp_path: Path) -> None:
    sizes = {f"t{number}": 100 * CHUNK for number in range(4)}
    before = {name: ("U8", [size], bytes(size)) for name, size in sizes.items()}
    after = before | {"t2": ("U8", [100 * CHUNK], b"\1" * (100 * CHUNK))}
    write(tmp_path / "a/m.safetensors", before)
    write(tmp_path / "b/m.safetensors", after)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.tensors.changed, found.tensors.same) == (["t2"], 3)
    assert found.read <= 2 * (FIRST_READ + 2 * CHUNK), "of each side the header, and what t2 shares with its neighbours"


def test_a_config_that_is_not_what_was_pushed_is_named(tmp_path: Path) -> None:
    old, new = side(make_model(tmp_path / "a")), make_model(tmp_path / "b")
    edit(new, "config.json", vocab_size=1)
    changed = side(new)
    edit(new, "config.json", vocab_size=2)
    with pytest.raises(Corrupt, match=r"config\.json in file://.* is not what was pushed"):
        compare(old, changed)
