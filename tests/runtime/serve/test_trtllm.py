from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ModelFacts, Serving, Speculation
from longshore_runtime.serve.engines import choose_engine
from longshore_runtime.serve.engines.doors import ENGINE_DOORS
from longshore_runtime.serve.engines.port import Adapter, Figures, Task
from longshore_runtime.serve.engines.trtllm import OWNED, REASONING, SYNONYMS, TOOLS, TensorRTLLM
from longshore_runtime.serve.engines.trtllm_causes import diagnose
from longshore_runtime.serve.engines.trtllm_server import NEEDED, Wrong, merge, read
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.parsers import REASONING as KNOWN_REASONING
from longshore_runtime.serve.fit.parsers import TOOLS as KNOWN_TOOLS
from longshore_runtime.serve.fit.parsers import Parsers
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import group_options
from support.published import MODELS

GIB = 1024**3
FACTS = ModelFacts(layers=30, kv_heads=3, head_dim=64, context_length=8192, weight_bytes=98_000_000)
CPU = Host("cpu", 24 * GIB, 2)
STARTER = "longshore_runtime.serve.engines.trtllm_server"

DOCUMENTED = frozenset({"host", "port", "backend", "tool-parser", "reasoning-parser", "config"})
"""The options that the adapter sets, as TensorRT-LLM documents them.

Source: NVIDIA/TensorRT-LLM at the version 1.3.0rc3, its repository as of 7 February 2026, which is not the tag itself:
tensorrt_llm/commands/serve.py (the options of `serve`, from which trtllm_supported.json is made, with the architectures that
tensorrt_llm/_torch/models registers); llmapi/llm_args.py (the settings in its file); serve/openai_server.py (paths);
executor/proxy.py and cpp/tensorrt_llm/executor/jsonSerialization.cpp (what /metrics answers); metrics/collector.py
(/prometheus/metrics); _torch/pyexecutor, _torch/model_config.py, _torch/modules/linear.py and mapping.py (messages).
"""

SETTINGS = frozenset(
    {"tensor_parallel_size", "pipeline_parallel_size", "speculative_config", "enable_iter_perf_stats", "return_perf_metrics"}
)
"""Fields of `TorchLlmArgs` (llmapi/llm_args.py) that the adapter knows of."""


def gpus(count: int) -> Host:
    return Host("cuda", 512 * GIB, 32, (GPU("h100", "H100", 80 * GIB, count, "", 9.0),) * count)


def started(*arguments: tuple[str, ...], machine: Host = CPU, **task: Any) -> tuple[dict[str, Any], list[str]]:
    """The settings that it is started with, and what follows the model in its command."""
    folder = task.pop("folder", Path("/mnt/models"))
    whole = TensorRTLLM().command(Task(folder, "m", FACTS, "0.0.0.0", 8080, 30, arguments, **task), machine)
    at = whole.index("--")
    assert whole[at - 6 : at] == ["--engine", "trtllm", "--host", "0.0.0.0", "--port", "8080"]
    assert whole[at + 1 : at + 4] == [sys.executable, "-m", STARTER]
    assert whole[at + 5 : at + 8] == ["trtllm-serve", "serve", str(folder)]
    return json.loads(whole[at + 4]), whole[at + 8 :]


def values(tokens: list[str]) -> dict[str, list[str]]:
    found = {option.name: option for option in group_options(tokens)}
    assert len(found) == len(group_options(tokens)), "an option is there twice"
    assert "-" not in "".join(option.tokens[0][2:].partition("=")[0] for option in found.values()), "it takes no dashes"
    return {name: [*option.tokens[0].split("=", 1)[1:], *option.tokens[1:]] for name, option in found.items()}


def test_the_facts_imply_the_arguments() -> None:
    settings, options = started()
    assert values(options) == {"host": ["127.0.0.1"], "port": ["{port}"], "backend": ["pytorch"]}
    assert settings == {}


def test_all_that_is_ever_set_is_documented() -> None:
    support = TensorRTLLM().support()
    assert support.version == "1.3.0rc3"
    assert support.arguments >= DOCUMENTED | OWNED.keys() | SYNONYMS.keys() | set(SYNONYMS.values())
    geometry = replace(MODELS[0].geometry(), parsers=Parsers("hermes", "qwen3"))
    speculation = Speculation(method="ngram", tokens=5)
    settings, options = started(("--config=x.yaml",), machine=gpus(4), geometry=geometry, speculation=speculation)
    assert values(options).keys() == DOCUMENTED
    assert settings.keys() | NEEDED.keys() <= SETTINGS
    assert support.quantizations == {"compressed-tensors", "fp8", "modelopt", "mxfp4"}
    assert [support.kind_of(name) for name in ("Eagle3DeepSeekV3ForCausalLM", "CLIPVisionModel")] == ["draft", None]


