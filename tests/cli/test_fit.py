"""`longshore fit` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import CommandLine
from support.documents import examples
from support.hubs import FakeHuggingFace, model_of
from support.models import make_model
from support.servers import S3Server

ROOT = Path(__file__).parents[2]
LARGE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model of 70 B parameters whose weights are a file without bytes on the disk."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE))
    with open(folder / "pytorch_model.bin", "wb") as weights:
        weights.truncate(141_107_412_992)
    return folder


def test_a_version_a_folder_and_an_address_are_read_alike(longshore: CommandLine, model: Path) -> None:
    assert longshore("push", model, "m:1", "--alias", "prod").code == 0
    told = [longshore("fit", target, "--gpu", "l4").out for target in ("m@prod", model, model.as_uri())]
    assert told[0].splitlines()[0] == "m:1"
    assert len({text.partition("\n")[2] for text in told}) == 1
    assert "1 × l4" in told[0]
    assert "arguments    none: the engine's defaults do" in told[0]


def test_a_bucket_is_asked_for_headers_alone(longshore: CommandLine, moto: S3Server, tmp_path: Path) -> None:
    moto.make_bucket("fit")
    command = CommandLine(longshore.home, tuple((moto.environment | {"LONGSHORE_REGISTRY": "s3://fit/models"}).items()))
    assert command("push", make_model(tmp_path / "m"), "m:1").code == 0
    assert "1 × h100" in command("fit", "m:1", "--gpu", "h100").out


def test_a_hubs_model_is_judged_before_it_is_pulled(
    longshore: CommandLine, huggingface: FakeHuggingFace, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "m", shards=1, elements=4 * 1024 * 1024)
    huggingface.models["org/m"] = model_of({path.name: path.read_bytes() for path in model.iterdir()})
    done = longshore("fit", "hf://org/m", "--gpu", "h100")
    assert done.out.startswith("hf://org/m\n")
    assert "1 × h100" in done.out
    ranges = [
        asked.headers.get("range", "")
        for asked in huggingface.asked
        if "safetensors" in asked.path and "json" not in asked.path
    ]
    read = [int(last) - int(first) for first, last in (text.removeprefix("bytes=").split("-") for text in ranges if text)]
    assert read
    assert max(read) < 200_000, "more than headers was read"


def test_a_large_model_is_divided_and_explained(longshore: CommandLine, large: Path) -> None:
    done = longshore("fit", large, "--gpu", "h100,h200", "--json")
    assert done.code == 0, done.err
    assert done.json["facts"]["parameters"] == 70_553_706_496
    assert done.json["facts"]["attention"] == "GQA"
    first, second = done.json["fits"]
    assert (first["gpu"], first["gpus"], first["split"]["tensor"]) == ("h100", 4, 4)
    assert first["arguments"] == ["--tensor-parallel-size", "4"]
    assert (second["gpu"], second["gpus"]) == ("h200", 2)
    budget = first["budget"]
    spent = sum(budget[part] for part in ("weights", "activations", "graphs", "runtime", "cache"))
    assert spent == budget["usable"] < budget["memory"]


def test_what_does_not_fit_says_what_would(longshore: CommandLine, large: Path) -> None:
    done = longshore("fit", large, "--gpu", "h100", "--gpus", "1")
    assert done.code == 1
    assert "does not fit h100: weights and overhead need" in done.error
    assert "what would fit: the weights in FP8 on 1 × h100" in done.error or "4 × h100" in done.error
    assert "instead" in done.out
    both = longshore("fit", large, "--gpu", "l4,h100", "--gpus", "4")
    assert both.code == 0
    assert "l4: does not fit" in both.out


def test_a_context_is_asked_for(longshore: CommandLine, large: Path) -> None:
    (found,) = longshore("fit", large, "--gpu", "a100-80g", "--context", "131072", "--sequences", "8", "--json").json["fits"]
    assert (found["gpus"], found["context"], found["sequences"] >= 8) == (8, 131072, True)
    refused = longshore("fit", large, "--gpu", "h100", "--context", "200000")
    assert "the model knows 131072 tokens of context, not 200000; " in refused.error


def test_gpus_of_ones_own(longshore: CommandLine, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "gpus.yaml"
    file.write_text("our-card: {memory_gib: 46.5, per_node: 4}\n")
    assert "1 × our-card" in longshore("fit", model, "--gpu", "our-card", "--gpus-file", file).out
    listed = longshore("fit", "--list-gpus", "--gpus-file", file, "--json").json
    assert {"our-card", "h100", "mi300x"} <= {gpu["name"] for gpu in listed}
    assert longshore("fit", "--list-gpus").out.splitlines()[0].split()[0] == "NAME"
    file.write_text("- a list")
    assert "does not describe GPUs; write one per key" in longshore("fit", model, "--gpu", "x", "--gpus-file", file).error
    file.write_text("a: b: c")
    assert "is not YAML" in longshore("fit", model, "--gpu", "x", "--gpus-file", file).error
    assert "cannot read" in longshore("fit", model, "--gpu", "x", "--gpus-file", tmp_path / "none").error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "{model}", "--gpu", "h10"), "the GPU 'h10' is not in the catalogue; did you mean h100 or"),
        (("fit", "none:1", "--gpu", "h100"), "none has no version 1"),
        (("fit", "ftp://x/y", "--gpu", "h100"), "is not a kind of storage"),
    ],
)
def test_what_is_wrong_is_one_line(longshore: CommandLine, model: Path, arguments: tuple[str, ...], message: str) -> None:
    done = longshore(*(argument.format(model=model) for argument in arguments))
    assert done.code == 1
    assert message in done.error


@pytest.mark.parametrize("arguments", [("fit",), ("fit", "m:1"), ("fit", "m:1", "--gpu", ",")])
def test_what_is_left_out_is_a_usage_error(longshore: CommandLine, arguments: tuple[str, ...]) -> None:
    done = longshore(*arguments)
    assert done.code == 2
    assert "Error: " in done.err


def test_the_documents_examples_print_what_they_show(longshore: CommandLine, smollm2: Path) -> None:
    (longshore.home / "smollm2").symlink_to(smollm2)
    found = list(examples(ROOT / "docs" / "fit.md"))
    assert found
    for example in found:
        example.check(longshore, longshore.home)


def test_pods_get_as_many_gpus_as_the_version_needs(longshore: CommandLine, large: Path, tmp_path: Path) -> None:
    """The weights are a hole in a file, which a push of 141 GB would read: a smaller one says the same."""
    small = tmp_path / "small"
    small.mkdir()
    config = LARGE | {"num_hidden_layers": 2, "vocab_size": 1024, "num_attention_heads": 28, "num_key_value_heads": 4}
    config |= {"hidden_size": 28 * 128, "max_position_embeddings": 8_000_000}
    (small / "config.json").write_text(json.dumps(config))
    (small / "pytorch_model.bin").write_bytes(bytes(1000))
    assert longshore("push", small, "m:1", "--no-check").code == 0
    predictor = longshore("render", "m:1", "--gpu", "t4", "--json").json[-1]["spec"]["predictor"]["model"]
    assert predictor["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert predictor["args"][1] == "--max-model-len"
    assert int(predictor["args"][2]) < 8_000_000
    serve = tmp_path / "serve.yaml"
    serve.write_text("arguments: [--max-model-len=8000000]")
    assert longshore("push", small, "m:2", "--serve", serve, "--no-check").code == 0
    predictor = longshore("render", "m:2", "--gpu", "t4", "--json").json[-1]["spec"]["predictor"]["model"]
    assert predictor["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert predictor["args"][1:] == ["--tensor-parallel-size", "4", "--dtype", "half"]
    serve.write_text("arguments: [--tensor-parallel-size=2]")
    assert longshore("push", small, "m:3", "--serve", serve, "--no-check").code == 0
    assert "m:3 says itself how it is divided; say how many GPUs" in longshore("render", "m:3", "--gpu", "t4").error
    assert longshore("render", "m:1", "--gpu", "t4", "--gpus", "2").code == 2
    assert "is not in the catalogue" in longshore("render", "m:1", "--gpu", "t5").error


@pytest.fixture
def quick(longshore: CommandLine, tmp_path: Path) -> str:
    """A version for which another guesses; what both keep of a token is what takes the memory."""
    for name, layers in (("small", 4), ("base", 8)):
        config = LARGE | {"num_hidden_layers": layers, "vocab_size": 1024, "max_position_embeddings": 8_000_000}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "pytorch_model.bin").write_bytes(bytes(1000 * layers))
    serve = tmp_path / "serve.yaml"
    serve.write_text("speculative: {method: draft, model: small:1}")
    assert longshore("push", tmp_path / "small", "small:1", "--no-check").code == 0
    assert longshore("push", tmp_path / "base", "quick:1", "--serve", serve, "--no-check").code == 0
    assert longshore("push", tmp_path / "base", "alone:1", "--no-check").code == 0
    return "quick:1"


def test_a_draft_counts(longshore: CommandLine, quick: str) -> None:
    per_token = 2 * 8 * 128 * 2
    alone, both = (longshore("fit", name, "--gpu", "l4", "--json").json for name in ("alone:1", quick))
    assert alone["facts"]["draft"] is None
    assert both["facts"]["draft"]["weights"]["layers"] > 0
    (plain,), (found,) = alone["fits"], both["fits"]
    assert (plain["cache_per_token"], plain["draft_per_token"], plain["budget"]["draft"]) == (8 * per_token, 0, 0)
    assert (found["cache_per_token"], found["draft_per_token"]) == (12 * per_token, 4 * per_token)
    assert 4000 <= found["budget"]["draft"] <= 4001
    assert found["context"] == pytest.approx(plain["context"] * 8 / 12, rel=0.02)
    told = longshore("fit", quick, "--gpu", "l4").out
    assert "  draft        LlamaForCausalLM, " in told
    assert "    draft      0.0 GiB, and 16.4 kB of the cache per token" in told
    assert "draft" not in longshore("fit", "alone:1", "--gpu", "l4").out
    taken = longshore("render", quick, "--gpu", "l4", "--json").json[-1]["spec"]["predictor"]["model"]["args"]
    assert taken[2:] == found["arguments"]


def test_a_draft_that_is_too_much_says_what_would_fit(longshore: CommandLine, quick: str) -> None:
    (alone,) = longshore("fit", "alone:1", "--gpu", "l4", "--gpus", "1", "--json").json["fits"]
    asked = ("--gpu", "l4", "--gpus", "1", "--context", str(alone["context"]))
    assert longshore("fit", "alone:1", *asked).code == 0
    refused = longshore("fit", quick, *asked)
    assert refused.code == 1
    assert "quick:1 does not fit l4: 1 × " in refused.error
    assert "; or without its draft, on 1 × l4; or " in refused.error


def test_a_version_that_needs_several_nodes_is_not_rendered(longshore: CommandLine, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    huge.mkdir()
    (huge / "config.json").write_text(json.dumps(LARGE | {"hidden_size": 65536, "intermediate_size": 1_000_000}))
    (huge / "pytorch_model.bin").write_bytes(bytes(1000))
    assert longshore("push", huge, "m:1", "--no-check").code == 0
    refused = longshore("render", "m:1", "--gpu", "t4")
    assert "m:1 does not fit t4: " in refused.error
