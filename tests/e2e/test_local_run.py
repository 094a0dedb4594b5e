"""The spine: a real model through a real registry into a real engine, and its answers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
import yaml

from longshore import Registry
from longshore_runtime.pull.sources.file import FileSource
from longshore_runtime.serve.fit.memory import Batch
from longshore_runtime.serve.fit.parallel import Split
from longshore_runtime.serve.fit.pool import lay_out
from longshore_runtime.serve.fit.reading import read_geometry
from longshore_runtime.serve.logs import read_words
from support.command import CommandLine, Outcome
from support.models import make_model
from support.servers import S3Server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def in_bucket(home: Path, versitygw: S3Server, smollm2: Path) -> CommandLine:
    """The real model, pushed to a real bucket."""
    versitygw.make_bucket("spine")
    command = CommandLine(home, tuple((versitygw.environment | {"LONGSHORE_REGISTRY": "s3://spine/models"}).items()))
    pushed = command("push", smollm2, "smollm2:1", "--alias", "prod", timeout=120)
    assert pushed.code == 0, pushed.err
    return command


@contextmanager
def serving(command: CommandLine, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`longshore run` in the background: its base URL once it is ready, and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "longshore", "run", *arguments],
        env=command.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        address = re.search(r"is served at (\S+) as 'smollm2'; Ctrl-C stops it", line)
        assert address, line
        yield address[1], process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask_streamed(address: str, tokens: int, heard: list[str]) -> str | None:
    """Stream a long answer into `heard`; returns why it ended."""
    client = openai.OpenAI(base_url=address, api_key="none")
    finish = None
    messages = [{"role": "user", "content": "Tell a very long story."}]
    options = {"ignore_eos": True}
    with client.chat.completions.create(
        model="smollm2",
        messages=messages,
        max_tokens=tokens,
        stream=True,
        extra_body=options,  # type: ignore[arg-type]
    ) as stream:
        for event in stream:
            heard.append(event.choices[0].delta.content or "")  # type: ignore[union-attr]
            finish = event.choices[0].finish_reason  # type: ignore[union-attr]
    return finish


def test_from_bucket_to_answer_and_a_clean_end(in_bucket: CommandLine) -> None:
    port = free_port()
    with serving(in_bucket, "smollm2@prod", "--port", str(port)) as (address, process):
        assert address == f"http://127.0.0.1:{port}/v1"
        client = openai.OpenAI(base_url=address, api_key="none")
        message = {"role": "user", "content": QUESTION}
        whole = client.chat.completions.create(model="smollm2", messages=[message], temperature=0)  # type: ignore[list-item]
        assert "Paris" in (whole.choices[0].message.content or "")
        stream = client.chat.completions.create(model="smollm2", messages=[message], temperature=0, stream=True)  # type: ignore[list-item]
        pieces = [event.choices[0].delta.content or "" for event in stream]
        assert "Paris" in "".join(pieces)
        assert len(pieces) > 3, "the answer did not come in pieces"
        _models_are_named(address)
        _an_answer_under_way_is_finished(address, process)
    assert not list((in_bucket.home / ".cache/longshore/runs").iterdir())


def _models_are_named(address: str) -> None:
    with urllib.request.urlopen(f"{address}/models") as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["smollm2"]


def _an_answer_under_way_is_finished(address: str, process: subprocess.Popen[str]) -> None:
    """Ctrl-C in mid-stream: the stream ends as it would have, then the process, with 0."""
    heard: list[str] = []
    finished: list[str | None] = []
    client = threading.Thread(target=lambda: finished.append(ask_streamed(address, 100, heard)))
    client.start()
    while len(heard) < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    client.join(60)
    assert finished == ["length"]
    assert len(heard) >= 100
    assert process.wait(60) == 0
    assert process.stderr
    assert "stopping: requests that are running get 30 s to finish" in process.stderr.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(address.split(":")[2].partition("/")[0])), 2)


def test_a_prompt_is_answered_once_with_what_a_pod_would_run(longshore: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    serve = tmp_path / "serve.yaml"
    serve.write_text("arguments: [--max-model-len=4096]\n")
    assert longshore("push", smollm2, "smollm2:1", "--alias", "prod", "--serve", serve).code == 0
    cache = 256 * 1024**2
    options = ["--verbose", "--", f"--kv-cache-memory-bytes={cache}"]
    done = longshore("run", "smollm2@prod", "--prompt", QUESTION, *options, timeout=300)
    assert done.code == 0, done.err
    assert "Paris" in done.out
    assert "Using max model len 4096" in done.err, "the version's own arguments did not reach the engine"
    for told in (
        r"verified as sha256:[0-9a-f]{64}",
        r"loading weights: 3/3 shards",
        r"\d+ tokens in .* s: first after .*tokens/s",
    ):
        assert re.search(told, done.err), told
    _the_engines_cache_is_as_large_as_the_fit_says(done.err, smollm2, cache, 4096)


def _the_engines_cache_is_as_large_as_the_fit_says(log: str, model: Path, cache: int, context: int) -> None:
    reported = re.search(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for 4,096 tokens per request: ([\d.]+)x", log)
    assert reported, log
    pool = lay_out(read_geometry(FileSource(model.as_uri())), Split(), Batch(2048, 128))
    assert pool
    assert pool.tokens(cache, context) == pytest.approx(int(reported[1].replace(",", "")), rel=0.05)
    assert pool.sequences(cache, context) == pytest.approx(float(reported[2]), rel=0.05)


def test_ctrl_c_while_the_engine_starts_ends_it(longshore: CommandLine, smollm2: Path) -> None:
    command = [sys.executable, "-m", "longshore", "run", str(smollm2)]
    with subprocess.Popen(command, env=longshore.environ(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "starting vllm" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(5)
        assert engines_of(longshore)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; ")
    assert "Traceback" not in err
    assert not list((longshore.home / ".cache/longshore/runs").iterdir())
    assert not engines_of(longshore)


def engines_of(longshore: CommandLine) -> str:
    """The processes of engines that this command line has started."""
    command = ["pgrep", "-f", f"vllm_server .*--model {longshore.home}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_a_model_that_the_engine_refuses_is_explained(longshore: CommandLine, tmp_path: Path) -> None:
    strange = make_model(tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text()) | {"architectures": ["StrangeForCausalLM"]}
    (strange / "config.json").write_text(json.dumps(config))
    done: Outcome = longshore("run", strange, "--prompt", "hi", timeout=200)
    assert done.code == 1
    assert "vLLM refused the model: it does not support the architecture 'StrangeForCausalLM'; serve it with" in done.error
    assert not list((longshore.home / ".cache/longshore/runs").iterdir())


def test_the_pods_commands_serve_the_version(in_bucket: CommandLine, tmp_path: Path) -> None:
    """What the rendered objects say, run as they say it: the initializer, then the launcher."""
    runtime, container, service = yaml.safe_load_all(in_bucket("render", "smollm2@prod").out)
    folder, port = tmp_path / "models", free_port()
    environment = {name: value for name, value in in_bucket.environ().items() if name != "LONGSHORE_REGISTRY"}
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    initializer = [sys.executable, *container["spec"]["container"]["command"][1:], uri, str(folder)]
    done = subprocess.run(initializer, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["verified"] == "digest"
    main = runtime["spec"]["containers"][0]
    rewritten = [f"--model-dir={folder}", "--host=127.0.0.1", f"--port={port}", f"--health-port={free_port()}"]
    rewritten += ["--grace=5", "--notice=1", f"--cache-dir={tmp_path / 'engine'}", "--log-format=json"]
    launcher = [sys.executable, *main["command"][1:], *rewritten, *service["spec"]["predictor"]["model"]["args"]]
    assert [argument.partition("=")[0] for argument in main["args"]] == [argument.partition("=")[0] for argument in rewritten]
    with subprocess.Popen(launcher, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            assert any(read_words(line) == "ready" for line in process.stdout)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            answer = client.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": QUESTION}], temperature=0
            )
            assert "Paris" in (answer.choices[0].message.content or "")
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_the_python_api_does_the_same(smollm2: Path, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    registry.push(smollm2, "smollm2", alias="prod")
    registry.pull("smollm2@prod", tmp_path / "models")
    assert {path.name for path in smollm2.iterdir()} | {".longshore"} == {path.name for path in (tmp_path / "models").iterdir()}
    shutil.rmtree(tmp_path / "registry")