@pytest.mark.parametrize(
    ("count", "arguments", "size"),
    [
        (1, (), 1),
        (8, (), 8),
        (6, (), 4),  # 8 KV heads cannot be divided among six
        (8, ("--tp_size=2",), None),
        (8, ("--pp-size", "2", "--ep_size=2"), None),
        (8, ("--ep_size=2",), 8),
    ],
)
def test_gpus_imply_how_the_model_is_divided(count: int, arguments: tuple[str, ...], size: int | None) -> None:
    geometry = next(model for model in MODELS if model.name == "Llama-3.1-70B").geometry()
    settings, _ = started(arguments, machine=gpus(count), geometry=geometry)
    assert settings.get("tensor_parallel_size") == size


def test_the_versions_arguments_win_and_the_users_win_over_them() -> None:
    _, options = started(
        ("--max-seq-len=4096", "--kv_cache_free_gpu_memory_fraction", "0.8"),
        ("--max_seq_len=2048", "--free-gpu-memory-fraction=0.7", "--trust-remote-code"),
    )
    found = values(options)
    assert (found["max-seq-len"], found["free-gpu-memory-fraction"]) == (["2048"], ["0.7"])
    assert "--trust_remote_code" in options


@pytest.mark.parametrize("option", sorted(OWNED))
def test_what_the_launcher_sets_is_refused(option: str) -> None:
    for spelling in (f"--{option}", f"--{option.replace('-', '_')}=x"):
        with pytest.raises(LongshoreError, match=f"--{option} is the launcher's, not the engine's; leave it out"):
            TensorRTLLM().check_arguments([spelling])


def test_a_file_of_settings_may_be_pushed_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("kv_cache_config: {dtype: fp8}\n")
    for arguments in (("--config", "own.yaml"), ("--extra_llm_api_options=own.yaml",), ("--config=other", "--config=own.yaml")):
        assert started(arguments, folder=tmp_path)[1][-2:] == ["--config", str(tmp_path / "own.yaml")]
    assert started(("--config=/etc/own.yaml",), folder=tmp_path)[1][-2:] == ["--config", "/etc/own.yaml"]


def test_the_users_settings_win_but_for_what_the_launcher_needs() -> None:
    derived = {"tensor_parallel_size": 4, "speculative_config": {"decoding_type": "NGram"}}
    assert merge(derived, {}) == derived | NEEDED
    assert merge(derived, {"pipeline_parallel_size": 2, "enable_iter_perf_stats": False}) == (
        {"pipeline_parallel_size": 2, "speculative_config": {"decoding_type": "NGram"}} | NEEDED
    )
    with pytest.raises(Wrong, match="it sets model, which is the launcher's"):
        merge(derived, {"model": "other/model"})


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n", "not a table of settings"), ("a: [", "parsing"), (None, "No such file")]
)
def test_a_file_without_settings_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(Wrong, match=message):
        read(tmp_path / "own.yaml")


