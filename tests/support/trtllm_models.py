"""What a release of TensorRT-LLM can serve with its PyTorch backend, and the options of `trtllm-serve`, read from its source.

It is not installed here, since it needs a GPU. With its repository at a release in FOLDER, write the table down with

    PYTHONPATH=tests python -m support.trtllm_models FOLDER VERSION
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REGISTER = "register_auto_model"
"""What a class of a model is decorated with, and the architecture in config.json that it is for."""

PART = re.compile(r".*VisionModel")
"""Registered as well, but a part of others."""

DRAFT = re.compile(r"(?i:eagle3).*|.*EagleForCausalLM|MTPDraftModel.*")

MODELOPT = "modelopt"
"""How config.json calls what hf_quant_config.json beside it describes (`load_modelopt_quant_config`)."""


def collect(folder: Path, version: str) -> dict[str, Any]:
    """The table as it is written down."""
    package = folder / "tensorrt_llm"
    configuration = _parse(package / "_torch/model_config.py")
    scoring = _constants(_function(configuration, "is_generation_model"))
    names = sorted({name for name in _registered(package / "_torch/models") if not PART.fullmatch(name)})
    return {
        "version": version,
        "architectures": {name: _kind(name, name in scoring) for name in names},
        "removed": {},
        "suffixes": {},
        "fallback": [],
        "quantizations": sorted({MODELOPT, *_methods(_function(configuration, "load_hf_quant_config"))}),
        "arguments": sorted(option[2:].replace("_", "-") for option in _options(package / "commands/serve.py")),
        "short": {},
    }


def _kind(name: str, scores: bool) -> str:
    if DRAFT.fullmatch(name):
        return "draft"
    return "classify" if scores else "generate"


def _registered(folder: Path) -> Iterator[str]:
    """The architecture is a string, or an attribute of a class in the same module that is one."""
    for path in folder.rglob("*.py"):
        module = _parse(path)
        for node in ast.walk(module):
            for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == REGISTER:
                    yield _text(decorator.args[0], module)


def _text(node: ast.expr, module: ast.Module) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    owner, _, name = ast.unparse(node).partition(".")
    values = (
        field.value
        for found in module.body
        if isinstance(found, ast.ClassDef) and found.name == owner
        for field in found.body
        if isinstance(field, ast.Assign) and ast.unparse(field.targets[0]) == name
    )
    return str(ast.literal_eval(next(values)))


def _methods(function: ast.FunctionDef) -> Iterator[str]:
    """What `quant_method` is compared with."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and "quant_method" in ast.unparse(node.left):
            yield from (str(ast.literal_eval(value)) for value in node.comparators)


def _options(path: Path) -> Iterator[str]:
    """Of the command `serve`, which the program is without a command's name."""
    for decorator in _function(_parse(path), "serve").decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "click.option":
            words = (word.value for word in decorator.args if isinstance(word, ast.Constant))
            yield from (str(word) for word in words if str(word).startswith("--"))


def _function(module: ast.Module, name: str) -> ast.FunctionDef:
    return next(node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == name)


def _constants(node: ast.AST) -> set[Any]:
    return {found.value for found in ast.walk(node) if isinstance(found, ast.Constant)}


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def path() -> Path:
    return Path(__file__).parents[2] / "runtime/longshore_runtime/serve/engines/trtllm_supported.json"


if __name__ == "__main__":
    path().write_text(json.dumps(collect(Path(sys.argv[1]), sys.argv[2]), indent=1) + "\n")
