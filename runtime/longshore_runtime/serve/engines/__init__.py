"""The engines that the launcher can drive. A new one is one file here, one line in ENGINES, one row in the contract suite."""

from __future__ import annotations

from typing import cast

from longshore_runtime.errors import EngineFailed
from longshore_runtime.lookup import load
from longshore_runtime.manifest import ModelFacts, Serving
from longshore_runtime.serve.engines.port import Engine

ENGINES = {
    "vllm": "longshore_runtime.serve.engines.vllm:VLLM",
    "llamacpp": "longshore_runtime.serve.engines.llamacpp:LlamaCpp",
    "sglang": "longshore_runtime.serve.engines.sglang:SGLang",
    "tgi": "longshore_runtime.serve.engines.tgi:TGI",
    "trtllm": "longshore_runtime.serve.engines.trtllm:TensorRTLLM",
}

GGUF = "gguf"
"""How the facts call the quantization of a model whose weights are GGUF files."""

GGUF_ENGINE = "llamacpp"
"""The engine for them, which reads nothing else."""


def choose_engine(serving: Serving, facts: ModelFacts) -> str:
    """The name of the engine for a model: what the version wishes, and for GGUF files the one that reads them.

    `vllm` is what a version says that wishes nothing; it does not read GGUF files by itself.
    """
    return GGUF_ENGINE if facts.quantization == GGUF and serving.engine == Serving().engine else serving.engine


def open_engine(name: str) -> Engine:
    """The adapter of the engine called `name`; raises EngineFailed when there is none."""
    if name not in ENGINES:
        raise EngineFailed(f"{name!r} is not an engine that this launcher knows", f"use one of {', '.join(ENGINES)}")
    return cast(Engine, load(ENGINES[name])())
