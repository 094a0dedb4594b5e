"""SGLang, on GPUs. Options, metrics and messages as of 0.5.23, from its source; it was not run here.

The relay stands before it: its server takes no middleware.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from longshore_runtime.errors import EngineFailed, LongshoreError
from longshore_runtime.manifest import Speculation
from longshore_runtime.serve.engines import relay_command
from longshore_runtime.serve.engines.counters import count
from longshore_runtime.serve.engines.credentials import without_credentials
from longshore_runtime.serve.engines.phases import find_phase
from longshore_runtime.serve.engines.port import AdapterChanges, Figures, SleepMode, Task
from longshore_runtime.serve.engines.sglang_causes import diagnose
from longshore_runtime.serve.engines.support import Support, option_name, read_support
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.parallel import tensor_sizes
from longshore_runtime.serve.fit.parsers import Parsers
from longshore_runtime.serve.fit.plan import Fit, Wish, fit
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import Option, flatten, group_options, merge_options, refuse_owned

_TLS = "TLS at the gateway"
_ONE_POD = "nothing: it serves a model in one pod here"
OWNED = {
    "model-path": "the reference",
    "host": "--host",
    "port": "--port",
    "served-model-name": "--served-model-name",
    "config": "the arguments themselves",
    "fastapi-root-path": "a route of the gateway",
    "grpc-mode": "nothing: clients speak HTTP",
    "smg-grpc-mode": "nothing: clients speak HTTP",
    "enable-metrics": "nothing: they are on",
    "nnodes": _ONE_POD,
    "node-rank": _ONE_POD,
    "dist-init-addr": _ONE_POD,
    "ssl-keyfile": _TLS,
    "ssl-certfile": _TLS,
    "ssl-ca-certs": _TLS,
    "ssl-keyfile-password": _TLS,
    "enable-ssl-refresh": _TLS,
}
"""Options that the launcher sets or must know, with where a user sets them instead."""

SYNONYMS = {
    "model": "model-path",
    "tp-size": "tensor-parallel-size",
    "pp-size": "pipeline-parallel-size",
    "dp-size": "data-parallel-size",
    "ep-size": "expert-parallel-size",
    "ep": "expert-parallel-size",
    "nccl-init-addr": "dist-init-addr",
    "speculative-draft-model": "speculative-draft-model-path",
}
"""Options that set the same thing, by the name that this module has for it (`arg_groups/fields`, aliases)."""

DIVIDING = frozenset({"tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "attn-dp-size"})
"""Options with which somebody has divided the model already."""

SPECULATION = {"draft": "STANDALONE", "eagle": "EAGLE", "eagle3": "EAGLE3"}
"""What SGLang calls the methods (`--speculative-algorithm`). Its n-grams count tokens in another way."""

TOOLS = {
    "openai": "gpt-oss",
    "deepseek_v3": "deepseekv3",
    "deepseek_v31": "deepseekv31",
    "kimi_k2": "kimi_k2",
    "glm45": "glm45",
    "qwen3_coder": "qwen3_coder",
    "minimax_m2": "minimax-m2",
    "mistral": "mistral",
    "hermes": "hermes",
    "llama4_pythonic": "pythonic",
    "llama3_json": "llama3",
}
REASONING = {
    "openai_gptoss": "gpt-oss",
    "qwen3": "qwen3",
    "deepseek_v3": "deepseek-v3",
    "deepseek_r1": "deepseek-r1",
    "glm45": "glm45",
    "kimi_k2": "kimi_k2",
    "minimax_m2": "minimax",
    "mistral": "mistral",
}
"""Parsers of vLLM (`fit/parsers.py`) and what SGLang calls its own (`function_call/`, `parser/reasoning_parser.py`)."""

OWED = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
ENDED = "sglang:num_requests_total"
WORK = (
    "sglang:realtime_tokens_total",  # the one that moves while an answer is written, every --decode-log-interval steps
    "sglang:forward_execution_seconds_total",
    "sglang:prompt_tokens_total",
    "sglang:generation_tokens_total",
    "sglang:num_retracted_requests_total",
)
"""What only a step of the scheduler changes."""

PHASES = (
    (re.compile(r"Load weight begin"), "loading weights"),
    (re.compile(r"Load weight end\. elapsed=([\d.]+) s"), "weights loaded in {0} s"),
    (re.compile(r"Memory pool end"), "KV cache allocated"),
    (re.compile(r"Capture .*CUDA graph begin"), "capturing CUDA graphs"),
    (re.compile(r"Uvicorn running on|Application startup complete"), "warming up"),
    (re.compile(r"The server is fired up"), "ready"),
)


class SGLang:
    """The adapter of SGLang."""

    name = "sglang"
    health_path = "/health"
    metrics_path = "/metrics"
    caches: Mapping[str, str] = MappingProxyType(
        {
            "SGLANG_CACHE_DIR": "sglang",
            "TRITON_CACHE_DIR": "triton",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "FLASHINFER_WORKSPACE_BASE": "flashinfer",
        }
    )
    speculation = frozenset(SPECULATION)
    adapter_changes: AdapterChanges | None = None
    sleep_mode: SleepMode | None = None

    def require(self) -> None:
        relay_command.require(self.name)
        if importlib.util.find_spec("sglang") is None:
            raise EngineFailed(
                "the engine SGLang is not installed",
                "use the image runtime-sglang, or install the package sglang",
                "not-installed",
            )

    def version(self) -> str:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version("sglang")
        return "unknown"

    def support(self) -> Support:
        return read_support("SGLang", "sglang_supported.json")

    def check_arguments(self, arguments: Sequence[str]) -> None:
        refuse_owned(self._read(arguments), OWNED)

    def waits(self, task: Task) -> bool:
        return False

    def command(self, task: Task, machine: Host) -> list[str]:
        for arguments in task.arguments:
            self.check_arguments(arguments)
        layers = [self._read(arguments, task.model) for arguments in task.arguments]
        derived = group_options(_derive(task, machine, merge_options(*layers)))
        server = [sys.executable, "-m", "sglang.launch_server", *flatten(merge_options(derived, *layers))]
        return relay_command.wrap(self.name, task, server)

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        # Each /health would make a token, and take a second or more; whether it works, its metrics tell.
        own = {"PYTHONUNBUFFERED": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
        return own | without_credentials(inherited) | offline

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        pass

    def phase_of(self, line: str) -> str | None:
        return find_phase(line, PHASES)

    def read_figures(self, metrics: str) -> Figures:
        return count(metrics, owed=OWED, ended=[ENDED], work=WORK)

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return diagnose(output)

    def _read(self, arguments: Sequence[str], folder: Path | None = None) -> list[Option]:
        """As options with names of their own, spelled out: its parser takes beginnings of names, and no underscores.

        Adapters that are named without a folder and lie in the model's `folder` are those there.
        """
        known = self.support().arguments
        options = [_spell(option, known) for option in group_options(arguments)]
        return [_place(option, folder) if folder and option.name == "lora-paths" else option for option in options]


def _spell(option: Option, known: frozenset[str]) -> Option:
    name = option_name(option.tokens[0])
    longer = [full for full in known if full.startswith(name)]
    name = longer[0] if name not in known and len(longer) == 1 else name
    name = SYNONYMS.get(name, name)
    _, equals, value = option.tokens[0].partition("=")
    return Option(name, (f"--{name}{equals}{value}", *option.tokens[1:]))


def _place(option: Option, folder: Path) -> Option:
    first, equals, value = option.tokens[0].partition("=")
    values = [value, *option.tokens[1:]] if equals else option.tokens[1:]
    return Option(option.name, (first, *(_find(value, folder) for value in values)))


def _find(adapter: str, folder: Path) -> str:
    """`NAME=FOLDER` or `FOLDER`; what is neither, JSON or a path of its own, stays as it is."""
    name, equals, path = adapter.rpartition("=")
    inside = path and not path.startswith(("/", "{")) and (folder / path).is_dir()
    return f"{name}{equals}{folder / path}" if inside else adapter


def _derive(task: Task, machine: Host, given: Sequence[Option]) -> list[str]:
    """What the files and the machine imply; the version's and the user's arguments replace any of it."""
    if task.group is not None:
        raise LongshoreError("Longshore starts SGLang in one pod", "ask for one node")
    if task.adapters:
        raise LongshoreError(
            "SGLang knows adapters as MODEL:ADAPTER, and answers with the base where the adapter's name stands alone",
            "push the adapter's folder with the model and name it in serve.yaml: --lora-paths NAME=FOLDER",
        )
    arguments = ["--model-path", str(task.model), "--served-model-name", task.name]
    arguments += ["--host", relay_command.INNER_HOST, "--port", relay_command.PORT]
    arguments += ["--enable-metrics", "--log-level-http", "warning"]  # the relay's line for a request says more
    if task.geometry and task.geometry.task == "embed":
        arguments += ["--is-embedding"]
    names = {option.name for option in given}
    if task.geometry and machine.gpus and not DIVIDING & names:
        # Where an option says otherwise how to guess, that draft's memory is not known.
        geometry = replace(task.geometry, draft=None) if "speculative-algorithm" in names else task.geometry
        arguments += _divide(machine.gpus, geometry, given)
    if task.geometry and task.geometry.task == "generate":
        arguments += _parser_arguments(task.geometry.parsers)
    return arguments + _speculation_arguments(task.speculation, task.draft)


def _divide(gpus: Sequence[GPU], geometry: Geometry, given: Sequence[Option]) -> list[str]:
    """How the model goes onto the GPUs of this machine: the fewest that hold it with its whole context, then copies.

    What one GPU of them needs beside the weights is reckoned as for vLLM; SGLang has the last word.
    """
    context = _read_context(given) or geometry.context
    wish = Wish(context=context, gpus=len(gpus), per_node=len(gpus))
    outcomes = (fit(geometry, gpus[0], tried, {}) for tried in (wish, replace(wish, context=0), replace(wish, sequences=1)))
    found = next((outcome for outcome in outcomes if isinstance(outcome, Fit)), None)
    if found is None:
        return _size("tensor-parallel-size", tensor_sizes(geometry, len(gpus))[-1])
    return [
        *_size("tensor-parallel-size", found.split.tensor),
        *_size("pipeline-parallel-size", found.split.pipeline),
        *_size("data-parallel-size", len(gpus) // found.split.gpus),
    ]


def _size(option: str, size: int) -> list[str]:
    return [f"--{option}", str(size)] if size > 1 else []


def _read_context(given: Sequence[Option]) -> int:
    """What is asked for as a plain number; 0 where it is not, which the engine reads itself."""
    found = next((" ".join(option.tokens).replace("=", " ").split() for option in given if option.name == "context-length"), [])
    return int(found[1]) if len(found) == 2 and found[1].isdigit() else 0


def _parser_arguments(parsers: Parsers) -> list[str]:
    tools, reasoning = TOOLS.get(parsers.tools or ""), REASONING.get(parsers.reasoning or "")
    arguments = ["--tool-call-parser", tools] if tools else []
    return arguments + (["--reasoning-parser", reasoning] if reasoning else [])


def _speculation_arguments(speculation: Speculation | None, draft: Path | None) -> list[str]:
    """One guess after another (`topk` 1): what is confirmed at once is the guesses and the token before them."""
    if speculation is None or draft is None:
        return []
    arguments = ["--speculative-algorithm", SPECULATION[speculation.method], "--speculative-draft-model-path", str(draft)]
    arguments += ["--speculative-num-steps", str(speculation.tokens), "--speculative-eagle-topk", "1"]
    return [*arguments, "--speculative-num-draft-tokens", str(speculation.tokens + 1)]
