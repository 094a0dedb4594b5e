from __future__ import annotations

import json
from pathlib import Path

from support.command import CommandLine
from support.documents import examples
from support.models import flip_byte, make_model

PAGE = Path(__file__).parents[2] / "docs/diff.md"


def make_versions(longshore: CommandLine, folder: Path) -> None:
    """m:1, and m:2 with a changed tensor, a longer context and another way to be served."""
    model = make_model(folder / "model", elements=4 * 1024 * 1024)
    assert longshore("push", model, "m:1").code == 0
    flip_byte(model / "model-00002-of-00002.safetensors")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    (folder / "serve.yaml").write_text("arguments: [--max-model-len=4096]")
    assert longshore("push", model, "m:2", "--serve", folder / "serve.yaml").code == 0


def test_the_pages_commands_print_what_it_shows(longshore: CommandLine) -> None:
    folder = longshore.home / "work"
    make_versions(longshore, folder)
    (example,) = examples(PAGE)
    example.check(longshore, folder)
    assert longshore("diff", "m:1", "m:2", "--exit-code").code == 1
    assert longshore("diff", "m:1", "m:1", "--exit-code").out == "m:1 and m:1 have the same files and are served the same way\n"
    found = longshore("diff", "m:1", "m:2", "--json").json
    assert found["differ"] is True
    assert (len(found["tensors"]["changed"]), found["tensors"]["undecided"]) == (1, [])
    assert found["config"]["config.json"] == [{"name": "max_position_embeddings", "old": 2048, "new": 4096}]


def test_what_has_no_manifest_is_named(longshore: CommandLine, model: Path) -> None:
    longshore("push", model, "m:1")
    assert "has no manifest to compare by; push it" in longshore("diff", "m:1", model).error
    assert "m has no version 9" in longshore("diff", "m:1", "m:9").error
