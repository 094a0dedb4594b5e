from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ModelFacts, Serving, Speculation
from longshore_runtime.serve.engines import choose_engine
from longshore_runtime.serve.engines.doors import ENGINE_DOORS
from longshore_runtime.serve.engines.port import Adapter, Figures, Task
from longshore_runtime.serve.engines.sglang import OWNED, REASONING, SYNONYMS, TOOLS, SGLang
from longshore_runtime.serve.engines.sglang_causes import diagnose
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

DOCUMENTED = frozenset(
    {
        "model-path",
        "served-model-name",
        "host",
        "port",
        "enable-metrics",
        "log-level-http",
        "is-embedding",
        "tensor-parallel-size",
        "pipeline-parallel-size",
        "data-parallel-size",
        "tool-call-parser",
        "reasoning-parser",
        "speculative-algorithm",
        "speculative-draft-model-path",
        "speculative-num-steps",
        "speculative-eagle-topk",
        "speculative-num-draft-tokens",
        "lora-paths",
        "context-length",
    }
)
"""The options that the adapter sets or tells of, as SGLang documents them.

Source: sgl-project/sglang, docs/advanced_features/server_arguments.md at commit 004813e1dd46, and the fields of
python/sglang/srt/arg_groups/fields/ in the package sglang 0.5.23, from which sglang_supported.json is made.
"""


def gpus(count: int) -> Host:
    return Host("cuda", 512 * GIB, 32, (GPU("h100", "H100", 80 * GIB, count, "", 9.0),) * count)


def command(*arguments: tuple[str, ...], machine: Host = CPU, **task: Any) -> list[str]:
    """The engine's part: what stands after the relay's."""
    whole = SGLang().command(Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, arguments, **task), machine)
    at = whole.index("--")
    assert whole[at - 6 : at] == ["--engine", "sglang", "--host", "0.0.0.0", "--port", "8080"]
    assert whole[at + 2 : at + 4] == ["-m", "sglang.launch_server"]
    return whole[at + 4 :]


def values(tokens: list[str]) -> dict[str, list[str]]:
    found = {option.name: option for option in group_options(tokens)}
    assert len(found) == len(group_options(tokens)), "an option is there twice"
    return {name: [*option.tokens[0].split("=", 1)[1:], *option.tokens[1:]] for name, option in found.items()}


def test_the_facts_imply_the_arguments() -> None:
    assert values(command()) == {
        "model-path": ["/mnt/models"],
        "served-model-name": ["m"],
        "host": ["127.0.0.1"],
        "port": ["{port}"],
        "enable-metrics": [],
        "log-level-http": ["warning"],
    }


def test_all_that_is_ever_set_is_documented() -> None:
    support = SGLang().support()
    assert support.version == "0.5.23"
    assert support.arguments >= DOCUMENTED | OWNED.keys() | SYNONYMS.keys()
    geometry = replace(MODELS[0].geometry(), parsers=Parsers("hermes", "qwen3"))
    draft = {"speculation": Speculation(method="eagle3"), "draft": Path("/mnt/draft")}
    for found in (geometry, replace(geometry, task="embed")):
        assert values(command(machine=gpus(8), geometry=found, **draft)).keys() <= DOCUMENTED


@pytest.mark.parametrize(
    ("name", "count", "arguments", "derived"),
    [
        ("Llama-3.1-8B", 1, (), {}),
        ("Llama-3.1-8B", 4, (), {"data-parallel-size": ["4"]}),
        ("Llama-3.1-70B", 4, (), {"tensor-parallel-size": ["4"]}),
        ("Llama-3.1-70B", 8, (), {"tensor-parallel-size": ["4"], "data-parallel-size": ["2"]}),
        ("Llama-3.1-70B", 2, (), {"tensor-parallel-size": ["2"]}),
        ("Llama-3.1-70B", 4, ("--context-length=4096",), {"tensor-parallel-size": ["2"], "data-parallel-size": ["2"]}),
        ("Llama-3.1-70B", 4, ("--tp", "4"), {"tensor-parallel-size": ["4"]}),
        ("Llama-3.1-70B", 8, ("--dp_size=2",), {"data-parallel-size": ["2"]}),
        ("Llama-3.1-405B", 4, (), {"tensor-parallel-size": ["4"]}),  # does not fit: the engine has the last word
    ],
)
def test_gpus_imply_how_the_model_is_divided(name: str, count: int, arguments: tuple[str, ...], derived: Any) -> None:
    geometry = next(model for model in MODELS if model.name == name).geometry()
    found = values(command(arguments, machine=gpus(count), geometry=geometry))
    assert {option: value for option, value in found.items() if option.endswith("parallel-size")} == derived


