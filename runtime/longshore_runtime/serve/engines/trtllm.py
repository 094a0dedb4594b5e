"""TensorRT-LLM (PyTorch backend), on GPUs. Options, metrics and messages as of 1.3.0rc3, from its source; it was not run here.

The relay stands before it: its server takes no middleware. What it has no option for, it reads from a file (`trtllm_server`).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from longshore_runtime.errors import EngineFailed, LongshoreError
from longshore_runtime.manifest import Speculation
from longshore_runtime.serve.engines import relay_command
from longshore_runtime.serve.engines.credentials import without_credentials
from longshore_runtime.serve.engines.phases import find_phase
from longshore_runtime.serve.engines.port import AdapterChanges, Figures, SleepMode, Task
from longshore_runtime.serve.engines.support import Support, option_name, read_support
from longshore_runtime.serve.engines.trtllm_causes import diagnose
from longshore_runtime.serve.engines.trtllm_figures import read_figures
from longshore_runtime.serve.fit.parallel import tensor_sizes
from longshore_runtime.serve.fit.parsers import Parsers
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import Option, flatten, group_options, merge_options, refuse_owned

BINARY = "trtllm-serve"
STARTER = "longshore_runtime.serve.engines.trtllm_server"

CONFIG = "config"
"""The option that names a file of settings."""

_ALONE = "nothing: a pod serves by itself here"
OWNED = {
    "revision": "the reference",
    "host": "--host",
    "port": "--port",
    "backend": "nothing: it is PyTorch's",
    "grpc": "nothing: clients speak HTTP",
    "server-role": _ALONE,
    "metadata-server-config-file": _ALONE,
    "disagg-cluster-uri": _ALONE,
}
"""Options that the launcher sets or must know, with where a user sets them instead."""

SYNONYMS = {
    "tp-size": "tensor-parallel-size",
    "pp-size": "pipeline-parallel-size",
    "cp-size": "context-parallel-size",
    "ep-size": "moe-expert-parallel-size",
    "cluster-size": "moe-cluster-parallel-size",
    "kv-cache-free-gpu-memory-fraction": "free-gpu-memory-fraction",
    "extra-llm-api-options": CONFIG,
}
"""Options that set the same thing, by the name that this module has for it (`commands/serve.py`)."""

DIVIDING = frozenset({"tensor-parallel-size", "pipeline-parallel-size", "context-parallel-size"})
"""Options with which somebody has divided the model already."""

SPECULATION = {"ngram": "NGram", "draft": "DraftTarget", "eagle3": "Eagle3"}
"""What it calls the methods (`DecodingBaseConfig`, `llmapi/llm_args.py`). Of EAGLE it reads the heads of the third alone."""

LOOKUP = 4
"""Tokens in a row that must have been said before, at the most, for n-grams."""

TOOLS = {
    "deepseek_v3": "deepseek_v3",
    "deepseek_v31": "deepseek_v31",
    "kimi_k2": "kimi_k2",
    "qwen3_coder": "qwen3_coder",
    "hermes": "qwen3",
}
REASONING = {"qwen3": "qwen3", "deepseek_r1": "deepseek-r1"}
"""Parsers of vLLM (`fit/parsers.py`) and what it calls its own (`serve/tool_parser/`, `llmapi/reasoning_parser.py`)."""

PHASES = (
    (re.compile(r"Prefetching ([\d.]+)GB checkpoint files"), "reading {0} GB of weights"),
    (re.compile(r"Use ([\d.]+) GB for model weights"), "loading {0} GB of weights"),
    (re.compile(r"Running autotuner warmup"), "trying out kernels"),
    (re.compile(r"Creating CUDA graph instances for (\d+) batch sizes"), "capturing CUDA graphs for {0} batch sizes"),
    (re.compile(r"Estimated max memory in KV cache : ([\d.]+) GiB"), "KV cache of {0} GiB"),
    (re.compile(r"Uvicorn running on|Application startup complete"), "warming up"),
)


class TensorRTLLM:
    """The adapter of TensorRT-LLM."""

    name = "trtllm"
    health_path = "/health"
    metrics_path = "/metrics"
    caches: Mapping[str, str] = MappingProxyType(
        {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "FLASHINFER_WORKSPACE_BASE": "flashinfer"}
    )
    speculation = frozenset(SPECULATION)
    adapter_changes: AdapterChanges | None = None
    sleep_mode: SleepMode | None = None

    def require(self) -> None:
        relay_command.require(self.name)
        if not shutil.which(BINARY):
            raise EngineFailed(
                "the engine TensorRT-LLM is not installed", f"use the image runtime-trtllm, which has {BINARY}", "not-installed"
            )

    def version(self) -> str:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version("tensorrt_llm")
        return "unknown"

    def support(self) -> Support:
        return read_support("TensorRT-LLM", "trtllm_supported.json")

    def check_arguments(self, arguments: Sequence[str]) -> None:
        refuse_owned(_read(arguments), OWNED)

    def waits(self, task: Task) -> bool:
        return False

    def command(self, task: Task, machine: Host) -> list[str]:
        for arguments in task.arguments:
            self.check_arguments(arguments)
        _refuse(task)
        layers = [_read(arguments) for arguments in task.arguments]
        options = merge_options(group_options(_derive(task)), *layers)
        server = [BINARY, "serve", str(task.model), *flatten(option for option in options if option.name != CONFIG)]
        settings = json.dumps(_settings(task, machine, options), sort_keys=True)
        starter = [sys.executable, "-m", STARTER, settings, *server, *_file(options, task.model)]
        return relay_command.wrap(self.name, task, starter)

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return {"PYTHONUNBUFFERED": "1"} | without_credentials(inherited) | offline

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        pass

    def phase_of(self, line: str) -> str | None:
        return find_phase(line, PHASES)

    def read_figures(self, metrics: str) -> Figures:
        return read_figures(metrics)

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return diagnose(output)


def _read(arguments: Sequence[str]) -> list[Option]:
    """As options spelled the way its parser takes them: with underscores, and whole."""
    return [_spell(option) for option in group_options(arguments)]


def _spell(option: Option) -> Option:
    name = option_name(option.tokens[0])
    name = SYNONYMS.get(name, name)
    _, equals, value = option.tokens[0].partition("=")
    return Option(name, (f"--{name.replace('-', '_')}{equals}{value}", *option.tokens[1:]))


def _refuse(task: Task) -> None:
    if task.group is not None:
        raise LongshoreError("Longshore starts TensorRT-LLM in one pod", "ask for one node")
    if task.geometry and task.geometry.task != "generate":
        raise LongshoreError("TensorRT-LLM serves models that write text", "serve this one with vllm")
    if task.adapters:
        raise LongshoreError(
            "TensorRT-LLM knows an adapter by a path in each request (lora_request), and not by a name",
            "merge it into the model, or serve it with vllm or tgi",
        )


def _derive(task: Task) -> list[str]:
    """Options that the files imply; the version's and the user's arguments replace any of it."""
    arguments = ["--host", relay_command.INNER_HOST, "--port", relay_command.PORT, "--backend", "pytorch"]
    parsers = task.geometry.parsers if task.geometry else Parsers()
    tools, reasoning = TOOLS.get(parsers.tools or ""), REASONING.get(parsers.reasoning or "")
    arguments += ["--tool_parser", tools] if tools else []
    return arguments + (["--reasoning_parser", reasoning] if reasoning else [])


def _settings(task: Task, machine: Host, given: Sequence[Option]) -> dict[str, object]:
    """What is left to its file, where a user's own has the last word: what has no option, and how the model is divided."""
    settings: dict[str, object] = {}
    if task.geometry and machine.gpus and not DIVIDING & {option.name for option in given}:
        # It makes no copies: each layer goes over as many GPUs as can share it.
        settings["tensor_parallel_size"] = tensor_sizes(task.geometry, len(machine.gpus))[-1]
    if task.speculation:
        settings["speculative_config"] = _speculation(task.speculation, task.draft)
    return settings


def _speculation(speculation: Speculation, draft: Path | None) -> dict[str, object]:
    method = {"decoding_type": SPECULATION[speculation.method], "max_draft_len": speculation.tokens}
    return method | ({"speculative_model": str(draft)} if speculation.needs_draft else {"max_matching_ngram_size": LOOKUP})


def _file(options: Sequence[Option], folder: Path) -> list[str]:
    """The last file of settings that was named; one that was pushed with the model is found in its `folder`."""
    named = [option.tokens for option in options if option.name == CONFIG]
    if not named:
        return []
    first, _, value = named[-1][0].partition("=")
    place = " ".join((value, *named[-1][1:])).strip()
    return [first, str(folder / place if (folder / place).is_file() else place)]