def test_the_command_takes_the_place_of_its_starter(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("max_batch_size: 8\n")
    shown = [sys.executable, "-c", "import os, sys; print(os.getpid(), *sys.argv[1:])", "--host", "h"]
    starter = [sys.executable, "-m", STARTER, '{"tensor_parallel_size": 2}', *shown]
    for more, expected in (((), {}), (("--config", str(tmp_path / "own.yaml")), {"max_batch_size": 8})):
        with subprocess.Popen([*starter, *more], stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate(timeout=60)
        pid, *arguments, path = output.split()
        assert (int(pid), arguments) == (process.pid, ["--host", "h", "--config"])
        assert yaml.safe_load(Path(path).read_text()) == {"tensor_parallel_size": 2} | expected | NEEDED
        Path(path).unlink()
    done = subprocess.run([*starter, "--config", "/nowhere.yaml"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert diagnose(done.stderr.splitlines()).message.startswith(
        "TensorRT-LLM refused the model: the settings in /nowhere.yaml"
    )


def test_parsers_are_called_by_its_own_names() -> None:
    assert {name for *_, name in KNOWN_TOOLS} >= TOOLS.keys()
    assert {name for *_, name in KNOWN_REASONING} >= REASONING.keys()
    geometry = replace(MODELS[0].geometry(), parsers=Parsers("hermes", "deepseek_r1"))
    found = values(started(geometry=geometry)[1])
    assert (found["tool-parser"], found["reasoning-parser"]) == (["qwen3"], ["deepseek-r1"])
    unknown = values(started(geometry=replace(geometry, parsers=Parsers("jamba", None)))[1])
    assert not {"tool-parser", "reasoning-parser"} & unknown.keys()


def test_it_guesses_by_a_setting() -> None:
    ngram, _ = started(speculation=Speculation(method="ngram", tokens=5))
    assert ngram["speculative_config"] == {"decoding_type": "NGram", "max_draft_len": 5, "max_matching_ngram_size": 4}
    eagle, _ = started(speculation=Speculation(method="eagle3", tokens=4), draft=Path("/mnt/draft"))
    assert eagle["speculative_config"] == {"decoding_type": "Eagle3", "max_draft_len": 4, "speculative_model": "/mnt/draft"}
    assert TensorRTLLM().speculation == {"ngram", "draft", "eagle3"}


def test_what_it_cannot_serve_is_refused() -> None:
    with pytest.raises(LongshoreError, match="in one pod; ask for one node"):
        started(group=Group("m-0.m", 2, 0))
    with pytest.raises(LongshoreError, match="serves models that write text"):
        started(geometry=replace(MODELS[0].geometry(), task="embed"))
    with pytest.raises(LongshoreError, match=r"by a path in each request .*; merge it into the model, or serve it with vllm"):
        started(adapters=(Adapter("fr", Path("/mnt/fr"), 8),))


def test_a_version_names_it() -> None:
    assert choose_engine(Serving(engine="trtllm"), ModelFacts()) == "trtllm"


def test_the_engine_gets_no_credentials_and_stays_offline() -> None:
    found = TensorRTLLM().environment(
        CPU, {"HOME": "/tmp", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t", "HF_HUB_OFFLINE": "0"}
    )
    assert not {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} & found.keys()
    assert (found["HOME"], found["HF_HUB_OFFLINE"]) == ("/tmp", "1")


ITERATIONS = (
    '[{"iter": 153, "iterLatencyMS": 7.1, "numActiveRequests": 2, "numQueuedRequests": 3, "kvCacheStats": {"usedNumBlocks": 3}}'
    ', {"iter": 154, "iterLatencyMS": 7, "numActiveRequests": 1, "numQueuedRequests": 3, "kvCacheStats": {"usedNumBlocks": 3}}]'
)


def test_its_iterations_tell_whether_it_works() -> None:
    engine = TensorRTLLM()
    assert engine.read_figures(ITERATIONS) == Figures(4, 0, (154.0,))
    for nothing in ("[]", "", "{}", '[{"iter": 1}]', "[1]", "null"):
        assert engine.read_figures(nothing) == Figures()


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/v1/chat/completions", True),
        ("/v1/responses", True),
        ("/health", True),
        ("/prometheus/metrics", True),
        ("/prometheus/metrics/", True),
        ("/metrics", False),
        ("/v1/responses/resp_1", False),
        ("/perf_metrics", False),
        ("/kv_cache_events", False),
        ("/health_generate", False),
        ("/release_memory", False),
        ("/update_weights", False),
        ("/server_info", False),
        ("/docs", False),
    ],
)
def test_what_is_the_operators_is_hidden(path: str, public: bool) -> None:
    assert bool(ENGINE_DOORS["trtllm"].public.fullmatch(path)) is public


def test_only_its_iterations_take_their_time() -> None:
    doors = ENGINE_DOORS["trtllm"]
    assert [bool(doors.slow.fullmatch(path)) for path in ("/metrics", "/health", "/prometheus/metrics")] == [True, False, False]
    assert doors.uncounted.fullmatch(TensorRTLLM.metrics_path)
    assert not ENGINE_DOORS["sglang"].slow.fullmatch("/metrics")


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("[11/21/2026-10:00:00] [TRT-LLM] [RANK 0] [I] Prefetching 14.96GB checkpoint files.", "reading 14.96 GB of weights"),
        ("[11/21/2026-10:00:09] [TRT-LLM] [I] Use 14.96 GB for model weights.", "loading 14.96 GB of weights"),
        ("[11/21/2026-10:00:10] [TRT-LLM] [I] Running autotuner warmup...", "trying out kernels"),
        (
            "[11/21/2026-10:00:11] [TRT-LLM] [I] Creating CUDA graph instances for 34 batch sizes.",
            "capturing CUDA graphs for 34 batch sizes",
        ),
        ("[11/21/2026-10:00:20] [TRT-LLM] [I] Estimated max memory in KV cache : 51.20 GiB", "KV cache of 51.20 GiB"),
        ("INFO:     Uvicorn running on socket ('127.0.0.1', 8000) (Press CTRL+C to quit)", "warming up"),
        ("[11/21/2026-10:00:31] [TRT-LLM] [I] something else", None),
    ],
)
def test_its_output_tells_what_it_does(line: str, step: str | None) -> None:
    assert TensorRTLLM().phase_of(line) == step


@pytest.mark.parametrize(
    ("line", "cause", "sentence"),
    [
        (
            "ValueError: Unknown architecture for AutoModelForCausalLM: AbacusForCausalLM",
            "unsupported-architecture",
            "the architecture AbacusForCausalLM",
        ),
        ("Error: No such option: --abacus", "wrong-argument", "it does not know the argument --abacus"),
        ("Error: No such option '--abacus'.", "wrong-argument", "it does not know the argument --abacus"),
        (
            "Error: Invalid value for '--max_seq_len': 'x' is not a valid integer.",
            "wrong-argument",
            "its argument --max_seq_len is wrong: 'x' is not a valid integer.",
        ),
        ("Error: Got unexpected extra argument (true)", "wrong-argument", "unexpected extra argument (true)"),
        ("ValueError: LLM got invalid argument: abacus", "wrong-argument", "it has no setting abacus"),
        ("RuntimeError: Only 1 GPUs are available, but 2 are required.", "too-few-gpus", "to use 2 GPUs and sees 1"),
        ("ValueError: No GPU devices found on the node", "no-device", "it sees no GPU"),
        ("AssertionError: out_features 1152 must be divisible by tp_size 5", "wrong-division", "among 5 GPUs"),
        ("ValueError: num_experts (8) must be divisible by moe_ep_size (3)", "wrong-division", "8 experts"),
        (
            "ValueError: moe_tp_size * moe_ep_size * moe_cluster_size must equal to moe_world_size, but got 2 != 4",
            "wrong-division",
            "but got 2 != 4",
        ),
        ("ValueError: Unsupported quant_bits: 4. Supported: 8.", "bad-quantization", "(quant_bits: 4)"),
        ("ValueError: Unsupported weights_quant_strategy: tensor. Supported", "bad-quantization", "quant_strategy: tensor"),
        ("AssertionError: FP8_BLOCK_SCALES only supports block_size=(128,128)", "bad-quantization", "128 by 128"),
        (
            (
                "RuntimeError: Executor creation failed due to insufficient GPU memory.\n\n"
                "The following component could not be created: KV cache\nTotal GPU memory (GiB): 79.18"
            ),
            "out-of-memory",
            "(for KV cache)",
        ),
        ("AssertionError: Impossible to fit in any sequence in kvCache", "out-of-memory", "no room for a KV cache"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out-of-memory", "OutOfMemoryError"),
        (
            "RuntimeError: [TensorRT-LLM][ERROR] Failed, NCCL error x.cpp:88 'unhandled cuda error (run with NCCL_DEBUG=INFO)'",
            "nccl",
            "cannot talk to each other",
        ),
        ("the engine was ended by SIGKILL", "killed", "it was killed"),
        ("RuntimeError: No weight files found in /mnt/models.", "no-weights", "no weights in /mnt/models"),
        (
            "RuntimeError: Failed to bind socket to 127.0.0.1:8000: [Errno 98] Address already in use",
            "port-in-use",
            "its port is in use",
        ),
        ("RuntimeError: Executor worker died during initialization", "killed", "a worker ended without a word"),
        ("ValueError: something else", "unknown", "TensorRT-LLM ended: something else"),
    ],
)
def test_its_last_words_are_understood(line: str, cause: str, sentence: str) -> None:
    failure = diagnose(["[11/21/2026-10:00:00] [TRT-LLM] [I] Starting", *line.split("\n"), "Aborted"])
    assert failure.cause == cause
    assert sentence in failure.message
    assert failure.hint
