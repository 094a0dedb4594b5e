"""The outline takes what a push writes, and nothing that the manifest's own reader would not take just so."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from longshore import Registry
from longshore_runtime import manifest, outline, paths
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import Manifest

SCALING = {"min": 0, "max": 3, "metric": "cpu", "target": 5}
GUESSES = {"method": "draft", "tokens": 5}
FULL: dict[str, Any] = {
    "schema": 1,
    "chunk_size": 4096,
    "files": [
        {"path": "a/b", "size": 5000, "sha256": "0" * 64, "crc64nvme": "f" * 16, "blake3": ["1" * 64, "2" * 64]},
        {"path": "empty", "size": 0, "sha256": "e" * 64, "blake3": []},
    ],
    "model": {"weight_bytes": 1, "chat_template": True, "architecture": "X", "layers": 3},
    "serving": {
        "engine": "vllm",
        "arguments": ["--x"],
        "gpus": 2,
        "scaling": SCALING,
        "speculative": GUESSES,
    },
    "source": {"uri": "hf://a/b", "revision": "c"},
    "base": {"model": "m", "version": "1", "digest": "d" * 64},
    "draft": {"model": "m", "version": "2", "digest": "c" * 64},
}
STRANGE = [
    None, True, False, 0, 1, 2, -1, 4096, 10**30, 1.0, 1e400, "", "x", "../x", "a/b", "A/B", "\ud800", "é", "F" * 64, "0" * 63,
    "0" * 64 + "\n", "cpu", [], ["x"], [[]], {}, {"x": 1},
]  # fmt: skip


OTHERS = ["x", "crc64nvme", "licence", "gpus", "dtype", "schema"]


def encode(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(errors="surrogatepass")


def places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the document."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place, *(found for key, value in inner for found in places(value, (*place, key)))]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The document with one or two things changed: a value, a key more, a key less, or its bytes."""
    content = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(places(content)[1:]))
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["value", "more", "less"])):
            case "value":
                parent[place[-1]] = copy.deepcopy(draw(st.sampled_from(STRANGE)))
            case "less":
                del parent[place[-1]]
            case "more" if isinstance(parent, dict):
                parent[draw(st.sampled_from(OTHERS))] = draw(st.sampled_from(STRANGE))
        if not places(content)[1:]:
            break
    data = encode(content)
    return draw(st.sampled_from([data, data, data, data + b"\n", data.replace(b":", b": ", 1), b"[" + data]))


@given(changed())
@settings(max_examples=1000)
def test_what_it_takes_the_manifests_reader_takes_just_so(data: bytes) -> None:
    found = outline.outline(data)
    try:
        known = manifest.parse(data)
    except LongshoreError:
        assert found is None
        return
    assert found is not None, "what is valid is not left to the slow reader either"
    compare(found, known)


def compare(found: outline.Outline, known: Manifest) -> None:
    assert (found.digest, found.size, found.chunk_size) == (known.digest, known.size, known.chunk_size)
    assert found.encode() == known.encode()
    assert [(f.path, f.size, f.sha256, f.blake3) for f in found.files] == [
        (f.path, f.size, f.sha256, f.blake3) for f in known.files
    ]


def test_the_whole_document_is_taken() -> None:
    found = outline.outline(encode(FULL))
    assert found
    compare(found, manifest.parse(encode(FULL)))


DAMAGED = [b"", b"{", b"\xff", b"[" * 100_000, b'{"schema":NaN}', b"9" * 10_000, b"null"]


@pytest.mark.parametrize("data", DAMAGED, ids=lambda data: data[:9])
def test_what_is_no_document_is_left_to_the_other(data: bytes) -> None:
    assert outline.outline(data) is None


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        (outline.FILE, manifest.File),
        (outline.MODEL, manifest.ModelFacts),
        (outline.SCALING, manifest.ScalingDefaults),
        (outline.SPECULATION, manifest.Speculation),
        (outline.SERVING, manifest.Serving),
        (outline.SOURCE, manifest.Origin),
        (outline.BASE, manifest.Base),
        (outline.MANIFEST, manifest.Manifest),
    ],
)
def test_it_knows_all_fields(fields: outline.Fields, model: type[BaseModel]) -> None:
    known = {field.alias or name: field for name, field in model.model_fields.items()}
    assert {*fields.always, *fields.sometimes} == set(known)
    assert set(fields.sometimes) == {name for name, field in known.items() if not field.is_required() and field.default is None}
    assert outline.SCHEMA == manifest.SCHEMA


def test_a_version_is_pulled_without_the_library(model: Path, tmp_path: Path) -> None:
    uri = Registry((tmp_path / "registry").as_uri()).push(model, "m:1").version.uri
    script = f"""
import sys
from pathlib import Path
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
print(engine.pull({uri!r}, Path({str(tmp_path / "t")!r}), Silent()).verified, "pydantic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "digest False\n"
    assert (tmp_path / "t" / paths.MANIFEST).exists()
