"""A fit as the engine's options."""

from __future__ import annotations

from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.parsers import Parsers
from longshore_runtime.serve.fit.plan import NARROW, Fit


def engine_arguments(geometry: Geometry, fit: Fit) -> list[str]:
    """The options of vLLM for a model and its fit: only what its own defaults would not do."""
    return fit_arguments(geometry, fit) + parser_arguments(geometry.parsers)


def fit_arguments(geometry: Geometry, fit: Fit) -> list[str]:
    """The options of vLLM for a fit alone."""
    arguments: list[str] = []
    if fit.split.tensor > 1:
        arguments += ["--tensor-parallel-size", str(fit.split.tensor)]
    if fit.split.pipeline > 1:
        arguments += ["--pipeline-parallel-size", str(fit.split.pipeline)]
    if fit.split.whole_experts:
        arguments += ["--enable-expert-parallel"]
    if fit.shortened:
        arguments += ["--max-model-len", str(fit.context)]
    if fit.cache_width == NARROW:
        arguments += ["--kv-cache-dtype", "fp8"]
    if fit.gpu.capability and fit.gpu.capability < 8 and geometry.dtype == "bfloat16":
        arguments += ["--dtype", "half"]
    return arguments


def parser_arguments(parsers: Parsers) -> list[str]:
    """The options of vLLM for reading tool calls and reasoning out of what a model writes."""
    arguments: list[str] = []
    if parsers.tools:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", parsers.tools]
    if parsers.reasoning:
        arguments += ["--reasoning-parser", parsers.reasoning]
    return arguments
