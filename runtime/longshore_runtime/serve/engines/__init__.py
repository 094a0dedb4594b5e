"""The engines that the launcher can drive. A new one is one file here, one line in ENGINES, one row in the contract suite."""

from __future__ import annotations

from typing import cast

from longshore_runtime.errors import EngineFailed
from longshore_runtime.lookup import load
from longshore_runtime.serve.engines.port import Engine

ENGINES = {"vllm": "longshore_runtime.serve.engines.vllm:VLLM"}


def open_engine(name: str) -> Engine:
    """The adapter of the engine called `name`; raises EngineFailed when there is none."""
    if name not in ENGINES:
        raise EngineFailed(f"{name!r} is not an engine that this launcher knows", f"use one of {', '.join(ENGINES)}")
    return cast(Engine, load(ENGINES[name])())
