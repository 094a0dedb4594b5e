"""GGUF files, which carry configuration, tokenizer and template with the weights: are they whole, one model, and known."""

from __future__ import annotations

from collections.abc import Iterator

from longshore.check.contents import Contents
from longshore.check.findings import Finding
from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.engines.llamacpp_files import choose_files
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.facts import find_gguf
from longshore_runtime.serve.gguf import Header, read_gguf


def read_headers(contents: Contents) -> dict[str, Header | InvalidModel]:
    """The header of each file of a tree that has no other weights, or why it cannot be read; {} for any other tree."""
    found: dict[str, Header | InvalidModel] = {}
    for path in find_gguf(contents.files):
        blob = contents.files[path]
        try:
            found[path] = read_gguf(blob.read, blob.size, path)
        except InvalidModel as error:
            found[path] = error
    return found


def find_model(headers: dict[str, Header | InvalidModel]) -> tuple[str, Header] | None:
    """The path and the header of the one model, None unless there is one."""
    kinds = {path: header.kind for path, header in headers.items() if isinstance(header, Header)}
    try:
        path, _ = choose_files(kinds)
    except InvalidModel:
        return None
    header = headers[path]
    return (path, header) if isinstance(header, Header) else None


def check_gguf(headers: dict[str, Header | InvalidModel], support: Support) -> Iterator[Finding]:
    """Everything that llama.cpp would stop at, as far as headers tell."""
    damaged = {path: error for path, error in headers.items() if isinstance(error, InvalidModel)}
    for path, error in damaged.items():
        yield Finding("weights-damaged", path, error.message.partition(": ")[2] or error.message)
    if damaged:
        return
    try:
        choose_files({path: header.kind for path, header in headers.items() if isinstance(header, Header)})
    except InvalidModel as error:
        yield Finding("gguf-choice", None, error.message)
    if (found := find_model(headers)) is None:
        return
    path, header = found
    architecture = str(header.values.get("general.architecture", ""))
    kind = support.kind_of(architecture)
    if kind is None:
        yield Finding("architecture-unsupported", path, f"{support} does not know {architecture or 'a model without a name'}")
    elif kind == "draft":
        yield Finding("draft-model", path, f"{architecture} only speculates for another model")
    elif kind == "generate" and "tokenizer.chat_template" not in header.values:
        yield Finding("template-missing", path, "it holds no tokenizer.chat_template")
