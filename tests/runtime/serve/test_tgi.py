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
from longshore_runtime.serve.engines.tgi import OWNED, TGI
from longshore_runtime.serve.engines.tgi_causes import diagnose
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.options import group_options
from support.published import MODELS

GIB = 1024**3
FACTS = ModelFacts(layers=30, kv_heads=3, head_dim=64, context_length=8192, weight_bytes=98_000_000)
CPU = Host("cpu", 24 * GIB, 2)

DOCUMENTED = frozenset({"model-id", "hostname", "port", "usage-stats", "num-shard", "lora-adapters", "speculate"})
"""The options that the adapter sets, as text-generation-inference documents them.

Source: huggingface/text-generation-inference, docs/source/reference/launcher.md at the release v3.3.5 (8d029d2fc36c), from
which tgi_supported.json is made; how adapters are written, server/text_generation_server/utils/adapter.py there.
"""


def gpus(count: int) -> Host:
    return Host("cuda", 512 * GIB, 32, (GPU("h100", "H100", 80 * GIB, count, "", 9.0),) * count)


def command(*arguments: tuple[str, ...], machine: Host = CPU, **task: Any) -> list[str]:
    """The engine's part: what stands after the relay's."""
    whole = TGI().command(Task(Path("/mnt/models"), "m", FACTS, "0.0.0.0", 8080, 30, arguments, **task), machine)
    at = whole.index("--")
    assert whole[at - 6 : at] == ["--engine", "tgi", "--host", "0.0.0.0", "--port", "8080"]
    assert whole[at + 1 : at + 5] == ["env", "-u", "PYTHONPATH", "text-generation-launcher"]
    return whole[at + 5 :]


def values(tokens: list[str]) -> dict[str, list[str]]:
    found = {option.name: option for option in group_options(tokens)}
    assert len(found) == len(group_options(tokens)), "its parser takes no option twice"
    return {name: [*option.tokens[0].split("=", 1)[1:], *option.tokens[1:]] for name, option in found.items()}


def test_the_facts_imply_the_arguments() -> None:
    wanted = {"model-id": ["/mnt/models"], "hostname": ["127.0.0.1"], "port": ["{port}"], "usage-stats": ["off"]}
    assert values(command()) == wanted


def test_all_that_is_ever_set_is_documented() -> None:
    support = TGI().support()
    assert support.version == "3.3.5"
    assert support.arguments >= DOCUMENTED | OWNED.keys()
    adapters = (Adapter("fr", Path("/mnt/fr"), 8),)
    speculation = Speculation(method="ngram", tokens=5)
    found = command(machine=gpus(4), geometry=MODELS[0].geometry(), adapters=adapters, speculation=speculation)
    assert values(found).keys() == DOCUMENTED
    assert values(found)["speculate"] == ["5"]


@pytest.mark.parametrize(
    ("count", "arguments", "derived"),
    [
        (1, (), {"num-shard": ["1"]}),
        (8, (), {"num-shard": ["8"]}),
        (6, (), {"num-shard": ["4"]}),  # 8 KV heads cannot be divided among six
        (8, ("--num_shard=2",), {"num-shard": ["2"]}),
        (8, ("--sharded", "false"), {"sharded": ["false"]}),
    ],
)
def test_gpus_imply_how_the_model_is_divided(count: int, arguments: tuple[str, ...], derived: Any) -> None:
    geometry = next(model for model in MODELS if model.name == "Llama-3.1-70B").geometry()
    found = values(command(arguments, machine=gpus(count), geometry=geometry))
    assert {option: value for option, value in found.items() if "shard" in option} == derived


def test_the_versions_arguments_win_and_the_users_win_over_them() -> None:
    found = values(command(("--usage-stats=on", "--max_total_tokens", "2048"), ("--max-total-tokens=4096",)))
    assert (found["usage-stats"], found["max-total-tokens"]) == (["on"], ["4096"])


@pytest.mark.parametrize("option", sorted(OWNED))
def test_what_the_launcher_sets_is_refused(option: str) -> None:
    for spelling in (f"--{option}", f"--{option.replace('-', '_')}=x"):
        with pytest.raises(LongshoreError, match=f"--{option} is the launcher's, not the engine's; leave it out"):
            TGI().check_arguments([spelling])


def test_short_options_are_refused_with_their_names() -> None:
    with pytest.raises(LongshoreError, match="-p is short for --port"):
        TGI().check_arguments(["-p", "80"])


