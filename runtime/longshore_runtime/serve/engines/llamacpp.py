"""llama.cpp's server, for models in GGUF files. Options as `llama-server --help` has them, builds of September 2026.

`llama-server` where it is on the PATH, else the same server out of the package xllamacpp (`llamacpp_server`). The relay stands
before it: it has no place for a middleware, and ends a stream when it is told to stop.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from longshore_runtime.errors import EngineFailed, LongshoreError
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve.engines import relay_command
from longshore_runtime.serve.engines.credentials import without_credentials
from longshore_runtime.serve.engines.llamacpp_causes import diagnose
from longshore_runtime.serve.engines.llamacpp_figures import read_figures
from longshore_runtime.serve.engines.llamacpp_files import find_files
from longshore_runtime.serve.engines.phases import find_phase
from longshore_runtime.serve.engines.port import AdapterChanges, Figures, SleepMode, Task
from longshore_runtime.serve.engines.support import Support, read_support
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import Option, flatten, group_options, merge_options, refuse_owned, refuse_short

BINARY = "llama-server"
MODULE = "longshore_runtime.serve.engines.llamacpp_server"

_REFERENCE = "the reference"
OWNED = {
    "model": _REFERENCE,
    "model-url": _REFERENCE,
    "hf-repo": _REFERENCE,
    "hf-file": _REFERENCE,
    "docker-repo": _REFERENCE,
    "models-dir": _REFERENCE,
    "models-preset": _REFERENCE,
    "mmproj-url": "a projector among the model's files",
    "host": "--host",
    "port": "--port",
    "alias": "--served-model-name",
    "api-prefix": "a route of the gateway",
    "ssl-key-file": "TLS at the gateway",
    "ssl-cert-file": "TLS at the gateway",
}
"""Options that the launcher sets or must know, with where a user sets them instead."""

SYNONYMS = {
    "n-predict": "predict",
    "gpu-layers": "n-gpu-layers",
    "embeddings": "embedding",
    "reranking": "rerank",
    "webui": "ui",
    "log-verbosity": "verbosity",
    "model-draft": "spec-draft-model",
}
"""Long options that set the same thing, by the name that this module has for it."""

FILES = {"lora", "lora-scaled", "spec-draft-model", "chat-template-file", "grammar-file"}
"""Options whose values may be files that were pushed with the model."""

SLOTS = 4
"""Requests at a time, llama-server's own choice: on a CPU more of them share the same speed."""

MIN_CONTEXT, CONTEXT_STEP = 1024, 1024
COMPUTE_BYTES = 512 * 1024**2
"""For everything but weights and KV cache: the logits of one batch, 512 tokens × 150 000 words × 4 bytes, are 307 MB of it."""

PHASES = (
    (re.compile(r"load_model: loading model"), "loading weights"),
    (re.compile(r"initializing, n_slots = (\d+), n_ctx_slot = (\d+)"), "{0} slots of {1} tokens; warming up"),
    (re.compile(r"init: model loaded|main: model loaded"), "starting the HTTP server"),
)


class LlamaCpp:
    """The adapter of llama.cpp."""

    name = "llamacpp"
    health_path = "/health"
    metrics_path = "/metrics"
    caches: Mapping[str, str] = MappingProxyType({"CUDA_CACHE_PATH": "cuda"})
    speculation: frozenset[str] = frozenset()
    adapter_changes: AdapterChanges | None = None
    sleep_mode: SleepMode | None = None

    def require(self) -> None:
        relay_command.require(self.name)
        if not shutil.which(BINARY) and importlib.util.find_spec("xllamacpp") is None:
            raise EngineFailed(
                "the engine llama.cpp is not installed",
                f"in a checkout run: make setup; elsewhere install the extra engine-llamacpp, or put {BINARY} on the PATH",
                "not-installed",
            )

    def version(self) -> str:
        if binary := shutil.which(BINARY):
            with suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=True)
                return (done.stdout + done.stderr).strip().splitlines()[0]
        with suppress(metadata.PackageNotFoundError):
            return metadata.version("xllamacpp")
        return "unknown"

    def support(self) -> Support:
        return read_support("llama.cpp", "llamacpp_supported.json")

    def check_arguments(self, arguments: Sequence[str]) -> None:
        refuse_short(arguments, self.support().short)
        refuse_owned(group_options(arguments), OWNED)

    def waits(self, task: Task) -> bool:
        return False

    def command(self, task: Task, machine: Host) -> list[str]:
        for arguments in task.arguments:
            self.check_arguments(arguments)
        layers = [_read_options(arguments, task.model) for arguments in (_derive(task, machine), *task.arguments)]
        server = [BINARY] if shutil.which(BINARY) else [sys.executable, "-m", MODULE]
        return relay_command.wrap(self.name, task, server + flatten(merge_options(*layers)))

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        # Threads that spin while they wait for each other cost a shared core a hundred times what sleeping does.
        own = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}
        return own | without_credentials(inherited)

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        pass

    def phase_of(self, line: str) -> str | None:
        return find_phase(line, PHASES)

    def read_figures(self, metrics: str) -> Figures:
        return read_figures(metrics)

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return diagnose(output)


