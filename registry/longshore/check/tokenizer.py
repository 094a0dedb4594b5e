"""The tokenizer: is there one, can it be read, does it fit the embeddings."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from longshore.check.configuration import text_config
from longshore.check.contents import Contents
from longshore.check.findings import Finding

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Any of them is a tokenizer (vocab.json with merges.txt beside it)."""

_FAST = "tokenizer.json"
_SENTENCEPIECE_TAG = 0x0A
"""A sentencepiece model is a protocol buffer whose first field holds the pieces."""


def check_tokenizer(contents: Contents) -> Iterator[Finding]:
    """What keeps the tokenizer from being loaded, or lets it make tokens that the model does not have."""
    present = [path for path in contents.files if path in FILES or ("/" not in path and path.endswith(".tiktoken"))]
    if not present:
        yield Finding("tokenizer-missing", None, f"there is no {FILES[0]}, {FILES[1]} or another tokenizer's file")
    elif present == ["vocab.json"] and "merges.txt" not in contents:
        yield Finding("tokenizer-missing", "vocab.json", "merges.txt, which belongs to it, is missing")
    for path in present:
        if path.endswith(".model") and contents.files[path].head[:1] != bytes([_SENTENCEPIECE_TAG]):
            yield Finding("tokenizer-invalid", path, "it is no sentencepiece model")
    if _FAST in contents:
        yield from _check_fast(contents)


def _check_fast(contents: Contents) -> Iterator[Finding]:
    content = contents.read_json(_FAST)
    if any(flaw.path == _FAST for flaw in contents.flaws):
        return  # reported as no JSON
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list):
        yield Finding("tokenizer-invalid", _FAST, "it has no model with a vocabulary")
        return
    if reason := _load(contents):
        yield Finding("tokenizer-invalid", _FAST, reason)
    size, _ = text_config(contents)
    rows, highest = size.get("vocab_size"), _highest_token(vocabulary, content.get("added_tokens"))
    if type(rows) is int and highest >= rows:
        yield Finding("tokenizer-vocabulary", _FAST, f"its highest token is {highest} and vocab_size is {rows}")


def _load(contents: Contents) -> str | None:
    """Why the library that engines use cannot load the tokenizer; None where that library is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(contents.read_text(_FAST) or "")
    except Exception as error:  # the library raises bare Exception
        return f"the tokenizers library refuses it: {str(error)[:160]}"
    return None


def _highest_token(vocabulary: Mapping[str, Any] | list[Any], added: object) -> int:
    numbers = [len(vocabulary) - 1] if isinstance(vocabulary, list) else [n for n in vocabulary.values() if type(n) is int]
    tokens = [token.get("id") for token in (added if isinstance(added, list) else []) if isinstance(token, dict)]
    return max([*numbers, *(number for number in tokens if type(number) is int)], default=-1)
