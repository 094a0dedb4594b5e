"""What a release of text-generation-inference can serve, and the options of its launcher, read from its repository.

It is not installed here, since it comes as an image for GPUs. With its repository at a release in FOLDER, write the table with

    PYTHONPATH=tests python -m support.tgi_models FOLDER VERSION

It goes by a model's type; the architectures of a type are those that the installed Transformers has for it.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from support.engine_models import _assignments, _package

CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
MAPPINGS = (CAUSAL, "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")


def collect(folder: Path, version: str) -> dict[str, Any]:
    """The table as it is written down. What has a type of its own it serves; for others it has Transformers' own classes."""
    options = (folder / "docs/source/reference/launcher.md").read_text()
    models = ast.parse((folder / "server/text_generation_server/models/__init__.py").read_text())
    types = next(node for node in models.body if isinstance(node, ast.ClassDef) and node.name == "ModelType")
    names = {
        ast.literal_eval(value)
        for entry in ast.walk(types)
        if isinstance(entry, ast.Dict)
        for key, value in zip(entry.keys, entry.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "type"
    }
    mapped = {table: _classes(table) for table in MAPPINGS}
    served = {name for classes in mapped.values() for type_, found in classes if type_ in names for name in found}
    return {
        "version": version,
        "architectures": dict.fromkeys(sorted(served), "generate"),
        "removed": {},
        "suffixes": {},
        "fallback": sorted({name for _, found in mapped[CAUSAL] for name in found} - served),
        "quantizations": re.findall(r"^ +- ([\w-]+): ", options.partition("## QUANTIZE")[2].partition("## ")[0], re.MULTILINE),
        "arguments": sorted(set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", options, re.MULTILINE)) - {"help", "version"}),
        "short": dict(re.findall(r"^ +-(\w), --([a-z-]+)", options, re.MULTILINE)[::-1]),
    }


def _classes(table: str) -> list[tuple[str, tuple[str, ...]]]:
    call = _assignments(_package("transformers") / "models/auto/modeling_auto.py")[table]
    assert isinstance(call, ast.Call)
    return [(name, (found,) if isinstance(found, str) else found) for name, found in ast.literal_eval(call.args[0])]


def path() -> Path:
    return Path(__file__).parents[2] / "runtime/longshore_runtime/serve/engines/tgi_supported.json"


if __name__ == "__main__":
    path().write_text(json.dumps(collect(Path(sys.argv[1]), sys.argv[2]), indent=1) + "\n")
