"""The check as a whole: reads what it must of a tree, and lists all that was found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from longshore.check.adapter import check_adapter
from longshore.check.arguments import check_arguments
from longshore.check.configuration import (
    check_architecture,
    check_code,
    is_quantized,
    read_architecture,
    text_config,
    text_part,
    trusts_code,
)
from longshore.check.contents import Contents
from longshore.check.files import check_files
from longshore.check.findings import SEVERITIES, Finding, Report
from longshore.check.gguf import check_gguf, find_model, read_headers
from longshore.check.shapes import check_config, check_shapes
from longshore.check.template import check_templates
from longshore.check.tokenizer import check_tokenizer
from longshore.check.weights import Weights, read_weights
from longshore_runtime import paths
from longshore_runtime.errors import NotFound, Refused
from longshore_runtime.manifest import ModelFacts, Serving
from longshore_runtime.progress import Progress, Silent
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.serve.engines import GGUF, GGUF_ENGINE, choose_engine, open_engine
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.facts import ADAPTER_CONFIG, CONFIG


def check(
    source: Source, serving: Serving | None = None, progress: Progress | None = None, base: Source | None = None
) -> Report:
    """Whether the tree could be served with `serving`, an adapter on its `base`: every finding, errors first.

    Reads headers and small files alone. Raises LongshoreError when the tree cannot be read at all.
    """
    serving = serving or Serving()
    support = open_engine(serving.engine).support()
    try:
        entries = [entry for entry in source.list_files() if not entry.path.startswith(f"{paths.METADATA}/")]
    except Refused as refusal:  # a local tree refuses by itself what no version may hold
        finding = Finding("name-refused", None, str(refusal))
        return Report(source.uri, str(support), None, 0, 0, (finding,))
    if not entries:
        raise NotFound(f"there is nothing at {source.uri}", "check the address")
    contents = Contents(source, entries, progress or Silent())
    headers = read_headers(contents)
    engine = open_engine(choose_engine(serving, ModelFacts(quantization=GGUF if headers else None)))
    support = engine.support()
    found = [*check_files(contents), *check_arguments(serving.arguments, engine, support)]
    if headers:
        found += check_gguf(headers, support)
        model = find_model(headers)
        return _report(contents, found, support, str(model[1].values.get("general.architecture")) if model else None)
    if engine.name == GGUF_ENGINE:
        found.append(Finding("gguf-choice", None, "llama.cpp serves GGUF files, and there are none"))
        return _report(contents, found, support, read_architecture(contents))
    return _report(contents, [*found, *_check_model(contents, serving, support, base)], support, read_architecture(contents))


def _report(contents: Contents, found: list[Finding], support: Support, architecture: str | None) -> Report:
    found += [flaw for flaw in contents.flaws if flaw not in found]
    pointers = {finding.path for finding in found if finding.code == "lfs-pointer"}
    findings = [f for f in found if f.code == "lfs-pointer" or f.path is None or f.path not in pointers]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(
        source=contents.uri,
        engine=str(support),
        architecture=architecture,
        files=len(contents.files),
        size=sum(file.size for file in contents.files.values()),
        findings=tuple(findings),
    )


def _check_model(contents: Contents, serving: Serving, support: Support, base: Source | None) -> Iterator[Finding]:
    yield from check_code(contents, serving.arguments)
    weights = read_weights(contents)
    yield from weights.findings
    if CONFIG in contents:
        yield from check_architecture(contents, support, trusts_code(serving.arguments))
        yield from _check_weights(contents, weights, support)
        yield from check_tokenizer(contents)
        if _generates(contents, support):
            yield from check_templates(contents)
    elif ADAPTER_CONFIG in contents:
        yield from check_adapter(contents.read_json(ADAPTER_CONFIG), weights.tensors, _read_base(base))
    else:
        yield Finding("config-missing", None, f"there is no {CONFIG} (nor {ADAPTER_CONFIG}, for an adapter) among the files")


def _read_base(base: Source | None) -> Mapping[str, Any] | None:
    """The text configuration of an adapter's base."""
    data = base.read(CONFIG) if base is not None else None
    try:
        config = json.loads(data) if data else None
    except ValueError:  # which its own push has been told
        return None
    return text_part(config) if isinstance(config, dict) else None


def _check_weights(contents: Contents, weights: Weights, support: Support) -> Iterator[Finding]:
    """The tensors against config.json, unless one of them is already known to be wrong as a whole."""
    text, tied = text_config(contents)
    flaws = list(check_config(text, CONFIG)) if text else []
    yield from flaws
    if text and weights.files and weights.whole and not flaws:
        yield from check_shapes(text, tied, _generates(contents, support), is_quantized(contents), weights.tensors)


def _generates(contents: Contents, support: Support) -> bool:
    """Whether the model writes text: an embedding model needs no chat template and has no head."""
    architecture = read_architecture(contents)
    return architecture is None or support.kind_of(architecture) in ("generate", "fallback", None)
