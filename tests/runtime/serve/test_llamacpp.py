from __future__ import annotations

from pathlib import Path

import pytest

from longshore_runtime.errors import InvalidModel, LongshoreError
from longshore_runtime.manifest import ModelFacts, Serving
from longshore_runtime.serve.engines import choose_engine
from longshore_runtime.serve.engines.llamacpp import SLOTS, LlamaCpp, cache_per_token, divide_memory
from longshore_runtime.serve.engines.llamacpp_causes import diagnose
from longshore_runtime.serve.engines.llamacpp_files import choose_files, find_files
from longshore_runtime.serve.engines.llamacpp_server import parse
from longshore_runtime.serve.engines.port import Adapter, Figures, Task
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.host import Host
from support.models import write_gguf

GIB = 1024**3
FACTS = ModelFacts(layers=30, kv_heads=3, head_dim=64, context_length=8192, weight_bytes=98_000_000, quantization="gguf")
CPU = Host("cpu", 24 * GIB, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf").parent


def command(folder: Path, *arguments: tuple[str, ...], facts: ModelFacts = FACTS, machine: Host = CPU) -> list[str]:
    """The engine's part: what stands after the relay's."""
    whole = LlamaCpp().command(Task(folder, "m", facts, "0.0.0.0", 8080, 30, arguments), machine)
    at = whole.index("--")
    assert whole[at - 4 : at] == ["--host", "0.0.0.0", "--port", "8080"]
    return whole[at + 1 :]


def value_of(option: str, tokens: list[str]) -> str | None:
    assert tokens.count(option) <= 1
    return tokens[tokens.index(option) + 1] if option in tokens else None


def test_the_files_and_the_machine_imply_the_arguments(folder: Path) -> None:
    tokens = command(folder)
    wanted = {"--model": str(folder / "m.gguf"), "--alias": "m", "--host": "127.0.0.1", "--port": "{port}"}
    wanted |= {"--threads": "2", "--parallel": "4", "--ctx-size": "32768"}
    assert {name: value_of(name, tokens) for name in wanted} == wanted
    assert {"--metrics", "--offline", "--no-webui"} <= set(tokens)


def test_its_own_parser_takes_them(folder: Path) -> None:
    flags = command(folder, ("--cache-type-k=q8_0", "--temp=0.5", "--api-key", "a,b"))
    flags = [flag.replace("{port}", "8123") for flag in flags[flags.index("--model") :]]
    params = parse(flags)
    assert params is not None
    assert (params.model.path, params.port, params.n_ctx, params.n_parallel) == (str(folder / "m.gguf"), 8123, 32768, 4)
    assert (params.model_alias, params.api_keys, params.cpuparams.n_threads) == ({"m"}, ["a", "b"], 2)
    assert (params.endpoint_metrics, params.ui, params.cache_type_k.name) == (True, False, "GGML_TYPE_Q8_0")


def test_its_own_parser_refuses_what_it_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    assert parse(["--model", "m.gguf", "--abacus"]) is None
    assert diagnose(capfd.readouterr().err.splitlines()).message.endswith("it does not know the argument --abacus")


def test_the_versions_arguments_win_and_the_users_win_over_them(folder: Path) -> None:
    tokens = command(folder, ("--ctx-size=4096", "--gpu-layers", "3"), ("--n-gpu-layers=7", "--threads", "1", "--webui"))
    assert value_of("--ctx-size", tokens) == "4096"
    assert value_of("--threads", tokens) == "1"
    assert value_of("--n-gpu-layers", tokens) == "7"
    assert "--gpu-layers" not in tokens, "two spellings of one option"
    assert "--webui" in tokens
    assert "--no-webui" not in tokens


def test_gpus_are_left_to_its_own_fit(folder: Path) -> None:
    tokens = command(folder, machine=Host("cuda", 64 * GIB, 8, (GPU("h100", "H100", 80 * GIB, 8, "", 9.0),)))
    assert not {"--threads", "--parallel", "--ctx-size"} & set(tokens)


@pytest.mark.parametrize(
    "option", ["--model=x", "--host", "--port=1", "--alias=n", "--hf-repo=a/b", "--ssl-key-file=k", "--api-prefix=/x"]
)
def test_what_the_launcher_sets_is_refused(option: str) -> None:
    with pytest.raises(LongshoreError, match="is the launcher's, not the engine's; leave it out"):
        LlamaCpp().check_arguments([option])


@pytest.mark.parametrize(("arguments", "long"), [(["-c", "4096"], "ctx-size"), (["--metrics", "-ngl", "9"], "gpu-layers")])
def test_short_options_are_refused_with_their_names(arguments: list[str], long: str) -> None:
    with pytest.raises(LongshoreError, match=f"{arguments[-2]} is short for --{long}, .*; write --{long}"):
        LlamaCpp().check_arguments(arguments)


def test_negative_values_are_no_options() -> None:
    LlamaCpp().check_arguments(["--predict", "-1", "--reasoning-budget", "-1"])


def test_adapters_are_served_by_files_that_were_pushed_with_the_model(folder: Path) -> None:
    (folder / "french.gguf").touch()
    with pytest.raises(InvalidModel):
        command(folder)
    (folder / "french.gguf").unlink()
    (folder / "adapters").mkdir()
    (folder / "adapters/french.lora").touch()
    tokens = command(folder, ("--lora=adapters/french.lora,/elsewhere.gguf", "--lora-scaled", "adapters/french.lora:0.5"))
    assert value_of("--lora", tokens) == f"{folder}/adapters/french.lora,/elsewhere.gguf"
    assert value_of("--lora-scaled", tokens) == f"{folder}/adapters/french.lora:0.5"
    adapter = Adapter("french", folder / "adapters", 8)
    with pytest.raises(LongshoreError, match="serves no adapters under names of their own"):
        LlamaCpp().command(Task(folder, "m", FACTS, "0.0.0.0", 8080, 30, (), adapters=(adapter,)), CPU)


def test_memory_is_divided_among_whole_contexts() -> None:
    per_token = cache_per_token(FACTS)
    assert per_token == 2 * 30 * 3 * 64 * 2
    assert divide_memory(FACTS, 24 * GIB) == (SLOTS, 8192)
    base = FACTS.weight_bytes + 512 * 1024**2
    assert divide_memory(FACTS, base + int(2.5 * 8192 * per_token / 0.9)) == (2, 8192)
    assert divide_memory(FACTS, base + int(5000 * per_token / 0.9)) == (1, 4096)
    assert divide_memory(FACTS, base) == (1, 1024), "the engine has the last word"
    assert divide_memory(replace_facts(kv_heads=None), 24 * GIB) == (SLOTS, 0)


def replace_facts(**changes: object) -> ModelFacts:
    return FACTS.model_copy(update=changes)


def test_files_of_one_model_are_found_by_what_is_in_them() -> None:
    shards = {f"m-{number:05}-of-00003.gguf": "model" for number in (1, 2, 3)}
    assert choose_files(shards) == ("m-00001-of-00003.gguf", None)
    assert choose_files({"m.gguf": "model", "sees.gguf": "mmproj", "a.gguf": "adapter"}) == ("m.gguf", "sees.gguf")
    for kinds, why in (
        ({}, "there is no GGUF file of a model"),
        ({"a.gguf": "model", "b.gguf": "model"}, "there are 2 GGUF files, each a model of its own: a.gguf, b.gguf"),
        ({name: kind for name, kind in shards.items() if "00002-of" not in name}, "the shard m-00002-of-00003.gguf is missing"),
        ({"m.gguf": "model", "p.gguf": "mmproj", "q.gguf": "mmproj"}, "there are 2 projectors"),
    ):
        with pytest.raises(InvalidModel, match=why):
            choose_files(kinds)


def test_links_of_the_nodes_cache_are_followed(tmp_path: Path) -> None:
    cached = write_gguf(tmp_path / "cached")
    (folder := tmp_path / "models").mkdir()
    (folder / "m.gguf").symlink_to(cached)
    (folder / ".longshore/partial").mkdir(parents=True)
    (folder / ".longshore/partial/n.gguf").touch()
    assert find_files(folder) == (folder / "m.gguf", None)


def test_the_format_chooses_the_engine() -> None:
    assert choose_engine(Serving(), FACTS) == "llamacpp"
    assert choose_engine(Serving(engine="llamacpp"), ModelFacts()) == "llamacpp"
    assert choose_engine(Serving(), ModelFacts(quantization="awq")) == "vllm"


def test_the_engine_gets_no_credentials() -> None:
    kept = {"HOME": "/tmp", "OMP_WAIT_POLICY": "active"}
    found = LlamaCpp().environment(CPU, kept | {"AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t"})
    assert found == kept | {"PYTHONUNBUFFERED": "1"}
    assert LlamaCpp().environment(CPU, {})["OMP_WAIT_POLICY"] == "passive"


METRICS = """# HELP llamacpp:n_decode_total Total number of llama_decode() calls
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 17
llamacpp:prompt_tokens_total 33
llamacpp:tokens_predicted_total 40
llamacpp:requests_processing 2
llamacpp:requests_deferred 3
llamacpp:n_busy_slots_per_decode 1.5
"""


def test_its_metrics_tell_whether_it_works() -> None:
    engine = LlamaCpp()
    assert engine.read_figures(METRICS) == Figures(5, 0, (2.0, 3.0, 17.0, 33.0, 40.0))
    assert engine.read_figures(METRICS.replace("_total 17", "_total 18")).progress != engine.read_figures(METRICS).progress


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("0.00.010.502 I srv    load_model: loading model '/mnt/models/m.gguf'", "loading weights"),
        (
            "0.03 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 8192",
            "4 slots of 8192 tokens; warming up",
        ),
        ("0.03.760.975 I srv          init: model loaded", "starting the HTTP server"),
        ("main: model loaded", "starting the HTTP server"),
        ("0.05.882.568 I slot launch_slot_: id  3 | task 1 | processing task, is_child = 0", None),
    ],
)
def test_its_output_tells_what_it_does(line: str, step: str | None) -> None:
    assert LlamaCpp().phase_of(line) == step


