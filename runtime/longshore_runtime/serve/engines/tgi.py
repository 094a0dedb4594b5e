"""text-generation-inference (TGI), on GPUs. Options, metrics and messages as of 3.3.5, from its source; it was not run here.

The relay stands before it: its server, which is not in Python, takes no middleware.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from longshore_runtime.errors import EngineFailed, LongshoreError
from longshore_runtime.serve.engines import relay_command
from longshore_runtime.serve.engines.counters import count
from longshore_runtime.serve.engines.credentials import without_credentials
from longshore_runtime.serve.engines.phases import find_phase
from longshore_runtime.serve.engines.port import Adapter, AdapterChanges, Figures, SleepMode, Task
from longshore_runtime.serve.engines.support import Support, option_name, read_support
from longshore_runtime.serve.engines.tgi_causes import diagnose
from longshore_runtime.serve.fit.parallel import tensor_sizes
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import Option, flatten, group_options, merge_options, refuse_owned, refuse_short

BINARY = "text-generation-launcher"

CLEAN = ("env", "-u", "PYTHONPATH")
"""Before the command: its own Python must not find our packages before those that it was built with."""

_REFERENCE, _GATEWAY = "the reference", "a route of the gateway"
OWNED = {
    "model-id": _REFERENCE,
    "revision": _REFERENCE,
    "weights-cache-override": _REFERENCE,
    "hostname": "--host",
    "port": "--port",
    "ngrok": _GATEWAY,
    "ngrok-authtoken": _GATEWAY,
    "ngrok-edge": _GATEWAY,
}
"""Options that the launcher sets or must know, with where a user sets them instead."""

DIVIDING = frozenset({"num-shard", "sharded"})
"""Options with which somebody has divided the model already."""

OWED = ("tgi_batch_current_size", "tgi_queue_size")
ENDED = ("tgi_request_success", "tgi_request_failure")
WORK = (
    "tgi_batch_inference_count",  # one more with each step
    "tgi_batch_inference_success",
    "tgi_batch_inference_failure",
)

PHASES = (
    (re.compile(r"Starting check and download process"), "looking for the weights"),
    (re.compile(r"Starting shard"), "loading weights"),
    (re.compile(r"Shard ready in ([\d.]+m?s)"), "weights loaded in {0}"),
    (re.compile(r"Starting Webserver"), "starting the HTTP server"),
    (re.compile(r"Warming up model"), "warming up"),
    (re.compile(r"Setting max batch total tokens to (\d+)"), "KV cache for {0} tokens"),
    (re.compile(r"\bConnected\b"), "ready"),
)


class TGI:
    """The adapter of text-generation-inference."""

    name = "tgi"
    health_path = "/health"
    metrics_path = "/metrics"
    caches: Mapping[str, str] = MappingProxyType({"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"})
    speculation = frozenset({"ngram"})
    adapter_changes: AdapterChanges | None = None
    sleep_mode: SleepMode | None = None

    def require(self) -> None:
        relay_command.require(self.name)
        if not shutil.which(BINARY):
            raise EngineFailed(
                "the engine text-generation-inference is not installed",
                f"use the image runtime-tgi, which has {BINARY} on its PATH",
                "not-installed",
            )

    def version(self) -> str:
        with suppress(OSError, subprocess.SubprocessError, IndexError):
            done = subprocess.run([*CLEAN, BINARY, "--version"], capture_output=True, text=True, timeout=30, check=True)
            return done.stdout.split()[-1]
        return "unknown"

    def support(self) -> Support:
        return read_support("text-generation-inference", "tgi_supported.json")

    def check_arguments(self, arguments: Sequence[str]) -> None:
        refuse_short(arguments, self.support().short)
        refuse_owned(_read(arguments), OWNED)

    def waits(self, task: Task) -> bool:
        return False

    def command(self, task: Task, machine: Host) -> list[str]:
        for arguments in task.arguments:
            self.check_arguments(arguments)
        layers = [_read(arguments) for arguments in task.arguments]
        derived = group_options(_derive(task, machine, merge_options(*layers)))
        return relay_command.wrap(self.name, task, [*CLEAN, BINARY, *flatten(merge_options(derived, *layers))])

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return {"PYTHONUNBUFFERED": "1"} | without_credentials(inherited) | offline

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        pass

    def phase_of(self, line: str) -> str | None:
        return find_phase(line, PHASES)

    def read_figures(self, metrics: str) -> Figures:
        return count(metrics, owed=OWED, ended=ENDED, work=WORK)

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return diagnose(output)


def _read(arguments: Sequence[str]) -> list[Option]:
    """As options spelled the way its parser takes them, with dashes."""
    return [_spell(option) for option in group_options(arguments)]


def _spell(option: Option) -> Option:
    name = option_name(option.tokens[0])
    _, equals, value = option.tokens[0].partition("=")
    return Option(name, (f"--{name}{equals}{value}", *option.tokens[1:]))


def _derive(task: Task, machine: Host, given: Sequence[Option]) -> list[str]:
    """What the files and the machine imply; the version's and the user's arguments replace any of it."""
    if task.group is not None:
        raise LongshoreError("text-generation-inference serves a model in one pod", "ask for one node")
    if task.geometry and task.geometry.task != "generate":
        raise LongshoreError("text-generation-inference serves models that write text", "serve this one with vllm")
    arguments = ["--model-id", str(task.model), "--hostname", relay_command.INNER_HOST, "--port", relay_command.PORT]
    arguments += ["--usage-stats", "off"]
    if task.geometry and machine.gpus and not DIVIDING & {option.name for option in given}:
        # It makes no copies: each layer goes over as many GPUs as can share it.
        arguments += ["--num-shard", str(tensor_sizes(task.geometry, len(machine.gpus))[-1])]
    if task.adapters:
        arguments += ["--lora-adapters", ",".join(map(_name_adapter, task.adapters))]
    if task.speculation:
        arguments += ["--speculate", str(task.speculation.tokens)]
    return arguments


def _name_adapter(adapter: Adapter) -> str:
    """`NAME=FOLDER`, in which its parser takes no further sign that means something in a list of them."""
    if re.search(r"[,=@]", f"{adapter.name}{adapter.folder}"):
        raise LongshoreError(
            f"text-generation-inference cannot be told of the adapter {adapter.name} in {adapter.folder}",
            "choose a name and a folder without commas, equals signs and @",
        )
    return f"{adapter.name}={adapter.folder}"
