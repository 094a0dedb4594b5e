"""docs/serving.md says what there is."""

from __future__ import annotations

import re
from pathlib import Path

from longshore.serving_file import ServingFile, SpeculationInFile, read_serving_file
from longshore_runtime.manifest import ScalingDefaults
from support.documents import blocks

PAGE = Path(__file__).parents[2] / "docs/serving.md"


def test_the_pages_file_is_one(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    (tmp_path / "serve.yaml").write_text(text)
    serving = read_serving_file(tmp_path / "serve.yaml").serving
    assert serving
    assert None not in (serving.gpus, serving.scaling)


def test_every_field_is_explained() -> None:
    named = set(
        re.findall(r"`([a-z.]+)`", "".join(line.split("|")[1] for line in PAGE.read_text().splitlines() if "| `" in line))
    )
    assert named == (ServingFile.model_fields.keys() - {"scaling", "speculative"}) | {
        *(f"scaling.{name}" for name in ScalingDefaults.model_fields),
        *(f"speculative.{name}" for name in SpeculationInFile.model_fields),
    }
