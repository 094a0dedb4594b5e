"""The storage initializer as KServe runs it: a process with pairs of addresses and folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime import termination
from longshore_runtime.pull import __main__ as initializer
from support.hubs import Asked, Reply, sha256
from support.models import flip_byte, make_model
from support.sites import FakeSite


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longshore_runtime.pull", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def uris(tmp_path: Path) -> list[str]:
    registry = Registry((tmp_path / "registry").as_uri())
    return [registry.push(make_model(tmp_path / f"m{seed}", seed=seed), f"m:{seed}").version.uri for seed in (1, 2)]


def test_several_sources_go_into_several_folders(uris: list[str], tmp_path: Path) -> None:
    done = run(uris[0], tmp_path / "a", uris[1], tmp_path / "b")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [verdict["source"] for verdict in verdicts] == uris
    assert all(verdict["verified"] == "digest" for verdict in verdicts)
    assert (tmp_path / "a" / "config.json").exists()
    assert (tmp_path / "b" / ".longshore" / "manifest.json").exists()


def test_arguments_that_are_no_pairs_are_a_usage_error(tmp_path: Path) -> None:
    for arguments in ([], [tmp_path.as_uri()]):
        done = run(*arguments)
        assert (done.returncode, "usage:" in done.stderr) == (2, True)


def test_a_rate_that_is_none_is_refused(uris: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_MAX_RATE", "fast")
    done = run(uris[0], tmp_path / "a")
    assert (done.returncode, "'fast' is not a rate; write bytes per second, such as 200MB/s" in done.stderr) == (1, True)
    monkeypatch.setenv("LONGSHORE_MAX_RATE", "900MB/s")
    assert run(uris[0], tmp_path / "a").returncode == 0


def test_machines_get_json_as_progress(uris: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_PROGRESS", "json")
    done = run(uris[0], tmp_path / "a")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    size = json.loads(done.stdout)["size"]
    assert told[0] == {"stage": "pulling", "bytes": 0, "size": size}
    assert (told[-1]["bytes"], told[-1]["over"]) == (size, True)
    failed = run(f"{uris[0]}0", tmp_path / "b")
    assert failed.returncode == 1
    assert json.loads(failed.stderr.splitlines()[-1])["message"].startswith("error: ")
    monkeypatch.setenv("LONGSHORE_PROGRESS", "xml")
    refused = run(uris[0], tmp_path / "c")
    assert (refused.returncode, refused.stderr) == (1, "error: LONGSHORE_PROGRESS is 'xml'; write lines or json\n")


def test_a_failure_leaves_one_line_for_kserve(
    uris: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(termination, "LOG", log)
    flip_byte(Path(uris[0].removeprefix("file://")) / "model-00001-of-00002.safetensors")
    assert initializer.main([uris[0], str(tmp_path / "a")]) == 1
    message = json.loads(log.read_text())
    assert len(log.read_bytes()) < 4096
    assert message["verdict"] == "failed"
    assert message["source"] == uris[0]
    assert message["digest"] == f"sha256:{uris[0].rpartition('/')[2]}"
    assert message["bytes"] < message["size"] == sum(path.stat().st_size for path in (tmp_path / "m1").iterdir())
    assert message["rate"] == int(message["rate"])
    assert 0 < message["seconds"] < 60
    assert "model-00001-of-00002.safetensors" in message["error"]
    assert message["hint"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: model-00001-of-00002.safetensors")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kubelet would look for the container's last words."""
    made = tmp_path / "termination-log"
    made.touch()
    monkeypatch.setattr(termination, "LOG", made)
    return made


def test_a_usage_error_and_a_bug_have_last_words_too(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert initializer.main(["s3://b/m"]) == 2
    assert json.loads(log.read_text())["error"] == "1 arguments are not pairs of SOURCE and FOLDER"
    monkeypatch.setattr(initializer, "Pod", lambda *_: 1 / 0)
    assert initializer.main(["s3://b/m", str(tmp_path / "t")]) == 1
    assert json.loads(log.read_text())["error"] == "a bug in Longshore: ZeroDivisionError"
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_a_folder_that_may_not_be_used_is_no_bug(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/mnt/models/x")

    monkeypatch.setattr(initializer, "Pod", deny)
    assert initializer.main(["s3://b/m", str(tmp_path / "t")]) == 1
    assert json.loads(log.read_text())["error"] == "cannot use /mnt/models/x: Permission denied"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"allow it to the user {os.geteuid()}" in line


def test_told_to_stop_it_stops_at_once_and_the_next_one_resumes(site: FakeSite, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100_000
    site.files["m.bin"] = data
    stall = threading.Event()

    def wait_at_the_end(asked: Asked, reply: Reply) -> Reply:
        if not stall.is_set() and asked.headers.get("range", "").endswith(str(len(data) - 1)):
            stall.wait(60)
        return reply

    site.spoil = wait_at_the_end
    arguments = [f"{site.endpoint}/m.bin#sha256={sha256(data)}", str(tmp_path / "t")]
    command = [sys.executable, "-m", "longshore_runtime.pull", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        journal = tmp_path / "t/.longshore/journal/m.bin"
        while not (journal.exists() and len(journal.read_bytes().splitlines()) == 4):
            assert child.poll() is None
            time.sleep(0.05)
        child.terminate()
        _, said = child.communicate(timeout=60)
    stall.set()
    assert (child.returncode, said.splitlines()[-1]) == (143, "error: told to stop; start it again; it resumes")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fetched"] == len(data) % (8 * 1024 * 1024)
    assert (tmp_path / "t" / "m.bin").read_bytes() == data


def test_secrets_are_in_no_last_word(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("https://user:hidden@host/x", "http://127.0.0.1:9/x?X-Amz-Signature=hidden", "s3://u:hidden@b/m"):
        assert initializer.main([address, str(tmp_path / "t")]) == 1
        said = capsys.readouterr()
        assert "hidden" not in (said.out + said.err + log.read_text())


def test_an_adapter_may_lie_inside_of_its_base(uris: list[str], tmp_path: Path) -> None:
    base, adapter = tmp_path / "models", tmp_path / "models" / "adapters" / "one"
    for _ in range(2):  # the second time as after a restart of the container
        done = run(uris[0], base, uris[1], adapter)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["fetched"] == 0
    (base / "adapters" / "other").write_text("evil")
    assert "already holds 'adapters/other'" in run(uris[0], base, uris[1], adapter).stderr
    (tmp_path / "m1" / "adapters").mkdir()
    (tmp_path / "m1" / "adapters" / "x").touch()
    for inside in ("adapters", "adapters/x"):
        refused = run((tmp_path / "m1").as_uri(), tmp_path / "n", uris[1], tmp_path / "n" / inside)
        assert "'adapters/x' of " in refused.stderr
        assert "lies where something else is pulled to" in refused.stderr


def test_patterns_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m")
    for allow, ignore, expected in (
        ("*.json", "tokenizer*,*.index.json", {"config.json"}),
        ('["config.json", "*.safetensors"]', "", {"config.json", *(path.name for path in model.glob("*.safetensors"))}),
    ):
        monkeypatch.setenv("STORAGE_ALLOW_PATTERNS", allow)
        monkeypatch.setenv("STORAGE_IGNORE_PATTERNS", ignore)
        target = tmp_path / str(len(allow))
        assert run(model.as_uri(), target).returncode == 0
        assert {path.name for path in target.iterdir() if path.is_file()} == expected
    monkeypatch.setenv("STORAGE_ALLOW_PATTERNS", "[")
    assert "STORAGE_ALLOW_PATTERNS is not a JSON list" in run(model.as_uri(), tmp_path / "x").stderr
