"""Every code, provoked by a tree that a user could have; and trees that are fine."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longshore.check import CODES, Report, check
from longshore_runtime.errors import LongshoreError, NotFound
from longshore_runtime.manifest import Serving
from longshore_runtime.pull.sources import open_source
from longshore_runtime.serve.safetensors import read_header
from support.models import TOKENIZER, make_model, safetensors, write_gguf
from support.models import make_adapter as make_real_adapter

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def report_of(directory: Path, *arguments: str) -> Report:
    return check(open_source(directory.as_uri()), Serving(arguments=arguments))


def edit(model: Path, name: str, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    path = model / name
    content = (json.loads(path.read_text()) if path.exists() else {}) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def retype(model: Path, shard: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write a shard anew, with other tensors, and an index that agrees."""
    tensors = {
        name: (tensor.dtype, list(tensor.shape), bytes(tensor.size)) for name, tensor in read_header(model / shard).items()
    }
    tensors = change(tensors)
    (model / shard).write_bytes(safetensors(tensors))
    listed = {name: path for name, path in json.loads((model / INDEX).read_text())["weight_map"].items() if path != shard}
    edit(model, INDEX, weight_map=listed | dict.fromkeys(tensors, shard))


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data/0", bytes(200_000))
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}


def make_adapter(model: Path, rank: int = 4, **config: Any) -> Path:
    """The model's folder as an adapter's."""
    for path in model.iterdir():
        path.unlink()
    edit(model, "adapter_config.json", **(ADAPTER | config))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    data = {name.format("A"): ("F32", [rank, 8], bytes(32 * rank)), name.format("B"): ("F32", [8, rank], bytes(32 * rank))}
    (model / "adapter_model.safetensors").write_bytes(safetensors(data))
    return model


def spoil(kind: str, model: Path) -> None:
    """Make the model wrong in the way that a case names."""
    for spoil_part in (spoil_files, spoil_config, spoil_weights, spoil_tensors, spoil_tokenizer):
        spoil_part(kind, model)


def spoil_files(kind: str, model: Path) -> None:
    match kind:
        case "link out":
            (model / "evil").symlink_to("/etc/passwd")
        case "pointer":
            (model / FIRST).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        case "pickle by name":
            (model / "optimizer.pt").write_bytes(b"anything")
        case "pickle by content":
            (model / "training_args.bin").write_bytes(pickle.dumps({"a": [1]}))
        case "old pickle":
            (model / "state").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
        case "pickle in a zip":
            (model / "pytorch_model.bin").write_bytes(torch_zip())
        case "pickled array":
            (model / "a.npy").write_bytes(
                b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n" + b"x"
            )
        case "library":
            (model / "kernel.so").write_bytes(b"\x7fELF" + bytes(100))
        case "code":
            (model / "modeling.py").write_text("print()")


def spoil_config(kind: str, model: Path) -> None:  # noqa: C901 - a table
    match kind:
        case "no config":
            (model / "config.json").unlink()
        case "config cut":
            (model / "config.json").write_text('{"a":')
        case "generation config cut":
            (model / "generation_config.json").write_text("[]")
        case "heads":
            edit(model, "config.json", num_key_value_heads=3)
        case "layers without end":
            edit(model, "config.json", num_hidden_layers=10**9)
        case "no architecture":
            edit(model, "config.json", architectures=None)
        case "unknown architecture":
            edit(model, "config.json", architectures=["AbacusForCausalLM"])
        case "removed architecture":
            edit(model, "config.json", architectures=["JAISLMHeadModel"])
        case "generic architecture":
            edit(model, "config.json", architectures=["BioGptForCausalLM"])
        case "draft":
            edit(model, "config.json", architectures=["EagleLlamaForCausalLM"])
        case "quantization":
            edit(model, "config.json", quantization_config={"quant_method": "abacus"})
        case "auto_map":
            edit(model, "config.json", auto_map={"AutoModel": "modeling.Model"})