def test_the_versions_arguments_win_and_the_users_win_over_them() -> None:
    found = values(
        command(("--log-level-http=info", "--tp-size", "2"), ("--tensor-parallel-size=4", "--mem_fraction_static=0.8"))
    )
    assert found["log-level-http"] == ["info"]
    assert found["tensor-parallel-size"] == ["4"]
    assert "tp-size" not in found, "two spellings of one option"
    assert "--mem-fraction-static=0.8" in command(("--mem_fraction_static=0.8",)), "its parser takes no underscores"


@pytest.mark.parametrize("option", sorted(OWNED))
def test_what_the_launcher_sets_is_refused(option: str) -> None:
    with pytest.raises(LongshoreError, match=f"--{option} is the launcher's, not the engine's; leave it out"):
        SGLang().check_arguments([f"--{option}=x"])


@pytest.mark.parametrize("option", ["--model=x", "--nccl-init-addr", "--served-model=x", "--served_model_name", "--ssl-cert=x"])
def test_so_are_its_other_spellings(option: str) -> None:
    with pytest.raises(LongshoreError, match="is the launcher's, not the engine's"):
        SGLang().check_arguments([option])


def test_parsers_are_called_by_its_own_names() -> None:
    assert {name for *_, name in KNOWN_TOOLS} >= TOOLS.keys()
    assert {name for *_, name in KNOWN_REASONING} >= REASONING.keys()
    geometry = replace(MODELS[0].geometry(), parsers=Parsers("llama3_json", "deepseek_r1"))
    found = values(command(geometry=geometry))
    assert (found["tool-call-parser"], found["reasoning-parser"]) == (["llama3"], ["deepseek-r1"])
    unknown = values(command(geometry=replace(geometry, parsers=Parsers("jamba", None))))
    assert not {"tool-call-parser", "reasoning-parser"} & unknown.keys()


def test_a_draft_guesses_one_token_after_another() -> None:
    found = values(command(speculation=Speculation(method="draft", tokens=4), draft=Path("/mnt/draft")))
    assert found["speculative-algorithm"] == ["STANDALONE"]
    assert found["speculative-draft-model-path"] == ["/mnt/draft"]
    assert [found[f"speculative-{name}"] for name in ("num-steps", "eagle-topk", "num-draft-tokens")] == [["4"], ["1"], ["5"]]
    assert "ngram" not in SGLang().speculation


def test_adapters_are_those_that_were_pushed_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "adapters/french").mkdir(parents=True)
    arguments = ("--lora-paths", "fr=adapters/french", "de=/elsewhere", "adapters/french")
    task = Task(tmp_path, "m", FACTS, "0.0.0.0", 8080, 30, (arguments,))
    found = values(SGLang().command(task, CPU)[13:])["lora-paths"]
    assert found == [f"fr={tmp_path}/adapters/french", "de=/elsewhere", f"{tmp_path}/adapters/french"]
    with pytest.raises(LongshoreError, match=r"answers with the base where the adapter's name stands alone; .* --lora-paths"):
        SGLang().command(replace(task, adapters=(Adapter("fr", tmp_path, 8),)), CPU)


def test_it_is_started_in_one_pod() -> None:
    with pytest.raises(LongshoreError, match="in one pod; ask for one node"):
        command(group=Group("m-0.m", 2, 0))


def test_a_version_names_it() -> None:
    assert choose_engine(Serving(engine="sglang"), ModelFacts()) == "sglang"


