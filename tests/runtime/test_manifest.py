from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime import paths
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.errors import Corrupt, Refused
from longshore_runtime.manifest import File, Manifest, ModelFacts, Origin, Serving, parse

GOLDEN = Path(__file__).parents[1] / "golden" / "manifest-v1.json"
GOLDEN_DIGEST = "00c71205ad61f4a23a07529bc4b4a51c3bb60eaaf694f2f894250bb58ea75568"

hexes = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: paths.find_flaw(name) is None
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    chosen = draw(st.lists(names, max_size=6, unique_by=str.casefold).filter(lambda found: not paths.find_collision(found)))
    sizes = {name: draw(st.integers(0, 3 * CHUNK_SIZE)) for name in chosen}
    files = [
        File(path=name, size=size, sha256=draw(hexes), blake3=tuple(draw(hexes) for _ in range(-(-size // CHUNK_SIZE))))
        for name, size in sizes.items()
    ]
    serving = Serving(arguments=tuple(draw(st.lists(st.text(max_size=5), max_size=3))))
    return Manifest(files=tuple(files), serving=serving, model=ModelFacts(architecture=draw(st.none() | st.text(max_size=5))))


@given(manifests())
def test_what_is_encoded_is_parsed_again(manifest: Manifest) -> None:
    assert parse(manifest.encode()) == manifest
    assert manifest.digest == hashlib.sha256(manifest.encode()).hexdigest()


@given(manifests(), st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_change_the_digest(manifest: Manifest, numbers: random.Random) -> None:
    files = list(manifest.files)
    numbers.shuffle(files)
    assert manifest.model_copy(update={"files": ()}).files == ()
    shuffled = Manifest(files=tuple(files), serving=manifest.serving, model=manifest.model)
    assert shuffled.digest == manifest.digest


def test_the_golden_manifest_keeps_its_digest_for_ever() -> None:
    data = GOLDEN.read_bytes()
    assert hashlib.sha256(data).hexdigest() == GOLDEN_DIGEST
    manifest = parse(data)
    assert manifest.encode() == data
    assert manifest.source == Origin(uri="hf://org/model", revision="0" * 40, licence="apache-2.0")
    assert [file.path for file in manifest.files] == ["config.json", "empty", "model.safetensors", "模型/トークン.json"]


def test_the_golden_manifest_is_what_is_written_today() -> None:
    golden = parse(GOLDEN.read_bytes())
    rebuilt = Manifest(files=golden.files[::-1], model=golden.model, serving=golden.serving, source=golden.source)
    assert rebuilt.encode() == GOLDEN.read_bytes()


def test_a_newer_schema_is_named() -> None:
    content = json.loads(GOLDEN.read_bytes()) | {"schema": 7, "unheard": "of"}
    with pytest.raises(Refused, match="has schema 7, and this Longshore reads up to 1; use a newer Longshore"):
        parse(json.dumps(content).encode())


def changed(**fields: object) -> bytes:
    content = json.loads(GOLDEN.read_bytes()) | fields
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def file(**fields: object) -> dict[str, object]:
    return {"path": "a", "size": 1, "sha256": "0" * 64, "blake3": ["0" * 64]} | fields


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        changed(schema="1"),
        changed(schema=0),
        changed(extra=1),
        changed(files=[file(path="../a")]),
        changed(files=[file(path="/a")]),
        changed(files=[file(path=".longshore/x")]),
        changed(files=[file(), file()]),
        changed(files=[file(path="A"), file(path="a")]),
        changed(files=[file(path="b"), file(path="a")]),
        changed(files=[file(blake3=[])]),
        changed(files=[file(size=-1, blake3=[])]),
        changed(files=[file(size=1.0)]),
        changed(files=[file(size="1")]),
        changed(files=[file(sha256="0" * 63)]),
        changed(files=[file(sha256="G" * 64)]),
        changed(chunk_size=0),
        GOLDEN.read_bytes() + b"\n",
        GOLDEN.read_bytes().replace(b'{"chunk_size"', b'{"schema":1,"chunk_size"'),
    ],
)
def test_anything_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(Corrupt):
        parse(data)


def test_facts_do_not_make_another_content() -> None:
    golden = parse(GOLDEN.read_bytes())
    newer = golden.model_copy(update={"model": golden.model.model_copy(update={"layers": 99})})
    assert newer.digest != golden.digest
    assert newer.has_content_of(golden)
    assert not golden.model_copy(update={"serving": Serving(arguments=("--x",))}).has_content_of(golden)
    assert not golden.model_copy(update={"files": golden.files[1:]}).has_content_of(golden)
