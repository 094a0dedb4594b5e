from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.errors import EngineFailed, LongshoreError, Refused
from longshore_runtime.manifest import ModelFacts, Speculation
from longshore_runtime.serve import host as host_module
from longshore_runtime.serve.engines.port import Adapter, Task
from longshore_runtime.serve.engines.vllm import LORA_RANKS, VLLM
from longshore_runtime.serve.engines.vllm_gate import MIDDLEWARE
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.parsers import Parsers
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.host import Host, parse_gpus, read_host
from support.published import MODELS

GIB = 1024**3
FACTS = ModelFacts(layers=30, kv_heads=3, head_dim=64, context_length=8192, weight_bytes=269_000_000)
CPU, GPU_ALONE = Host("cpu", 24 * GIB, 2), Host("cuda", 128 * GIB, 16)


def command(*arguments: tuple[str, ...], facts: ModelFacts = FACTS, machine: Host = CPU) -> list[str]:
    task = Task(Path("/mnt/models"), "m", facts, "0.0.0.0", 8080, 30, arguments)
    return VLLM().command(task, machine)[3:]


def engine_source(path: str) -> str:
    """A module of the installed engine, as text: importing it takes long."""
    spec = importlib.util.find_spec("vllm")
    assert spec
    assert spec.origin
    return (Path(spec.origin).parent / path).read_text()


def value_of(option: str, tokens: list[str]) -> str | None:
    return tokens[tokens.index(option) + 1] if option in tokens else None


def test_the_files_and_the_machine_imply_the_arguments() -> None:
    tokens = command()
    assert value_of("--model", tokens) == "/mnt/models"
    assert value_of("--served-model-name", tokens) == "m"
    assert value_of("--shutdown-timeout", tokens) == "30"
    assert "--enforce-eager" in tokens
    per_token = 2 * 30 * 3 * 64 * 2
    assert int(value_of("--kv-cache-memory-bytes", tokens) or 0) == max(GIB, 8 * 8192 * per_token)
    assert "--max-model-len" not in tokens


@pytest.mark.parametrize(("kept", "compiler", "compiled"), [(True, "sh", True), (True, "no-such", False), (False, "sh", False)])
def test_steps_for_a_cpu_are_compiled_where_that_is_kept_and_can_be_done(
    kept: bool, compiler: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    task = Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, kept=kept)
    assert ("--enforce-eager" not in VLLM().command(task, Host("cpu", 64 * GIB, 2))) == compiled


def test_compiled_steps_for_a_cpu_are_kept_by_pytorch_alone() -> None:
    assert VLLM().environment(Host("cpu", GIB, 2), {})["VLLM_USE_AOT_COMPILE"] == "0"
    assert VLLM().environment(Host("cpu", GIB, 2), {"VLLM_USE_AOT_COMPILE": "1"})["VLLM_USE_AOT_COMPILE"] == "1"
    assert "VLLM_USE_AOT_COMPILE" not in VLLM().environment(Host("cuda", GIB, 2), {})
    assert 'os.environ.get("VLLM_USE_AOT_COMPILE", default_value) == "1"' in engine_source("envs.py")


def test_adapters_imply_the_engines_options_for_them() -> None:
    folder = Path("/mnt/models/.longshore/adapters")
    adapters = (Adapter("team/sql", folder / "team_sql", 12), Adapter("chat", Path("/a,b"), 8))
    task = Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, ((), ("--max-loras=1",)), adapters=adapters)
    tokens = VLLM().command(task, GPU_ALONE)
    assert value_of("--max-lora-rank", tokens) == "16"
    assert "--enable-lora" in tokens
    assert ("--max-loras" not in tokens, tokens[-1]) == (True, "--max-loras=1"), "the user's wins"
    modules = tokens[tokens.index("--lora-modules") + 1 : -1]
    assert modules == [f"team/sql={folder}/team_sql", '{"name": "chat", "path": "/a,b"}']
    assert not any("lora" in token for token in command())
    later = VLLM().command(replace(task, adapters=adapters[:1], arguments=(), more_adapters=True), GPU_ALONE)
    assert (value_of("--max-loras", later), value_of("--max-lora-rank", later)) == ("4", "16")
    none_yet = VLLM().command(replace(task, adapters=(), arguments=(), more_adapters=True), GPU_ALONE)
    assert none_yet[-5:] == ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "16"]