def test_the_engine_gets_no_credentials_and_stays_offline() -> None:
    found = SGLang().environment(CPU, {"HOME": "/tmp", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t", "HF_HUB_OFFLINE": "0"})
    assert not {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} & found.keys()
    assert (found["HOME"], found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"]) == ("/tmp", "1", "1")
    assert found["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "false", "a look has a second"


METRICS = """# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 3.0
sglang:realtime_tokens_total{mode="prefill_compute",model_name="a {b} c"} 33.0
sglang:realtime_tokens_total{mode="decode",model_name="m"} 40.0
sglang:forward_execution_seconds_total{category="decode",model_name="m"} 1.5
sglang:prompt_tokens_total{is_streaming="False",model_name="m"} 8.0e+02
sglang:generation_tokens_total{is_streaming="True",model_name="m"} 7.0
sglang:num_requests_total{is_streaming="False",model_name="m"} 4.0
sglang:num_requests_total{is_streaming="True",model_name="m"} 5.0
"""


def test_its_metrics_tell_whether_it_works() -> None:
    engine = SGLang()
    assert engine.read_figures(METRICS) == Figures(5, 9, (2.0, 3.0, 73.0, 1.5, 800.0, 7.0, 0.0))
    assert engine.read_figures("") == Figures(0, 0, (0.0,) * 7)


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/v1/chat/completions", True),
        ("/v1/models/team/m", True),
        ("/generate", True),
        ("/metrics", True),
        ("/v1/responses/resp_1", False),
        ("/v1/loads", False),
        ("/server_info", False),
        ("/update_weights_from_disk", False),
        ("/load_lora_adapter", False),
        ("/flush_cache", False),
        ("/abort_request", False),
        ("/pause_generation", False),
        ("/health_generate", False),
        ("/v1/models/../loads%2f", False),
    ],
)
def test_what_changes_it_for_everybody_is_hidden(path: str, public: bool) -> None:
    doors = ENGINE_DOORS["sglang"]
    assert bool(doors.public.fullmatch(path)) is public


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("[2026-11-21 10:00:00 TP0] Load weight begin. avail mem=78.58 GB", "loading weights"),
        ("[2026-11-21 10:00:09 TP0] Load weight end. elapsed=8.51 s, type=LlamaForCausalLM", "weights loaded in 8.51 s"),
        ("[2026-11-21 10:00:10 TP0] Memory pool end. avail mem=9.01 GB", "KV cache allocated"),
        ("[2026-11-21 10:00:11 TP0] Capture target decode CUDA graph begin. backend=full", "capturing CUDA graphs"),
        ("[2026-11-21 10:00:30] The server is fired up and ready to roll!", "ready"),
        ("[2026-11-21 10:00:31 TP0] Decode batch, #running-req: 1", None),
    ],
)
def test_its_output_tells_what_it_does(line: str, step: str | None) -> None:
    assert SGLang().phase_of(line) == step


@pytest.mark.parametrize(
    ("line", "cause", "sentence"),
    [
        (
            "ValueError: Model architectures ['AbacusForCausalLM'] are not supported for now. Supported architectures: …",
            "unsupported-architecture",
            "'AbacusForCausalLM'",
        ),
        ("sglang serve: error: unrecognized arguments: --abacus", "wrong-argument", "it does not know the argument --abacus"),
        ("sglang serve: error: argument --dtype: invalid choice: 'x'", "wrong-argument", "its argument --dtype is wrong"),
        (
            "ValueError: Warning: User-specified context_length (9000) is greater than the derived context_length (8192).",
            "context-too-long",
            "--context-length 9000 is more than the model's 8192",
        ),
        ("ValueError: Unknown quantization method: abc. Must be one of ['awq']", "bad-quantization", "quantization abc"),
        (
            (
                "ValueError: Quantization method specified in the model config (awq) does not match the quantization method "
                "specified in the `quantization` argument (fp8)."
            ),
            "bad-quantization",
            "quantized with awq, and fp8 was asked for",
        ),
        (
            (
                "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. "
                "Current capability: 70."
            ),
            "bad-quantization",
            "Current capability: 70.",
        ),
        (
            "ValueError: LoRA adapter fr with rank 64 is incompatible with the current LoRA memory pool configuration.",
            "wrong-adapter",
            "the adapter fr, of rank 64",
        ),
        (
            "Failed to load fr because LoRA serving currently doesn't support DoRA adapters",
            "wrong-adapter",
            "doesn't support DoRA",
        ),
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "out-of-memory", "no room"),
        ("Exception: Capture cuda graph failed: CUDA out of memory. Tried", "out-of-memory", "CUDA graphs"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out-of-memory", "OutOfMemoryError"),
        (
            "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If exit code is -9 (SIGKILL), a common",
            "killed",
            "it was killed",
        ),
        ("the engine was ended by SIGKILL", "killed", "it was killed"),
        ("RuntimeError: Cannot find any model weights with `/mnt/models`", "no-weights", "no weights"),
        ("ERROR: [Errno 98] address already in use", "port-in-use", "in use"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "no-device", "no GPU"),
        ("safetensors_rust.SafetensorError: Error while deserializing header: x", "damaged-weights", "damaged"),
        ("ValueError: something else", "unknown", "SGLang ended: something else"),
    ],
)
def test_its_last_words_are_understood(line: str, cause: str, sentence: str) -> None:
    failure = diagnose(["[2026-11-21 10:00:00] server_args=ServerArgs(model_path='/mnt/models')", line, "Killed"])
    assert failure.cause == cause
    assert sentence in failure.message
    assert failure.hint
