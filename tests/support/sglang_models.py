"""What a release of SGLang can serve, and the options that its own parser knows, read from its source without importing it.

It is not installed here, since it needs a GPU. Unpack its wheel and write the table down with

    PYTHONPATH=tests python -m support.sglang_models FOLDER VERSION

where FOLDER is the wheel's `sglang/srt`.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GENERIC = "Transformers"
"""How classes begin that stand for models of other names."""

DRAFT = re.compile(r".*(NextN|MTP|Eagle3?|DSpark|DraftModel|DSparkModel|AssistantModel|AssistantForCausalLM)|Eagle3.*|DFlash.*")
CLASSIFY = re.compile(r".*(Classification|RewardModel)(WithNormal_Weights)?")
NOT_GENERATING = "is_generation_model"
"""The function of `configs/model_config.py` that names what has embeddings, scores or classes for an answer."""


def collect(source: Path, version: str) -> dict[str, Any]:
    """The table as it is written down."""
    generating = next(
        node
        for node in ast.walk(_parse(source / "configs/model_config.py"))
        if isinstance(node, ast.FunctionDef) and node.name == NOT_GENERATING
    )
    embedding = {node.value for node in ast.walk(generating) if isinstance(node, ast.Constant)}
    names = sorted(name for name in _entry_classes(source / "models") if not name.startswith(GENERIC))
    return {
        "version": version,
        "architectures": {name: _kind(name, name in embedding) for name in names},
        "removed": {},
        "suffixes": {},
        "fallback": [],
        "quantizations": sorted(_quantizations(source / "layers/quantization/__init__.py")),
        "arguments": sorted(option[2:] for option in _options(source) if option.startswith("--")),
        "short": {},
    }


def _kind(name: str, embedding: bool) -> str:
    if DRAFT.fullmatch(name):
        return "draft"
    if CLASSIFY.fullmatch(name):
        return "classify"
    return "embed" if embedding or name.endswith("EmbeddingModel") else "generate"


def _entry_classes(folder: Path) -> Iterator[str]:
    """What each module of a model names as its `EntryClass`, one or several."""
    for path in folder.rglob("*.py"):
        for node in _parse(path).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EntryClass":
                yield from (found.id for found in ast.walk(node.value) if isinstance(found, ast.Name))


def _quantizations(path: Path) -> Iterator[str]:
    for node in _parse(path).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BASE_QUANTIZATION_METHODS":
            assert isinstance(node.value, ast.Dict)
            yield from (ast.literal_eval(key) for key in node.value.keys if key)
    yield from ("gptq", "mxfp4")  # renamed on the way to a kernel, and known where there is a GPU


def _options(source: Path) -> Iterator[str]:
    """Of the fields that `arg_groups/arg_utils.py` makes options of, and of what is added to the parser by itself."""
    for path in (source / "server_args.py", *(source / "arg_groups").rglob("*.py")):
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.ClassDef):
                for field in node.body:
                    yield from _field_options(field)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
                yield from (word.value for word in node.args if isinstance(word, ast.Constant))


def _field_options(field: ast.stmt) -> Iterator[str]:
    """`tp_size: A[int, Arg(help=…, aliases=[…])]`: its name, or the one that it is given, and the aliases."""
    if not (isinstance(field, ast.AnnAssign) and isinstance(field.annotation, ast.Subscript)):
        return
    if ast.unparse(field.annotation.value) != "A" or not isinstance(field.annotation.slice, ast.Tuple):
        return
    name, aliases, described = "--" + ast.unparse(field.target).replace("_", "-"), [], False
    for note in field.annotation.slice.elts[1:]:
        if isinstance(note, ast.Call):
            if ast.unparse(note.func) != "Arg":
                continue
            words = {word.arg: word.value for word in note.keywords}
            if "no_cli" in words:
                return
            name = ast.literal_eval(words["cli_name"]) if "cli_name" in words else name
            aliases = ast.literal_eval(words["aliases"]) if "aliases" in words else []
        described = True
    if described:
        yield from (name, *aliases)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def path() -> Path:
    return Path(__file__).parents[2] / "runtime/longshore_runtime/serve/engines/sglang_supported.json"


if __name__ == "__main__":
    path().write_text(json.dumps(collect(Path(sys.argv[1]), sys.argv[2]), indent=1) + "\n")