@pytest.mark.parametrize(
    ("method", "draft", "config"),
    [
        ("ngram", None, {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
        ("draft", "/d", {"method": "draft_model", "model": "/d"}),
        ("eagle", "/d", {"method": "eagle", "model": "/d"}),
        ("eagle3", "/d", {"method": "eagle3", "model": "/d"}),
    ],
)
def test_a_wish_to_speculate_is_the_engines_configuration(method: Any, draft: str | None, config: dict[str, object]) -> None:
    wish = Speculation(method=method, tokens=5)
    task = Task(Path("/m"), "m", FACTS, "", 80, 30, speculation=wish, draft=Path(draft) if draft else None)
    told = json.loads(value_of("--speculative-config", VLLM().command(task, GPU_ALONE)) or "")
    assert told == config | {"num_speculative_tokens": 5}
    source = engine_source("config/speculative.py")
    assert all(f"\n    {name}: " in source for name in told)
    assert f'"{told["method"]}"' in source
    theirs = replace(task, arguments=(("--speculative-config={}",),))
    assert VLLM().command(theirs, GPU_ALONE)[-1] == "--speculative-config={}"
    assert "--speculative-config" not in VLLM().command(theirs, GPU_ALONE)
    assert not any("speculative" in token for token in command())


def test_a_gpu_gets_the_engines_own_defaults() -> None:
    tokens = command(machine=GPU_ALONE)
    assert not {"--enforce-eager", "--kv-cache-memory-bytes", "--max-model-len"} & set(tokens)


H100 = GPU("nvidia h100 80gb hbm3", "NVIDIA H100 80GB HBM3", 79 * GIB, 4, "", 9.0)


@pytest.mark.parametrize(
    ("name", "count", "arguments", "derived"),
    [
        ("Llama-3.1-8B", 1, (), ""),
        ("Llama-3.1-8B", 4, (), "--data-parallel-size 4"),
        ("Llama-3.1-70B", 4, (), "--tensor-parallel-size 4"),
        ("Llama-3.1-70B", 8, (), "--tensor-parallel-size 4 --data-parallel-size 2"),
        ("Llama-3.1-70B", 2, (), "--tensor-parallel-size 2 --max-model-len 19456"),
        ("Llama-3.1-70B", 4, ("--max-model-len", "4k"), "--tensor-parallel-size 2 --data-parallel-size 2"),
        ("Llama-3.1-70B", 4, ("--tensor-parallel-size=4",), ""),
        ("Llama-3.1-405B", 4, (), "--tensor-parallel-size 4"),  # does not fit: the engine has the last word
        ("Qwen2.5-32B", 1, (), "--max-model-len 32768"),
        ("Qwen2.5-32B", 2, (), "--tensor-parallel-size 2"),  # the whole context before two copies
    ],
)
def test_gpus_imply_how_the_model_is_divided(name: str, count: int, arguments: tuple[str, ...], derived: str) -> None:
    geometry = next(model for model in MODELS if model.name == name).geometry()
    machine = Host("cuda", 512 * GIB, 64, (replace(H100, per_node=count),) * count)
    task = Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, (arguments,), geometry)
    tokens = VLLM().command(task, machine)[3:]
    own = [token for token in tokens[tokens.index("--shutdown-timeout") + 2 :] if token not in arguments]
    assert " ".join(own) == derived


@pytest.mark.parametrize(
    ("name", "draft", "count", "arguments", "derived"),
    [
        ("Llama-3.1-70B", "Llama-3.2-1B", 2, (), "--tensor-parallel-size 2 --max-model-len 10240"),
        # An option of one's own says nothing of that one's memory.
        ("Llama-3.1-70B", "Llama-3.2-1B", 2, ("--speculative-config={}",), "--tensor-parallel-size 2 --max-model-len 19456"),
        ("Llama-3.1-70B", "Llama-3.1-8B", 4, ("--max-model-len", "4k"), "--tensor-parallel-size 4"),
        ("Qwen2.5-32B", "Qwen2.5-0.5B", 1, (), "--max-model-len 27648"),
        ("Qwen2.5-14B", "Qwen2.5-7B", 2, (), "--tensor-parallel-size 2"),  # in place of two copies
    ],
)
def test_a_draft_counts_where_a_model_is_divided(
    name: str, draft: str, count: int, arguments: tuple[str, ...], derived: str
) -> None:
    geometry, guessing = (next(model for model in MODELS if model.name == found).geometry() for found in (name, draft))
    machine = Host("cuda", 512 * GIB, 64, (replace(H100, per_node=count),) * count)
    task = Task(Path("/m"), "m", FACTS, "0.0.0.0", 8080, 30, (arguments,), replace(geometry, draft=guessing))
    tokens = VLLM().command(task, machine)[3:]
    own = [token for token in tokens[tokens.index("--shutdown-timeout") + 2 :] if token not in arguments]
    assert " ".join(own) == derived


def test_a_draft_counts_on_a_cpu() -> None:
    geometry = next(model for model in MODELS if model.name == "SmolLM2-135M-Instruct").geometry()
    task = Task(Path("/m"), "m", FACTS, "0.0.0.0", 8080, 30, (), geometry)
    alone, both = (replace(task, geometry=found) for found in (geometry, replace(geometry, draft=geometry)))
    for memory, expected in ((24, (8 * 8192 * 23040, 2 * 8 * 8192 * 23040)), (1, (GIB // 4, GIB // 4))):
        commands = [VLLM().command(found, Host("cpu", memory * GIB, 2)) for found in (alone, both)]
        assert tuple(int(value_of("--kv-cache-memory-bytes", tokens) or 0) for tokens in commands) == expected
    assert [value_of("--max-model-len", tokens) for tokens in commands] == [None, "5120"]


def test_a_group_of_pods_is_one_engine_of_which_the_first_answers() -> None:
    geometry = next(model for model in MODELS if model.name == "Llama-3.1-405B").geometry()
    machine = Host("cuda", 512 * GIB, 64, (replace(H100, per_node=8),) * 8)
    task = Task(Path("/m"), "m", FACTS, "0.0.0.0", 8080, 30, (("--seed=1",),), geometry, group=Group("m-0.m", 2, 0))
    leader, worker = (VLLM().command(replace(task, group=Group("m-0.m", 2, index)), machine) for index in (0, 1))
    assert leader[1:6] == ["-m", "longshore_runtime.serve.engines.vllm_server", "--middleware", MIDDLEWARE, "--model"]
    assert worker[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "/m"]
    assert worker[-2:] == ["--seed=1", "--headless"]
    for index, tokens in enumerate((leader, worker)):
        told = [value_of(option, tokens) for option in ("--nnodes", "--node-rank", "--master-addr")]
        assert told == ["2", str(index), "m-0.m"]
        assert value_of("--tensor-parallel-size", tokens) == "8"
        assert value_of("--pipeline-parallel-size", tokens) == "2"
        assert VLLM().support().find_unknown(tokens[tokens.index("--served-model-name") :]) is None
    apart = {"--headless", "0", "1"}
    assert set(leader[6:]) - apart - {"/m"} == set(worker[4:]) - apart - {"/m"}, "they agree on everything else"
    own = VLLM().command(replace(task, arguments=(("--tensor-parallel-size=16",),)), machine)
    assert "--pipeline-parallel-size" not in own
    assert "--nnodes" not in VLLM().command(replace(task, group=None), machine)


@pytest.mark.engine
def test_the_engine_takes_what_a_group_is_told() -> None:
    """By its own parser, in both roles."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for index in (0, 1):
        task = Task(Path("/m"), "m", FACTS, "0.0.0.0", 8080, 30, group=Group("m-0.m", 2, index))
        tokens = VLLM().command(task, GPU_ALONE)
        found = make_arg_parser(FlexibleArgumentParser()).parse_args(tokens[tokens.index("--served-model-name") :])
        assert (found.nnodes, found.node_rank, found.master_addr, found.headless) == (2, index, "m-0.m", index == 1)


def test_the_chat_template_implies_the_parsers() -> None:
    geometry = replace(MODELS[0].geometry(), parsers=Parsers("hermes", "qwen3"))
    for machine in (CPU, GPU_ALONE):
        task = Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, (("--reasoning-parser=own",),), geometry)
        tokens = VLLM().command(task, machine)
        assert value_of("--tool-call-parser", tokens) == "hermes"
        assert "--enable-auto-tool-choice" in tokens
        assert "--reasoning-parser=own" in tokens
        assert "--reasoning-parser" not in tokens
        embeds = VLLM().command(replace(task, geometry=replace(geometry, task="embed")), machine)
        assert "--tool-call-parser" not in embeds


def test_a_context_that_does_not_fit_is_shortened() -> None:
    facts = FACTS.model_copy(update={"context_length": 10_000_000})
    tokens = command(facts=facts, machine=Host("cpu", 4 * GIB, 2))
    context, cache = int(value_of("--max-model-len", tokens) or 0), int(value_of("--kv-cache-memory-bytes", tokens) or 0)
    assert context % 1024 == 0
    assert 0 < context * 2 * 30 * 3 * 64 * 2 <= cache < 2 * GIB


def test_the_user_wins_over_the_version_and_the_version_over_us() -> None:
    version = ("--max-model-len=4096", "--no-enforce-eager", "--dtype", "float32")
    tokens = command(version, ("--max_model_len", "1024"))
    assert tokens.count("--max-model-len=4096") == 0
    assert value_of("--max_model_len", tokens) == "1024"
    assert value_of("--dtype", tokens) == "float32"
    assert "--no-enforce-eager" in tokens
    assert "--enforce-eager" not in tokens


def test_what_we_derive_the_engine_knows() -> None:
    geometry = replace(next(model for model in MODELS if model.name == "Llama-3.1-70B").geometry(), parsers=Parsers("a", "b"))
    wish, adapters = Speculation(method="ngram"), (Adapter("sql", Path("/sql"), 8),)
    support = VLLM().support()
    for machine in (CPU, Host("cuda", 512 * GIB, 64, (replace(H100, per_node=8),) * 8)):
        task = Task(Path("/m"), "m", FACTS, "", 80, 30, (), geometry, adapters, Path("/arrivals"), wish)
        tokens = VLLM().command(task, machine)
        assert support.find_unknown(tokens[tokens.index("--middleware") :]) is None
    assert support.find_unknown(["--no-enable-lora", "--max_model_len=1", "-x", "--tensor-par=2"]) is None
    assert support.find_unknown(["--dtype", "half", "--hasty=1", "--lazy"]) == "--hasty=1"


@pytest.mark.parametrize("argument", ["--port=1", "--host", "--model=/x", "--served_model_name"])
def test_what_the_launcher_must_know_is_not_the_engines(argument: str) -> None:
    with pytest.raises(LongshoreError, match="is the launcher's, not the engine's; leave it out; "):
        command((argument,))


def test_the_environment_is_offline_and_without_credentials() -> None:
    inherited = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_TOKEN": "secret",
        "STORAGE_CONFIG": "secret",
        "VLLM_PORT": "tcp://10.0.0.1:8000",
        "HF_HUB_OFFLINE": "0",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    found = VLLM().environment(CPU, inherited)
    assert "secret" not in found.values()
    assert "VLLM_PORT" not in found
    assert (found["HF_HUB_OFFLINE"], found["VLLM_LOGGING_LEVEL"], found["PATH"]) == ("1", "DEBUG", "/bin")
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in VLLM().environment(GPU_ALONE, inherited)


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        (
            "INFO [model.py:733] Resolved architecture: LlamaForCausalLM",
            "starting the engine's core for LlamaForCausalLM",
        ),
        ("Loading safetensors checkpoint shards:  67% Completed | 2/3 [00:00<00:00,  3.71it/s]", "loading weights: 2/3 shards"),
        ("INFO [default_loader.py:501] Loading weights took 0.75 seconds", "weights loaded in 0.75 s"),
        ("INFO [kv_cache_utils.py:2327] CPU KV cache size: 46,592 tokens, Maximum", "KV cache for 46,592 tokens; warming up"),
        ("INFO [cpu_model_runner.py:87] Warming up model for the compilation...", "compiling the model"),
        ("WARNING [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs", None),
    ],
)
def test_phases_are_read_from_the_log(line: str, phase: str | None) -> None:
    assert VLLM().phase_of(line) == phase


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineFailed, match="vLLM is not installed; in a checkout run: make setup"):
        VLLM().require()


def test_this_machine_is_described() -> None:
    host = read_host()
    assert host.cores >= 1
    assert GIB // 2 < host.memory < 1024 * GIB


def test_cores_are_what_the_control_group_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "count_cores", lambda: 0.4)
    assert read_host().cores == 1


def test_without_vllm_and_without_a_driver_it_is_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_is_installed", lambda _: False)
    monkeypatch.setattr(host_module.shutil, "which", lambda _: None)
    assert read_host().device == "cpu"
    monkeypatch.setattr(host_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(host_module, "_read_gpus", tuple)
    assert read_host().device == "cuda"


def test_the_drivers_answer_is_read() -> None:
    line = "NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled\n"
    found = parse_gpus(line * 8)
    assert len(found) == 8
    assert (found[0].name, found[0].per_node, found[0].capability) == ("nvidia h100 80gb hbm3", 8, 9.0)
    assert 76 * GIB < found[0].memory < 79 * GIB
    assert len(parse_gpus(line * 8, "0,1")) == 2
    assert parse_gpus(line * 8, "") == ()
    assert len(parse_gpus("Tesla T4, 15360, 7.5, [N/A]\n")) == 1
    for unusable in (
        "",
        line.replace("Disabled", "Enabled"),
        line + "NVIDIA A10, 23028, 8.6, [N/A]",
        "x, [N/A], 1, -",
        "a, 1, x, -",
    ):
        assert parse_gpus(unusable) == ()


def test_the_ranks_are_the_engines() -> None:
    source = engine_source("config/lora.py")
    assert f"MaxLoRARanks = Literal[{', '.join(map(str, LORA_RANKS))}]" in source


METRICS = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 7.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 40.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
"""


def test_metrics_tell_what_the_core_has_done() -> None:
    found = VLLM().read_figures(METRICS)
    assert (found.owed, found.ended) == (6, 7)
    assert found.progress == (4, 2, 40, 0, 0, 0, 0.25)


def test_sleep_is_asked_for_as_the_engine_has_it() -> None:
    router = engine_source("entrypoints/serve/dev/sleep/api_router.py")
    mode = VLLM().sleep_mode
    assert mode
    for path in (mode.sleep[0], mode.wake[0], mode.question):
        assert re.search(rf'@router\.(get|post)\("{path.partition("?")[0]}"\)', router)
    assert re.search(r"level: Annotated\[int, Query\(ge=0, le=2\)\] = 1,\s+mode: Annotated\[PauseMode", router)
    assert mode.sleep[0].endswith("?level=1&mode=abort")
    assert 'JSONResponse(content={"is_sleeping": is_sleeping})' in router
    assert [mode.sleeps(text) for text in ('{"is_sleeping": true}', '{"is_sleeping": false}')] == [True, False]
    assert 'bool(int(os.getenv("VLLM_SERVER_DEV_MODE", "0")))' in engine_source("envs.py")
    assert dict(mode.environment) == {"VLLM_SERVER_DEV_MODE": "1"}
    assert {"enable-sleep-mode", "no-log-error-stack"} <= VLLM().support().arguments


def test_where_the_engine_would_refuse_to_sleep_we_do() -> None:
    assert "self._enum in (PlatformEnum.CUDA, PlatformEnum.ROCM, PlatformEnum.XPU)" in engine_source("platforms/interface.py")
    assert "Sleep mode is not supported on current platform" in engine_source("config/model.py")
    mode = VLLM().sleep_mode
    assert mode
    mode.require(GPU_ALONE)
    with pytest.raises(Refused, match="has no memory of a device to give back on a CPU"):
        mode.require(CPU)


def test_only_one_that_is_to_sleep_is_told_so() -> None:
    task = Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30)
    assert "--enable-sleep-mode" not in VLLM().command(task, GPU_ALONE)
    assert "VLLM_SERVER_DEV_MODE" not in VLLM().environment(GPU_ALONE, {})
    tokens = VLLM().command(replace(task, sleepable=True, arguments=(("--log-error-stack",),)), GPU_ALONE)
    assert "--enable-sleep-mode" in tokens
    assert ("--no-log-error-stack" in tokens, tokens[-1]) == (False, "--log-error-stack"), "the user's wins"
