"""docs/serving.md says what there is."""

from __future__ import annotations

import re
from pathlib import Path

from longshore.serving_file import ServingFile, read_serving
from longshore_runtime.manifest import ScalingDefaults
from support.documents import blocks

PAGE = Path(__file__).parents[2] / "docs/serving.md"


def test_the_pages_file_is_one(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    (tmp_path / "serve.yaml").write_text(text)
    serving = read_serving(tmp_path / "serve.yaml")
    assert None not in (serving.gpus, serving.scaling)


def test_every_field_is_explained() -> None:
    named = set(
        re.findall(r"`([a-z.]+)`", "".join(line.split("|")[1] for line in PAGE.read_text().splitlines() if "| `" in line))
    )
    assert named == (ServingFile.model_fields.keys() - {"scaling"}) | {
        f"scaling.{name}" for name in ScalingDefaults.model_fields
    }
