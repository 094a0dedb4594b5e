"""Weights that arrive while a real vLLM starts: it waits for them, and answers with them or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.handover_files import HANDOVER
from longshore_runtime.progress import Silent
from longshore_runtime.pull.engine import pull
from support.models import flip_byte
from support.servers import S3Server, free_port
from support.throttle import run_throttle
from testbed.cluster import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
MIB = 1024**2


@pytest.fixture
def uri(versitygw: S3Server, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    use_server(versitygw, monkeypatch)
    bucket = f"overlap-{os.urandom(4).hex()}"
    versitygw.make_bucket(bucket)
    return Registry(f"s3://{bucket}").push(smollm2, "smollm2:1").version.uri


@pytest.fixture
def slow(versitygw: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store, far away."""
    server = urlsplit(versitygw.endpoint)
    assert server.hostname
    assert server.port
    with run_throttle("127.0.0.1", (server.hostname, server.port), rate=20 * MIB) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield


@contextmanager
def launched(folder: Path, port: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The launcher, as in a main container: without credentials."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    options = ["--served-model-name", "smollm2", "--model-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "longshore_runtime.serve", *options],
            env=environment, stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def await_line(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr
    heard = []
    for line in process.stderr:
        heard.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError("".join(heard))


def puller_of(launcher: int) -> int:
    """The process that pulls, a child of the launcher."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with open(place) as file:
            if int(file.read().rpartition(")")[2].split()[1]) == launcher:
                words = (place.parent / "cmdline").read_bytes()
                if b"longshore_runtime.pull.weights" in words:
                    return int(place.parent.name)
    raise AssertionError("nothing pulls")


def test_the_engine_waits_for_the_weights_and_answers_with_them(uri: str, slow: None, tmp_path: Path) -> None:
    folder, port = tmp_path / "models", free_port()
    verdict = pull(uri, folder, Silent(), overlap=True)
    assert verdict.to_come > 200 * MIB
    with launched(folder, port, tmp_path / "log") as process:
        await_line(process, "launcher: starting vllm")
        puller = puller_of(process.pid)
        process.kill()
        process.wait(10)
    eventually(lambda: not Path(f"/proc/{puller}").exists(), "the pull ends with its launcher", timeout=60)
    with launched(folder, port, tmp_path / "log") as process:
        await_line(process, "launcher: starting vllm")
        puller = puller_of(process.pid)  # which goes on where the first one was
        told = Path(f"/proc/{puller}/fd/1")
        eventually(lambda: b'"preview"' in told.read_bytes(), "the engine may look at the model", timeout=60)
        os.kill(puller, signal.SIGSTOP)  # so that the engine is sooner, however busy this machine is
        try:
            await_line(process, r"launcher: waiting for model-0000\d-of-00003.safetensors")
        finally:
            os.kill(puller, signal.SIGCONT)
        assert (folder / HANDOVER).exists()
        await_line(process, "launcher: ready")
        assert "Paris" in ask(port)
        assert not (folder / HANDOVER).exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    for file in folder.glob("*.safetensors"):
        assert file.stat().st_size == (folder / ".longshore/preview" / file.name).stat().st_size


def ask(port: int) -> str:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": "smollm2", "temperature": 0, "max_tokens": 16, "messages": messages}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: str = json.load(response)["choices"][0]["message"]["content"]
    return answer


def test_a_flipped_byte_ends_it_before_the_engine_has_the_file(
    uri: str, versitygw: S3Server, slow: None, tmp_path: Path
) -> None:
    assert versitygw.folder
    last = "model-00003-of-00003.safetensors"
    flip_byte(versitygw.folder / uri.removeprefix("s3://") / last)
    folder = tmp_path / "models"
    pull(uri, folder, Silent(), overlap=True)
    with launched(folder, free_port(), tmp_path / "log") as process:
        error = await_line(process, "^error: ")
        assert process.wait(60) == 1
    assert last in error
    assert "is not what was pushed" in error
    assert not (folder / last).exists()
    assert not (folder / ".longshore/preview" / last).is_symlink()
    assert "Loading weights took" not in (tmp_path / "log").read_text()
    shutil.rmtree(folder)