def spoil_weights(kind: str, model: Path) -> None:  # noqa: C901 - a table
    match kind:
        case "no weights":
            for name in (FIRST, SECOND, INDEX):
                (model / name).unlink()
        case "cut":
            (model / SECOND).write_bytes((model / SECOND).read_bytes()[:-1])
        case "no GGUF":
            (model / "m.gguf").write_bytes(b"GGML")
        case "two GGUF" | "GGUF cut" | "strange GGUF" | "GGUF draft" | "GGUF without template":
            spoil_gguf(kind, model)
        case "second format":
            (model / "consolidated.safetensors").write_bytes((model / FIRST).read_bytes())
        case "index without map":
            (model / INDEX).write_text("{}")
        case "no shard":
            (model / SECOND).unlink()
        case "no shard, no index":
            (model / INDEX).unlink()
            (model / SECOND).unlink()
        case "index expects more":
            listed = json.loads((model / INDEX).read_text())["weight_map"]
            edit(model, INDEX, weight_map=listed | {"lm_head.weight": FIRST})


def spoil_gguf(kind: str, model: Path) -> None:
    """Instead of the tree's own weights."""
    for name in (FIRST, SECOND, INDEX):
        (model / name).unlink()
    data = write_gguf(model / "m.gguf").read_bytes()
    match kind:
        case "two GGUF":
            (model / "n.gguf").write_bytes(data)
        case "GGUF cut":
            (model / "m.gguf").write_bytes(data[:500])
        case "strange GGUF":
            (model / "m.gguf").write_bytes(data.replace(b"llama", b"abacu"))
        case "GGUF draft":
            (model / "m.gguf").write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x06\0\0\0\0\0\0\0eagle3", 1))
        case "GGUF without template":
            (model / "m.gguf").write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.some_template"))


def spoil_tensors(kind: str, model: Path) -> None:
    match kind:
        case "no tensor":
            retype(model, SECOND, lambda tensors: {name: t for name, t in tensors.items() if "o_proj" not in name})
        case "no head":
            edit(model, "config.json", tie_word_embeddings=False)
        case "twice":
            (model / INDEX).unlink()
            (model / "model-00003.safetensors").write_bytes((model / FIRST).read_bytes())
        case "index leaves out":
            listed = json.loads((model / INDEX).read_text())["weight_map"]
            edit(model, INDEX, weight_map={name: shard for name, shard in listed.items() if "layers.1.mlp" not in name})
        case "strange numbers":
            retype(model, SECOND, lambda tensors: {name: ("Q3", *t[1:]) for name, t in tensors.items()})
        case "vocabulary":
            edit(model, "config.json", vocab_size=100)
        case "shape":
            edit(model, "config.json", intermediate_size=22)
        case "fewer layers":
            edit(model, "config.json", num_hidden_layers=1)
        case "family":
            edit(model, "config.json", model_type="abacus")


def spoil_tokenizer(kind: str, model: Path) -> None:  # noqa: C901, PLR0912 - a table
    match kind:
        case "no tokenizer":
            (model / "tokenizer.json").unlink()
        case "half a tokenizer":
            (model / "tokenizer.json").rename(model / "vocab.json")
        case "tokenizer without model":
            (model / "tokenizer.json").write_text("{}")
        case "tokenizer refused":
            (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | {"model": {"type": "Abacus", "vocab": {}}}))
        case "no sentencepiece":
            (model / "tokenizer.model").write_bytes(b"\0\0")
        case "large tokenizer":
            edit(model, "tokenizer.json", added_tokens=[{"id": 128, "content": "<x>", **dict.fromkeys(FLAGS, False)}])
        case "no template":
            (model / "tokenizer_config.json").write_text("{}")
        case "template syntax":
            (model / "chat_template.jinja").write_text("{% for x %}")
        case "template fails":
            (model / "chat_template.jinja").write_text("{{ messages[0].content.absent() }}")
        case "template refuses":
            text = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages }}"
            (model / "chat_template.jinja").write_text(text)
        case "PiSSA":
            make_adapter(model, init_lora_weights="pissa_niter_4")
        case "no alpha":
            make_adapter(model, lora_alpha=None)
        case "no base":
            make_adapter(model)
        case "no LoRA":
            make_adapter(model, peft_type="IA3")
        case "DoRA":
            make_adapter(model, use_dora=True)
        case "rank":
            make_adapter(model, rank=8)


FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

CASES = [
    ("link out", "name-refused", "is a link to /etc/passwd"),
    ("pointer", "lfs-pointer", f"{FIRST}: it is a Git LFS pointer of 63 B"),
    ("pickle by name", "pickle", "optimizer.pt: its name says"),
    ("pickle by content", "pickle", "training_args.bin: it is a pickle of protocol 4"),
    ("old pickle", "pickle", "state: it is a pickle of protocol 0 or 1"),
    ("pickle in a zip", "pickle", "pytorch_model.bin: it is a zip with the pickle archive/data.pkl"),
    ("pickled array", "pickle", "a.npy: it is a NumPy array of pickled objects"),
    ("library", "native-code", "kernel.so"),
    ("code", "python-file", "modeling.py"),
    ("no config", "config-missing", "there is no config.json"),
    ("config cut", "config-invalid", "config.json: it is not valid JSON"),
    ("generation config cut", "config-invalid", "generation_config.json: it does not hold a JSON object"),
    ("heads", "config-inconsistent", "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
    ("layers without end", "config-inconsistent", "no model has 1000000000 layers"),
    ("no architecture", "architecture-missing", "config.json: it names no architecture"),
    ("unknown architecture", "architecture-unsupported", "does not know AbacusForCausalLM"),
    ("removed architecture", "architecture-unsupported", "JAISLMHeadModel any more; vLLM 0.22.0 was the last"),
    ("generic architecture", "architecture-fallback", "BioGptForCausalLM through its Transformers backend"),
    ("draft", "draft-model", "EagleLlamaForCausalLM only speculates"),
    ("quantization", "quantization-unsupported", "does not know the quantization abacus"),
    ("auto_map", "remote-code", "config.json: its auto_map names modeling.Model"),
    ("no weights", "weights-missing", "there are no .safetensors"),
    ("cut", "weights-damaged", f"{SECOND}: damaged or cut short: it has"),
    ("no GGUF", "weights-damaged", "m.gguf: it does not begin as a GGUF file"),
    ("two GGUF", "gguf-choice", "there are 2 GGUF files, each a model of its own: m.gguf, n.gguf"),
    ("GGUF cut", "weights-damaged", "m.gguf: its GGUF header is not valid"),
    ("strange GGUF", "architecture-unsupported", "m.gguf: llama.cpp 2026.10.11549 does not know abacu"),
    ("GGUF draft", "draft-model", "m.gguf: eagle3 only speculates"),
    ("GGUF without template", "template-missing", "m.gguf: it holds no tokenizer.chat_template"),
    ("second format", "weights-unread", "consolidated.safetensors"),
    ("index without map", "index-invalid", f"{INDEX}: it has no weight_map"),
    ("no shard", "shard-missing", f"{SECOND}: {INDEX} names it"),
    ("no shard, no index", "shard-missing", f"{SECOND}: the others are numbered up to 2"),
    ("index expects more", "tensor-missing", f"{FIRST}: {INDEX} expects lm_head.weight in it"),
    ("no tensor", "tensor-missing", "the weights lack model.layers.1.self_attn.o_proj.weight"),
    ("no head", "tensor-missing", "the weights lack lm_head.weight"),
    ("twice", "tensor-duplicate", f"and 8 more: {FIRST} has it too"),
    ("index leaves out", "tensor-unlisted", f"{INDEX} does not list model.layers.1.mlp.down_proj.weight"),
    ("strange numbers", "tensor-dtype", "is Q3"),
    ("vocabulary", "tensor-shape", "model.embed_tokens.weight is [128, 64], by config.json it should be [100, 64]"),
    (
        "shape",
        "tensor-shape",
        "model.layers.0.mlp.gate_proj.weight is [21, 64], by config.json it should be [22, 64]; and 5 more",
    ),
    ("fewer layers", "layers-extra", "there is a layer 1 and num_hidden_layers is 1"),
    ("family", "shapes-unchecked", "the layers of abacus"),
    ("no tokenizer", "tokenizer-missing", "there is no tokenizer.json"),
    ("half a tokenizer", "tokenizer-missing", "merges.txt, which belongs to it, is missing"),
    ("tokenizer without model", "tokenizer-invalid", "it has no model with a vocabulary"),
    ("tokenizer refused", "tokenizer-invalid", "the tokenizers library refuses it"),
    ("no sentencepiece", "tokenizer-invalid", "tokenizer.model: it is no sentencepiece model"),
    ("large tokenizer", "tokenizer-vocabulary", "its highest token is 128 and vocab_size is 128"),
    ("no template", "template-missing", "there is no chat_template.jinja"),
    ("template syntax", "template-invalid", "chat_template.jinja: the chat template: line 1"),
    ("template fails", "template-fails", "fails for a user's message: UndefinedError"),
    ("template refuses", "template-limited", "does not take a system message: no system"),
    ("no LoRA", "adapter-unsupported", "its peft_type is IA3"),
    ("DoRA", "adapter-unsupported", "it has DoRA"),
    ("rank", "adapter-shape", "lora_A.weight is [8, 8] and the rank is 4"),
    ("PiSSA", "adapter-unsupported", "its init_lora_weights is pissa_niter_4, which changes the base"),
    ("no alpha", "adapter-incomplete", "it has no lora_alpha"),
    ("no base", "adapter-unchecked", "nothing is known of the version that it is for"),
]


ARGUMENTS = [
    (("--trust-remote-code",), "trust-remote-code", "the serving arguments have --trust-remote-code"),
    (
        ("--seed", "1", "--max-modle-len", "8"),
        "argument-unknown",
        "--max-modle-len: vLLM has no such argument (did you mean --max-model-len?)",
    ),
    (
        ("--max-model=8",),  # which its parser would take for an abbreviation, and the launcher for another option
        "argument-unknown",
        "--max-model: vLLM has no such argument (did you mean --max-model-len?)",
    ),
    (("--frobnicate",), "argument-unknown", "--frobnicate: vLLM has no such argument"),
    (("8192",), "argument-unknown", "8192: it follows no option"),
    (("--port", "8000"), "argument-owned", "--port is the launcher's, not the engine's"),
    (("--served_model_name=x",), "argument-owned", "--served-model-name is the launcher's, not the engine's"),
    (("--config", "x.yaml"), "argument-owned", "--config is the launcher's, not the engine's"),
    (("--api-key", "abc"), "argument-secret", "--api-key is a secret, and whoever reads the registry would read it"),
    (("--enforce-eager", "-tp", "2"), "argument-short", "-tp stands for --tensor-parallel-size"),
    (("-tp=2",), "argument-short", "-tp=2 stands for --tensor-parallel-size"),
]


def test_a_gguf_needs_nothing_beside_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    report = check(open_source(tmp_path.as_uri()))
    assert (report.ok, report.findings, report.architecture) == (True, (), "llama")
    assert report.engine.startswith("llama.cpp ")


def test_llama_cpp_is_not_asked_for_what_is_no_gguf(model: Path) -> None:
    (finding,) = check(open_source(model.as_uri()), Serving(engine="llamacpp")).findings
    assert (finding.code, finding.detail) == ("gguf-choice", "llama.cpp serves GGUF files, and there are none")


@pytest.mark.parametrize(("kind", "code", "text"), CASES, ids=[case[0] for case in CASES])
def test_what_is_wrong_is_found(model: Path, kind: str, code: str, text: str) -> None:
    spoil(kind, model)
    report = report_of(model)
    found = [finding for finding in report.findings if finding.code == code]
    assert any(text in str(finding) for finding in found), report.findings
    assert report.ok is not any(CODES[finding.code].severity == "error" for finding in report.findings)


def test_every_code_is_provoked() -> None:
    assert {code for _, code, _ in CASES} | set(FITS) | {code for _, code, _ in ARGUMENTS} == CODES.keys()


def test_a_small_model_and_an_adapter_are_fine(model: Path) -> None:
    report = report_of(model)
    assert (report.findings, report.architecture, report.files) == ((), "LlamaForCausalLM", 6)
    assert [finding.code for finding in report_of(make_adapter(model)).findings] == ["adapter-unchecked"]


FITS = {
    "adapter-target": "the base has no base_model.model.model.layers.2.self_attn.q_proj; and 1 more",
    "adapter-misfit": "v_proj.lora_B.weight is [64, 8] and its module has 32 outputs in the base; and 1 more",
}


def test_an_adapter_is_held_against_its_base(tmp_path: Path, model: Path) -> None:
    def findings_of(**other: Any) -> dict[str, str]:
        """With an adapter of a model that differs from the base."""
        trained_on = make_model(tmp_path / "other")
        edit(trained_on, "config.json", **other)
        adapter = make_real_adapter(tmp_path / "adapter", trained_on)
        found = check(open_source(adapter.as_uri()), base=open_source(model.as_uri())).findings
        return {finding.code: finding.detail for finding in found}

    assert findings_of() == {}
    assert findings_of(num_hidden_layers=3, num_key_value_heads=2)["adapter-target"] == FITS["adapter-target"]
    misfit = findings_of(num_key_value_heads=4)
    assert misfit == {"adapter-misfit": misfit["adapter-misfit"]}
    assert FITS["adapter-misfit"] in misfit["adapter-misfit"]
    edit(model, "config.json", model_type="abacus")
    assert list(findings_of()) == ["shapes-unchecked"]


def test_the_real_model_is_fine(smollm2: Path) -> None:
    assert report_of(smollm2).findings == ()


@pytest.mark.parametrize(("arguments", "code", "text"), ARGUMENTS)
def test_an_argument_that_is_not_the_versions_to_set_is_found(
    model: Path, arguments: tuple[str, ...], code: str, text: str
) -> None:
    assert [(f.code, str(f)) for f in report_of(model, *arguments).findings] == [(code, text)]


def test_arguments_that_the_engine_has_are_fine(model: Path) -> None:
    fine = ("--no-trust-remote-code", "--max_model_len=4k", "--compilation-config.mode", "3", "--max-logprobs", "-1")
    assert report_of(model, *fine, "--lora-modules", "a=x", '{"name": "b"}').findings == ()


def test_one_flaw_is_reported_once(model: Path) -> None:
    """What follows from a pointer or from a shard that is not there is not worth a line of its own."""
    spoil("pointer", model)
    assert [finding.code for finding in report_of(model).findings] == ["lfs-pointer"]
    make_model(model)
    spoil("no shard", model)
    assert [finding.code for finding in report_of(model).findings] == ["shard-missing"]


def test_text_is_no_pickle(model: Path) -> None:
    for name, text in (("LICENSE", "copyright\nof somebody\nReserved."), ("NOTICE", "(a)"), ("x.bin", "\x80"), ("y.bin", "")):
        (model / name).write_text(text, encoding="latin-1")
    assert report_of(model).findings == ()


def test_an_empty_tree_and_an_unknown_engine_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is nothing at"):
        report_of(tmp_path)
    with pytest.raises(LongshoreError, match="not an engine"):
        check(open_source(tmp_path.as_uri()), Serving(engine="abacus"))
