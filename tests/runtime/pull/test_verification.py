from __future__ import annotations

from pathlib import Path

from longshore import Registry
from longshore_runtime.progress import Silent
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import Finding, read_manifest, refuse, verify
from support.models import flip_byte, make_model


def test_all_differences_are_found_at_once(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", shards=3)
    registry = Registry((tmp_path / "registry").as_uri())
    tree = Path(registry.push(model, "m:1").version.uri.removeprefix("file://"))
    source = open_source(tree.as_uri())
    manifest = read_manifest(source, None)
    assert manifest
    assert verify(source, manifest, Silent()) == []
    flip_byte(tree / "model-00001-of-00003.safetensors")
    (tree / "model-00002-of-00003.safetensors").write_bytes(b"")
    (tree / "config.json").unlink()
    (tree / "new").touch()
    found = verify(source, manifest, Silent())
    assert [(finding.path, finding.problem) for finding in found] == [
        ("config.json", "missing"),
        ("model-00001-of-00003.safetensors", "changed"),
        ("model-00002-of-00003.safetensors", "changed"),
        ("new", "extra"),
    ]
    error = refuse(found, "m:1")
    assert "config.json is missing, model-00001-of-00003.safetensors is changed (bytes 0–" in error.message


def test_many_findings_are_counted() -> None:
    error = refuse([Finding(str(number), "missing") for number in range(10)], "m:1")
    assert error.message == "m:1 is not what was pushed: 0 is missing, 1 is missing, 2 is missing, 3 is missing and 6 more"
