"""config.json against the engine: does it know the architecture and the quantization, and does any file name code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from longshore.check.arguments import split
from longshore.check.contents import Contents
from longshore.check.findings import Finding
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.facts import CONFIG

_CODE_CARRIERS = (CONFIG, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
GENERATION = "generation_config.json"
_TRUST = "trust-remote-code"


def read_architecture(contents: Contents) -> str | None:
    """The first architecture that config.json names."""
    named = contents.read_json(CONFIG).get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def check_architecture(contents: Contents, support: Support, trusted: bool) -> Iterator[Finding]:
    """Whether the engine knows the architecture and the quantization. `trusted`: it may run the tree's own code."""
    config = contents.read_json(CONFIG)
    contents.read_json(GENERATION)  # which notes what is wrong with it
    if not config:
        return
    architecture = read_architecture(contents)
    if architecture is None:
        yield Finding("architecture-missing", CONFIG, "it names no architecture")
    else:
        yield from _check_architecture(architecture, support, trusted and "auto_map" in config)
    method = _mapping(config.get("quantization_config")).get("quant_method")
    if isinstance(method, str) and method.lower() not in support.quantizations | {"bitsandbytes", "gguf"}:
        yield Finding("quantization-unsupported", CONFIG, f"{support} does not know the quantization {method}")


def _check_architecture(architecture: str, support: Support, own_code: bool) -> Iterator[Finding]:
    kind = support.kind_of(architecture)
    if kind == "draft":
        yield Finding("draft-model", CONFIG, f"{architecture} only speculates for another model")
    elif kind == "fallback" or (kind is None and own_code):
        how = "through its Transformers backend, if at all"
        yield Finding("architecture-fallback", CONFIG, f"{support} runs {architecture} {how}")
    elif kind is None:
        last = support.removed.get(architecture)
        when = f" any more; {support.engine} {last} was the last that did" if last and last[0].isdecimal() else ""
        yield Finding("architecture-unsupported", CONFIG, f"{support} does not know {architecture}{when}")


def check_code(contents: Contents, arguments: Sequence[str]) -> Iterator[Finding]:
    """Code that a configuration names, and serving arguments that would have it run."""
    for path in _CODE_CARRIERS:
        if found := _mapping(contents.read_json(path).get("auto_map")):
            named = sorted(str(name[0] if isinstance(name, list) else name) for name in found.values())
            yield Finding("remote-code", path, f"its auto_map names {', '.join(named[:3])}")
    if trusts_code(arguments):
        yield Finding("trust-remote-code", None, f"the serving arguments have --{_TRUST}")


def trusts_code(arguments: Sequence[str]) -> bool:
    """Whether the engine's arguments let it run code from the tree."""
    return any(option.name == _TRUST and not option.tokens[0].startswith("--no-") for option in split(arguments)[1])


def text_config(contents: Contents) -> tuple[Mapping[str, Any], bool | None]:
    """The language model's configuration, and what is said of tied embeddings (None: nothing)."""
    config = contents.read_json(CONFIG)
    text = text_part(config)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return text, tied if isinstance(tied, bool) else None


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a configuration says of the language model."""
    return _mapping(config.get("text_config")) or config


def is_quantized(contents: Contents) -> bool:
    """Whether layers may have tensors in place of their weights."""
    return bool(contents.read_json(CONFIG).get("quantization_config"))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
