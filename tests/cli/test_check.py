"""`longshore check`, and the check that a push begins with."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from longshore.check import CODES
from support.command import CommandLine
from support.documents import examples
from support.hubs import FakeHuggingFace, model_of
from support.models import make_model
from support.servers import S3Server

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/check.md"


def test_a_model_that_is_fine_says_so(longshore: CommandLine, model: Path) -> None:
    done = longshore("check", model)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{model}  6 files, 87.9 kB, LlamaForCausalLM: nothing to complain of (for vLLM 0.")
    report = longshore("check", model, "--json").json
    assert (report["ok"], report["findings"], report["files"]) == (True, [], 6)


def test_findings_are_lines_with_codes_errors_first(longshore: CommandLine, model: Path) -> None:
    (model / "modeling.py").write_text("")
    (model / "model-00002-of-00002.safetensors").unlink()
    (model / "tokenizer_config.json").write_text("{}")
    done = longshore("check", model)
    assert done.code == 1
    assert [line.split()[:2] for line in done.out.splitlines()[:-1]] == [
        ["error", "shard-missing"],
        ["warning", "template-missing"],
        ["note", "python-file"],
    ]
    assert "1 error, 1 warning, 1 note" in done.out
    found = longshore("check", model, "--json")
    assert (found.code, found.json["ok"]) == (1, False)
    assert {*found.json["findings"][0]} == {"code", "severity", "path", "detail", "advice"}


def test_a_version_is_checked_where_it_lies(longshore: CommandLine, model: Path) -> None:
    longshore("push", model, "m:1")
    assert longshore("check", "m:1").code == 0
    (tokenizer,) = longshore.registry.glob("m/trees/*/tokenizer.json")
    tokenizer.unlink()
    assert "tokenizer-missing" in longshore("check", "m:1").out


def test_a_bucket_is_checked_without_downloading(longshore: CommandLine, tmp_path: Path, versitygw: S3Server) -> None:
    versitygw.make_bucket("checked")
    environment = versitygw.environment
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    model = make_model(tmp_path / "large", elements=4 * 1024 * 1024)
    for path in model.iterdir():
        client.upload_file(str(path), "checked", f"models/m/{path.name}")
    remote = CommandLine(longshore.home, tuple(environment.items()))
    done = remote("check", "s3://checked/models/m")
    assert done.code == 0, done.err
    assert "nothing to complain of" in done.out
    assert "checking: 265.5 kB" in done.err, "only the beginnings of 16.8 MB"
    assert "there is nothing at s3://checked/models/absent" in remote("check", "s3://checked/models/absent").error


def test_a_hubs_model_is_checked_without_downloading(longshore: CommandLine, huggingface: FakeHuggingFace, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    huggingface.models["org/m"] = model_of({path.name: path.read_bytes() for path in model.iterdir()})
    done = longshore("check", "hf://org/m")
    assert done.code == 1
    assert "error    tokenizer-missing         there is no tokenizer.json" in done.out
    assert "hf://org/m  5 files, 86.3 kB, LlamaForCausalLM: 1 error" in done.out


def test_a_push_begins_with_a_check(longshore: CommandLine, model: Path) -> None:
    (model / "optimizer.pt").write_bytes(b"x")
    (model / "kernel.so").write_bytes(b"\x7fELF")
    (model / "tokenizer.json").unlink()
    refused = longshore("push", model, "m:1")
    assert refused.code == 1
    assert "warning: kernel.so: it is native code (native-code); remove it" in refused.err
    assert (
        "could not be served: optimizer.pt: its name says that it is loaded by unpickling (pickle); there is no"
        in refused.error
    )
    assert f"see all: longshore check {model}, push it nevertheless: --no-check" in refused.error
    assert not longshore.registry.exists()
    assert longshore("push", model, "m:1", "--no-check").code == 0


def test_what_is_no_directory_and_no_version_is_named(longshore: CommandLine, tmp_path: Path) -> None:
    assert "is not" in longshore("check", tmp_path / "absent").error
    assert "abc:// is not a kind of storage" in longshore("check", "abc://x").error


def test_every_code_is_explained() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    wanted = [f"| `{name}` | {code.severity} | {code.meaning} | {code.advice} |" for name, code in CODES.items()]
    assert rows == wanted


def test_the_pages_commands_print_what_it_shows(longshore: CommandLine, smollm2: Path) -> None:
    folder = longshore.home / "work"
    folder.mkdir()
    (folder / "smollm2").symlink_to(smollm2)
    spoilt = make_model(folder / "finetuned")
    (spoilt / "optimizer.pt").write_bytes(b"x")
    (spoilt / "config.json").write_text(json.dumps(json.loads((spoilt / "config.json").read_text()) | {"vocab_size": 130}))
    found = list(examples(PAGE))
    assert len(found) >= 1
    for example in found:
        example.check(longshore, folder)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGSHORE_REGISTRY", raising=False)