@pytest.mark.parametrize(
    ("line", "cause", "sentence"),
    [
        (
            "0.1 E llama_model_load: error loading model: unknown model architecture: 'abacu'",
            "unsupported-architecture",
            "'abacu'",
        ),
        (
            "error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'x'",
            "unsupported-architecture",
            "pre-tokenizer type 'x'",
        ),
        ('error while handling argument "--port": stoi', "wrong-argument", "its argument --port is wrong: stoi"),
        ("error: invalid argument: --nosuch", "wrong-argument", "it does not know the argument --nosuch"),
        (
            "0.07 E x: error loading model: tensor 'blk.16.ffn_down.weight' data is not within the file bounds",
            "damaged-weights",
            "blk.16",
        ),
        ("0.01 E gguf_init_from_reader: invalid magic characters: 'GGML', expected 'GGUF'", "damaged-weights", "'GGML'"),
        ("0.00 E gguf_init_from_reader: failed to read key-value pairs", "damaged-weights", "key-value pairs"),
        (
            "0.35 E error loading model: check_tensor_dims: tensor 'blk.3.attn_q.weight' not found",
            "wrong-weights",
            "blk.3.attn_q.weight",
        ),
        ("0.00 E gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)", "no-weights", "/m.gguf"),
        (
            "28.2 E ggml_aligned_malloc: insufficient memory (attempted to allocate 1977541.88 MB)",
            "out-of-memory",
            "1977541.88 MB",
        ),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", "out-of-memory", "cudaMalloc failed"),
        ("the engine was ended by SIGKILL", "killed", "it was killed"),
        ("the engine was ended by SIGILL", "no-device", "lacks instructions"),
        ("0.0 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 9912", "port-in-use", "in use"),
        (
            "0.9 E x: failed to apply lora adapter: expect general.type to be 'adapter', but got: model",
            "wrong-adapter",
            "got: model",
        ),
        ("0.9 E srv          init: something else", "unknown", "llama.cpp ended: init: something else"),
    ],
)
def test_its_last_words_are_understood(line: str, cause: str, sentence: str) -> None:
    failure = diagnose(["0.00.000.951 I srv          init: initializing ...", line, "RuntimeError: Failed to init server"])
    assert failure.cause == cause
    assert sentence in failure.message
    assert failure.hint


def test_an_engine_that_said_nothing_is_quoted_so() -> None:
    assert diagnose([]).message == "llama.cpp ended: it said nothing"
