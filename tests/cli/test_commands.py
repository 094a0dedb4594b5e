"""Commands as a user runs them: processes, exit codes, what is on which stream."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from longshore.cli import COMMANDS, cli
from support.command import CommandLine
from support.hubs import FakeHuggingFace, model_of, sha256
from support.models import flip_byte, make_model
from support.servers import S3Server
from support.sites import FakeSite


@pytest.fixture
def pushed(longshore: CommandLine, model: Path) -> CommandLine:
    """A registry that holds m:1, which prod points to."""
    assert longshore("push", model, "m:1", "--alias", "prod").code == 0
    return longshore


def shard_in(longshore: CommandLine) -> Path:
    (shard,) = longshore.registry.glob("m/trees/*/model-00001-of-00002.safetensors")
    return shard


def test_the_first_push_says_what_it_did(longshore: CommandLine, model: Path) -> None:
    done = longshore("push", model, "m:1", "--alias", "prod")
    assert done.code == 0
    assert re.fullmatch(r"m:1  sha256:[0-9a-f]{64}  pushed, 87\.9 kB of 87\.9 kB sent\nm@prod -> 1\n", done.out)
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["hashing", "pushing"]


def test_pushing_again_says_so_and_succeeds(pushed: CommandLine, model: Path) -> None:
    done = pushed("push", model, "m:1")
    assert done.code == 0
    assert "exists already with the same content" in done.out


def test_json_is_one_document_on_stdout(pushed: CommandLine, model: Path, tmp_path: Path) -> None:
    digest = pushed("show", "m@prod", "--json").json["digest"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    push = pushed("push", model, "m:1", "--json").json
    assert (push["version"]["digest"], push["created"], push["sent"]) == (digest, False, 0)
    assert pushed("list", "--json").json == [{"model": "m", "versions": ["1"], "aliases": {"prod": "1"}}]
    (version,) = pushed("list", "m", "--json").json
    assert (version["version"], version["digest"], version["aliases"], version["by"]) == ("1", digest, ["prod"], "tester")
    shown = pushed("show", "m:1", "--json").json
    assert shown["manifest"]["model"]["architecture"] == "LlamaForCausalLM"
    assert {file["path"] for file in shown["manifest"]["files"]} == {path.name for path in model.iterdir()}
    pulled = pushed("pull", "m:1", tmp_path / "t", "--json").json
    assert (pulled["digest"], pulled["verified"]) == (digest, "digest")
    assert pushed("verify", "m:1", "--json").json == {
        "target": "m:1",
        "digest": digest,
        "ok": True,
        "findings": [],
        "checked": "bytes",
    }
    assert pushed("verify", tmp_path / "t", "--json").json["digest"] == digest
    (move,) = pushed("history", "m", "prod", "--json").json
    assert (move["number"], move["version"], move["digest"], move["by"]) == (1, "1", digest, "tester")
    assert pushed("alias", "m", "canary", "1", "--json").json["alias"] == "canary"
    kinds = [item["kind"] for item in pushed("render", "m@prod", "--json").json]
    assert kinds == ["ClusterServingRuntime", "ClusterStorageContainer", "InferenceService"]


def test_tables_are_for_people(pushed: CommandLine) -> None:
    assert pushed("list").out.splitlines()[0].split() == ["MODEL", "VERSIONS", "ALIASES"]
    assert pushed("list").out.splitlines()[1].split() == ["m", "1", "prod=1"]
    header, row = pushed("list", "m").out.splitlines()
    assert header.split() == ["VERSION", "DIGEST", "CREATED", "BY", "ALIASES", "MESSAGE"]
    assert row.split()[0] == "1"
    shown = pushed("show", "m@prod").out
    assert shown.startswith("m:1\n")
    for line in (
        "aliases  prod",
        "LlamaForCausalLM, 0.0 M parameters, bfloat16",
        "context  2048 tokens",
        "has a chat template",
    ):
        assert line in shown


def test_an_empty_registry_says_what_to_do(longshore: CommandLine) -> None:
    done = longshore("list")
    assert (done.code, done.out) == (0, "")
    assert "holds no models yet; push one: longshore push DIRECTORY MODEL" in done.err


def test_aliases_move_and_roll_back(pushed: CommandLine, tmp_path: Path) -> None:
    for seed in (2, 3):
        pushed("push", make_model(tmp_path / str(seed), seed=seed), "m")
    assert pushed("alias", "m", "prod", "3", "--reason", "faster").out == "m@prod -> 3\n"
    assert pushed("rollback", "m", "prod").out == "m@prod -> 1\n"
    rows = [line.split() for line in pushed("history", "m").out.splitlines()]
    assert rows[0] == ["AT", "ALIAS", "MOVE", "VERSION", "BY", "REASON"]
    assert [row[4:6] + row[-1:] for row in rows[1:]] == [["3", "1", "3"], ["2", "3", "faster"], ["1", "1", "tester"]]
    assert "has pointed to nothing before 1" in pushed("rollback", "m", "prod").error
    assert pushed("rollback", "m", "prod", "--to", "3", "--if-current", "1").out == "m@prod -> 3\n"
    assert [move["number"] for move in pushed("history", "m", "--limit", "2", "--json").json] == [4, 3]


def test_a_protected_alias_waits_for_yes(pushed: CommandLine, tmp_path: Path) -> None:
    pushed("push", make_model(tmp_path / "2", seed=2), "m")
    assert pushed("alias", "m", "prod", "--protect").out == "m@prod -> 1  protected\n"
    assert "m@prod is protected; it points to 1; add --yes if you mean it" in pushed("alias", "m", "prod", "2").error
    assert pushed("alias", "m", "prod", "2", "--yes").out == "m@prod -> 2  protected\n"
    assert pushed("alias", "m", "prod", "--unprotect", "--yes").out == "m@prod -> 2\n"
    assert "does not exist" in pushed("alias", "m", "new", "2", "--if-current", "1").error
    assert pushed("alias", "m", "new", "2", "--if-current", "-").out == "m@new -> 2\n"


def test_a_flipped_byte_is_named_by_pull_verify_and_run(pushed: CommandLine, tmp_path: Path) -> None:
    flip_byte(shard_in(pushed))
    for arguments in (("pull", "m:1", tmp_path / "t"), ("verify", "m@prod"), ("run", "m@prod", "--prompt", "hi")):
        done = pushed(*arguments)
        assert done.code == 1
        assert "model-00001-of-00002.safetensors" in done.error
        assert "push the version's files again with --repair" in done.error
    found = pushed("verify", "m:1", "--json")
    assert found.code == 1
    assert [finding["path"] for finding in found.json["findings"]] == ["model-00001-of-00002.safetensors"]
    assert not list((pushed.home / ".cache/longshore/runs").iterdir()), "a failed run leaves its folder behind"


def spoil(kind: str, model: Path) -> None:
    match kind:
        case "no config":
            (model / "config.json").unlink()
        case "no shard":
            (model / "model-00002-of-00002.safetensors").unlink()
        case "cut shard":
            os.truncate(model / "model-00002-of-00002.safetensors", 1000)
        case "link":
            (model / "evil").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "no config",
            "there is no config.json (nor adapter_config.json, for an adapter) among the files (config-missing); name the",
        ),
        (
            "no shard",
            "model-00002-of-00002.safetensors: model.safetensors.index.json names it and it is not there (shard-missing); ",
        ),
        ("cut shard", "model-00002-of-00002.safetensors: damaged or cut short: it has 1000 bytes"),
        ("link", "is a link to /etc/passwd, outside of the model's directory; replace it"),
    ],
)
def test_a_directory_that_cannot_be_served_is_not_pushed(longshore: CommandLine, model: Path, kind: str, message: str) -> None:
    spoil(kind, model)
    done = longshore("push", model, "m:1")
    assert done.code == 1
    assert message in done.error
    assert not longshore.registry.exists()


def test_a_hubs_model_is_pushed_from_there(longshore: CommandLine, huggingface: FakeHuggingFace, model: Path) -> None:
    huggingface.models["org/m"] = model_of({path.name: path.read_bytes() for path in model.iterdir()})
    done = longshore("push", "hf://org/m@v1", "m:1", "--exclude", "*.txt", "--json")
    assert done.json["created"]
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["importing", "pushing"]
    assert "hf://org/absent" in longshore("push", "hf://org/absent", "m").error
    assert longshore("push", model, "m", "--include", "*.json").code == 2


def test_other_bytes_under_a_version_that_exists_are_refused(pushed: CommandLine, tmp_path: Path) -> None:
    done = pushed("push", make_model(tmp_path / "other", seed=9), "m:1")
    assert done.code == 1
    assert len(re.findall("sha256:[0-9a-f]{64}", done.error)) == 2
    assert "push them as another version: longshore push DIRECTORY m" in done.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "m@nope"), "m has no alias nope in .*; its aliases are: prod"),
        (("show", "m:9"), "m has no version 9 in .*; see what there is: longshore list m"),
        (("show", "m"), "m names a model, not a version; say which: m:1"),
        (("show", "No/Such/Name"), "'No/Such/Name' is not a model's name"),
        (("pull", "other:1", "/tmp/x"), "other has no version 1"),
        (("push", "/nonexistent", "m"), "/nonexistent is not a directory"),
        (("verify", "."), "has no manifest to be held against"),
        (("list", "--registry", "ftp://x"), "ftp://x is not a registry's address; use one of file://…, s3://…"),
        (("list", "--registry", "s3://user:hidden@b/x"), "s3://b/x is not an S3 address"),
        (
            ("run", "m:1", "--", "--port=5"),
            "--port is the launcher's, not the engine's; leave it out; whoever starts the engine says so with --port",
        ),
        (("render", "m@prod", "-n", "n" * 60), "is too long for KServe's host names"),
        (("render", "m@prod", "-o", "/proc/x"), "cannot write to /proc/x"),
    ],
)
def test_a_failure_is_one_line_with_what_to_do(pushed: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    done = pushed(*arguments)
    assert done.code == 1
    assert re.search(message, done.error), done.error
    assert "; " in done.error
    assert "hidden" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("push",),
        ("nope",),
        ("list", "--nope"),
        ("run", "m:1", "--json"),
        ("run", "m:1", "--promt", "x"),
        ("alias", "m", "prod"),
    ],
)
def test_a_usage_error_exits_with_2(longshore: CommandLine, arguments: tuple[str, ...]) -> None:
    done = longshore(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: " in done.err


def test_a_registry_that_cannot_be_written_is_named(longshore: CommandLine, model: Path) -> None:
    done = longshore("push", model, "m", "--registry", "file:///proc/registry")
    assert done.code == 1
    assert "the registry file:///proc/registry cannot be used: /proc/registry" in done.error


def test_a_pull_takes_no_more_than_it_may(pushed: CommandLine, tmp_path: Path) -> None:
    refused = pushed("pull", "m:1", tmp_path / "t", "--max-rate", "fast")
    assert (refused.code, "'fast' is not a rate" in refused.err) == (1, True)
    assert pushed("pull", "m:1", tmp_path / "t", "--max-rate", "500MB/s").code == 0


def test_an_argument_that_is_not_the_engines_is_said_before_anything_is_pulled(longshore: CommandLine, model: Path) -> None:
    done = longshore("run", model, "--", "--port=5")
    assert (done.code, "--port is the launcher's" in done.error) == (1, True)
    assert "pulling" not in done.err


def test_a_port_in_use_is_said_before_anything_is_pulled(pushed: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = pushed("run", "m:1", "--port", str(server.getsockname()[1]))
    assert done.code == 1
    assert "cannot be used: Address already in use; choose another with --port" in done.error
    assert "pulling" not in done.err


def test_an_engine_that_is_not_installed_is_said_before_anything_is_pulled(pushed: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'vllm' else find(name, *rest)\n"
    )
    without = CommandLine(pushed.home, (("PYTHONPATH", str(tmp_path)),))
    done = without("run", "m:1", "--prompt", "hi")
    assert done.code == 1
    assert "the engine vLLM is not installed; in a checkout run: make setup" in done.error
    assert "pulling" not in done.err


def test_ctrl_c_during_a_push_leaves_nothing_half_done(longshore: CommandLine, model: Path) -> None:
    big = make_model(model, elements=70 * 1024 * 1024)
    command = [sys.executable, "-m", "longshore", "push", str(big), "m:1"]
    with subprocess.Popen(command, env=longshore.environ(), stderr=subprocess.PIPE, text=True) as process:
        while not list(longshore.registry.glob(".drafts/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; nothing is half-done")
    assert "Traceback" not in err
    assert not list(longshore.registry.glob("m/versions/*"))
    assert not list(longshore.registry.glob(".drafts/*"))
    assert longshore("push", big, "m:1").code == 0
    assert longshore("verify", "m:1").code == 0


def test_rendered_files_are_what_is_printed(pushed: CommandLine, tmp_path: Path) -> None:
    done = pushed("render", "m@prod", "-n", "demo", "--gpus", "0")
    assert "a pod cannot read this machine's folders; push to s3://" in done.err
    printed = list(yaml.safe_load_all(done.out))
    written = pushed("render", "m@prod", "-n", "demo", "--gpus", "0", "-o", tmp_path / "out").out.split()
    assert [yaml.safe_load(Path(path).read_text()) for path in written] == printed
    assert printed[2]["metadata"]["namespace"] == "demo"


def test_a_bucket_is_a_registry(longshore: CommandLine, model: Path, tmp_path: Path, versitygw: S3Server) -> None:
    versitygw.make_bucket("cli")
    assert versitygw.folder
    settings = versitygw.environment | {"LONGSHORE_REGISTRY": "s3://cli/models"}
    in_bucket = CommandLine(longshore.home, tuple(settings.items()))
    assert in_bucket("push", model, "m:1", "--alias", "prod").code == 0
    assert in_bucket("verify", "m@prod", "--deep").out.endswith("every byte is as it was pushed\n")
    rendered = in_bucket("render", "m@prod")
    assert (rendered.code, rendered.err) == (0, "")
    service = list(yaml.safe_load_all(rendered.out))[2]
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    assert re.fullmatch(r"s3://cli/models/m/trees/[0-9a-f]{64}", uri)
    (shard,) = (versitygw.folder / "cli").glob("models/m/trees/*/model-00001-of-00002.safetensors")
    flip_byte(shard)
    assert in_bucket("verify", "m@prod").code == 0  # the store has not looked at its disk
    for arguments in (("pull", "m:1", tmp_path / "t"), ("verify", "m@prod", "--deep"), ("run", "m@prod", "--prompt", "hi")):
        done = in_bucket(*arguments)
        assert done.code == 1
        assert "model-00001-of-00002.safetensors" in done.error


def test_a_version_in_a_bucket_is_verified_by_the_checksums_of_its_store(
    longshore: CommandLine, model: Path, versitygw: S3Server
) -> None:
    versitygw.make_bucket("vouched")
    in_bucket = CommandLine(longshore.home, (*versitygw.environment.items(), ("LONGSHORE_REGISTRY", "s3://vouched")))
    assert in_bucket("push", model, "m:1").code == 0
    done = in_bucket("verify", "m:1")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("as it was pushed, by the checksums that its store keeps; --deep reads the bytes\n")
    digest = in_bucket("show", "m:1", "--json").json["digest"].removeprefix("sha256:")
    client, tree = versitygw.client(), f"m/trees/{digest}"
    client.put_object(
        Bucket="vouched",
        Key=f"{tree}/config.json",
        Body=b"x" * (model / "config.json").stat().st_size,
        ChecksumAlgorithm="CRC64NVME",
    )
    client.put_object(Bucket="vouched", Key=f"{tree}/more.txt", Body=b"more")
    client.delete_object(Bucket="vouched", Key=f"{tree}/tokenizer.json")
    wrong = in_bucket("verify", "m:1", "--json")
    assert wrong.code == 1
    assert (wrong.json["ok"], wrong.json["checked"]) == (False, "checksums")
    assert wrong.json["findings"] == [
        {"path": "config.json", "problem": "changed", "detail": "by the store's own checksum"},
        {"path": "more.txt", "problem": "extra", "detail": "4 bytes"},
        {"path": "tokenizer.json", "problem": "missing", "detail": ""},
    ]
    assert "config.json is changed (by the store's own checksum)" in wrong.error
    assert in_bucket("verify", "m:1", "--fast", "--deep").code == 2


def test_files_that_a_store_keeps_no_checksum_of_are_named_and_read_with_deep(
    longshore: CommandLine, model: Path, moto: S3Server
) -> None:
    moto.make_bucket("silent")
    in_bucket = CommandLine(longshore.home, (*moto.environment.items(), ("LONGSHORE_REGISTRY", "s3://silent")))
    assert in_bucket("push", model, "m:1").code == 0
    done, files = in_bucket("verify", "m:1"), sorted(path.name for path in model.iterdir())
    assert (done.code, done.out) == (1, "")
    assert [line for line in done.err.splitlines() if "keeps no checksum of it" in line] == [
        f"{name}: the store keeps no checksum of it" for name in files
    ]
    assert f"no checksum of {len(files)} of the files of m:1" in done.error
    assert done.error.endswith("have them read: longshore verify m:1 --deep")
    assert in_bucket("verify", "m:1", "--json").json["unknown"] == files
    assert in_bucket("verify", "m:1", "--deep").code == 0


def test_a_closed_pipe_is_no_error(pushed: CommandLine) -> None:
    command = f"{sys.executable} -m longshore render m@prod 2>/dev/null | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=pushed.environ(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["apiVersion: serving.kserve.io/v1alpha1", "0"]
    assert done.stderr == ""


def test_the_list_of_commands_says_what_each_command_says() -> None:
    for name, (_, text) in COMMANDS.items():
        command = cli.commands.get(name) or cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.get_short_help_str(limit=200) == text


def test_help_loads_nothing_heavy(longshore: CommandLine) -> None:
    script = "import sys\nfrom longshore.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert not {"boto3", "pydantic", "kserve", "rich", "yaml", "vllm"} & set(done.stdout.split())


def test_the_version_is_the_packages(longshore: CommandLine) -> None:
    from importlib.metadata import version

    assert longshore("--version").out == f"longshore, version {version('longshore')}\n"


def test_an_unforeseen_error_is_one_line_too(pushed: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import longshore.settings as s\ndef fail(*_):\n    raise KeyError('strange')\ns.read_settings = fail\n"
    )
    broken = CommandLine(pushed.home, (("PYTHONPATH", str(tmp_path)),))
    done = broken("list")
    assert done.code == 1
    assert "unexpected KeyError: 'strange'; this is a bug" in done.error


def test_what_the_system_denies_is_no_bug(pushed: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import longshore.settings as s\ndef fail(*_):\n    raise OSError(28, 'No space left on device', '/data/x')\n"
        "s.read_settings = fail\n"
    )
    done = CommandLine(pushed.home, (("PYTHONPATH", str(tmp_path)),))("list")
    assert done.code == 1
    assert done.error == "error: cannot use /data/x: No space left on device; free some space"


@pytest.fixture
def hub(huggingface: FakeHuggingFace, model: Path) -> FakeHuggingFace:
    """A hub with the model as org/m."""
    huggingface.models["org/m"] = model_of({path.name: path.read_bytes() for path in model.iterdir()})
    return huggingface


def test_a_hubs_model_is_pulled_and_verified(longshore: CommandLine, hub: FakeHuggingFace, tmp_path: Path) -> None:
    commit = hub.models["org/m"].names["main"]
    done = longshore("pull", "hf://org/m@main", tmp_path / "t")
    assert done.out == f"{tmp_path / 't'}  {commit}  6 files, 87.9 kB verified against the hub's digests\n"
    again = longshore("pull", "hf://org/m@main", tmp_path / "t", "--json").json
    assert (again["verified"], again["revision"], again["fetched"]) == ("hub", commit, 0)
    assert longshore("verify", "hf://org/m").out == f"hf://org/m  {commit}  every byte is as the hub says\n"
    some = longshore("pull", "hf://org/m", tmp_path / "u", "--include", "*.json", "--exclude", "tok*", "--json").json
    assert some["files"] == 2


def test_a_hub_that_serves_damaged_bytes_is_named(longshore: CommandLine, hub: FakeHuggingFace, tmp_path: Path) -> None:
    hub.spoil = lambda asked, reply: replace(reply, body=b"x" + reply.body[1:]) if reply.status == 206 else reply
    for arguments in (("pull", "hf://org/m", tmp_path / "t"), ("verify", "hf://org/m"), ("run", "hf://org/m")):
        done = longshore(*arguments)
        assert done.code == 1
        assert "serves damaged bytes" in done.error
    found = longshore("verify", "hf://org/m", "--json")
    assert (found.code, len(found.json["findings"])) == (1, 6)


def test_an_address_of_the_registry_is_a_version(pushed: CommandLine, tmp_path: Path) -> None:
    digest = pushed("show", "m:1", "--json").json["digest"]
    assert pushed("pull", "longshore://m/1", tmp_path / "t", "--json").json["digest"] == digest
    assert pushed("verify", "longshore://m@prod", "--json").json["digest"] == digest
    refused = pushed("pull", "m:1", tmp_path / "u", "--include", "*.json")
    assert (refused.code, "is a version, which is pulled whole" in refused.err) == (2, True)


def test_a_file_of_a_web_server_is_pulled_without_telling_its_secrets(
    longshore: CommandLine, site: FakeSite, tmp_path: Path
) -> None:
    site.files["m.bin"] = b"weights"
    done = longshore("pull", f"{site.endpoint}/m.bin?token=hidden", tmp_path / "t")
    assert done.out.startswith(f"{tmp_path / 't'}  {site.endpoint}/m.bin  1 files, 7 B NOT verified")
    assert "hidden" not in done.err
    pinned = f"{site.endpoint}/m.bin#sha256={sha256(b'weights')}"
    assert longshore("pull", pinned, tmp_path / "u", "--json").json["verified"] == "checksum"


def test_what_has_no_digests_is_not_called_verified(longshore: CommandLine, model: Path, tmp_path: Path) -> None:
    assert "NOT verified: their source publishes no digests" in longshore("pull", model.as_uri(), tmp_path / "t").out


def test_progress_is_shown_as_it_is_asked_for(
    longshore: CommandLine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [json.loads(line) for line in longshore("--progress", "json", "push", model, "m:1").err.splitlines()]
    assert {"stage", "bytes", "size"} <= told[0].keys()
    assert told[-1]["over"] is True
    monkeypatch.setenv("LONGSHORE_PROGRESS", "json")
    told = [json.loads(line) for line in longshore("pull", "m:1", tmp_path / "m").err.splitlines()]
    assert told[0] == {"stage": "pulling", "bytes": 0, "size": told[-1]["size"]}
    assert "pulling: " in longshore("--progress", "lines", "pull", "m:1", tmp_path / "n").err
    monkeypatch.setenv("LONGSHORE_PROGRESS", "xml")
    refused = longshore("pull", "m:1", tmp_path / "o")
    assert (refused.code, "'xml' is not one of 'bar', 'lines', 'json'" in refused.err) == (2, True)