def test_adapters_are_served_under_names_of_their_own() -> None:
    adapters = (Adapter("team/fr", Path("/mnt/models/fr"), 8), Adapter("de", Path("/mnt/models/de"), 16))
    assert values(command(adapters=adapters))["lora-adapters"] == ["team/fr=/mnt/models/fr,de=/mnt/models/de"]
    with pytest.raises(LongshoreError, match="cannot be told of the adapter fr@2"):
        command(adapters=(Adapter("fr@2", Path("/mnt/models/fr"), 8),))


def test_what_it_cannot_serve_is_refused() -> None:
    with pytest.raises(LongshoreError, match="in one pod; ask for one node"):
        command(group=Group("m-0.m", 2, 0))
    with pytest.raises(LongshoreError, match="serves models that write text"):
        command(geometry=replace(MODELS[0].geometry(), task="embed"))


def test_a_version_names_it() -> None:
    assert choose_engine(Serving(engine="tgi"), ModelFacts()) == "tgi"


def test_the_engine_gets_no_credentials_and_stays_offline() -> None:
    found = TGI().environment(CPU, {"HOME": "/tmp", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t", "HF_HUB_OFFLINE": "0"})
    assert not {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} & found.keys()
    assert (found["HOME"], found["HF_HUB_OFFLINE"]) == ("/tmp", "1")


METRICS = """# TYPE tgi_batch_inference_count counter
tgi_batch_inference_count{method="prefill"} 3
tgi_batch_inference_count{method="decode"} 40
tgi_batch_inference_success{method="decode"} 39
tgi_request_success 4
tgi_request_failure{err="validation"} 1
tgi_batch_current_size 2
tgi_queue_size 3
"""


def test_its_metrics_tell_whether_it_works() -> None:
    assert TGI().read_figures(METRICS) == Figures(5, 5, (2.0, 3.0, 43.0, 39.0, 0.0))
    assert TGI().read_figures("") == Figures(0, 0, (0.0,) * 5)


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/v1/chat/completions", True),
        ("/generate_stream", True),
        ("/metrics", True),
        ("/info", False),
        ("/docs", False),
        ("/vertex", False),
        ("/generate/x", False),
    ],
)
def test_what_is_the_operators_is_hidden(path: str, public: bool) -> None:
    assert bool(ENGINE_DOORS["tgi"].public.fullmatch(path)) is public


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("INFO shard-manager: text_generation_launcher: Starting shard rank=0", "loading weights"),
        ("INFO shard-manager: text_generation_launcher: Shard ready in 8.51s rank=0", "weights loaded in 8.51s"),
        ("INFO text_generation_router_v3: Warming up model", "warming up"),
        ("INFO text_generation_router_v3: Setting max batch total tokens to 9000", "KV cache for 9000 tokens"),
        ("INFO text_generation_router::server: router/src/server.rs:2300: Connected", "ready"),
        ("INFO text_generation_router: something else", None),
    ],
)
def test_its_output_tells_what_it_does(line: str, step: str | None) -> None:
    assert TGI().phase_of(line) == step


@pytest.mark.parametrize(
    ("line", "cause", "sentence"),
    [
        ("ValueError: Unsupported model type abacus", "unsupported-architecture", "the model type abacus"),
        ("error: unexpected argument '--abacus' found", "wrong-argument", "it does not know the argument --abacus"),
        ("error: invalid value 'x' for '--dtype <DTYPE>'", "wrong-argument", "its argument --dtype cannot be 'x'"),
        ('Error: ArgumentValidation("`num_shard` cannot be < 1")', "wrong-argument", "`num_shard` cannot be < 1"),
        (
            'Error: NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")',
            "too-few-gpus",
            "only found 1 CUDA devices",
        ),
        (
            "ValueError: Adapter 'fr' is not compatible with model '/mnt/models'. Architectures differ: ['A'] != ['B']. Use x",
            "wrong-adapter",
            "the adapter fr is for another model (Architectures differ: ['A'] != ['B'])",
        ),
        ("RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to", "out-of-memory", "4096 tokens"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out-of-memory", "OutOfMemoryError"),
        ("ERROR text_generation_launcher: Shard process was signaled to shutdown with signal 9", "killed", "it was killed"),
        ("FileNotFoundError: No local weights found in /mnt/models with extension .safetensors", "no-weights", ".safetensors"),
        ("RuntimeError: weight model.norm.weight does not exist", "wrong-weights", "model.norm.weight"),
        ("Address already in use (os error 98)", "port-in-use", "in use"),
        ("ValueError: something else", "unknown", "text-generation-inference ended: something else"),
    ],
)
def test_its_last_words_are_understood(line: str, cause: str, sentence: str) -> None:
    failure = diagnose(["INFO text_generation_launcher: Args { model_id: … }", line, "Error: ShardCannotStart"])
    assert failure.cause == cause
    assert sentence in failure.message
    assert failure.hint