def _read_options(arguments: Sequence[str], folder: Path) -> list[Option]:
    """As options with names of their own, and in words: llama-server does not take `--name=value` for one option.

    Files that are named without a folder and lie in the model's are those there.
    """
    options = [Option(SYNONYMS.get(option.name, option.name), _split(option.tokens)) for option in group_options(arguments)]
    return [_place(option, folder) if option.name in FILES else option for option in options]


def _place(option: Option, folder: Path) -> Option:
    values = (",".join(_find(name, folder) for name in value.split(",")) for value in option.tokens[1:])
    return Option(option.name, (option.tokens[0], *values))


def _find(name: str, folder: Path) -> str:
    file = folder / name.partition(":")[0]  # an adapter's scale may follow
    return str(folder / name) if name and not name.startswith("/") and file.is_file() else name


def _split(tokens: tuple[str, ...]) -> tuple[str, ...]:
    name, equals, value = tokens[0].partition("=")
    return (name, value, *tokens[1:]) if equals else tokens


def _derive(task: Task, machine: Host) -> list[str]:
    """What the files and the machine imply; the version's and the user's arguments replace any of it."""
    if task.group is not None:
        raise LongshoreError("llama.cpp serves a model in one pod", "ask for one node")
    if task.adapters:
        raise LongshoreError(
            "llama.cpp serves no adapters under names of their own",
            "merge them into the model, or push a GGUF adapter with the model and name it with --lora in serve.yaml",
        )
    model, projector = find_files(task.model)
    arguments = ["--model", str(model), "--alias", task.name]
    arguments += ["--host", relay_command.INNER_HOST, "--port", relay_command.PORT]
    arguments += ["--metrics", "--offline", "--no-webui"]
    if projector:
        arguments += ["--mmproj", str(projector)]
    if task.geometry and task.geometry.task == "embed":
        arguments += ["--embedding"]
    if not machine.gpus:
        # On GPUs its own --fit decides how many layers and how much context go there.
        arguments += ["--threads", str(machine.cores)]
        slots, context = divide_memory(task.facts, machine.memory)
        arguments += ["--parallel", str(slots), "--ctx-size", str(slots * context)] if context else []
    return arguments


def divide_memory(facts: ModelFacts, memory: int) -> tuple[int, int]:
    """How many requests at a time, and the tokens of each, for a KV cache in `memory` bytes beside the weights.

    Each slot gets a cache of its own for the model's whole context, so that none is refused for what others hold; fewer of
    them where there is no room, and where there is none for one, less context. 0 tokens where the files do not tell.
    """
    per_token = cache_per_token(facts)
    if not per_token or not facts.context_length:
        return SLOTS, 0
    room = int(0.9 * (memory - facts.weight_bytes - COMPUTE_BYTES)) // per_token
    slots = max(1, min(SLOTS, room // facts.context_length))
    context = min(facts.context_length, room)
    if context < facts.context_length:
        context = max(MIN_CONTEXT, context // CONTEXT_STEP * CONTEXT_STEP)
    return slots, context


def cache_per_token(facts: ModelFacts) -> int:
    """KV bytes per token: 2 (K and V) × layers × KV heads × head size × 2 bytes (llama.cpp's f16 cache)."""
    return 2 * 2 * (facts.layers or 0) * (facts.kv_heads or 0) * (facts.head_dim or 0)
