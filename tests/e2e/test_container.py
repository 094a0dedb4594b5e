"""The runtime's container with a real vLLM, as its ClusterServingRuntime starts it: as anybody, on a read-only root, without a
capability, and with no network but loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longshore import __version__
from longshore.fleet.objects import serving_runtime
from support.containers import ANYBODY, Container
from testbed import images
from testbed.cluster import eventually
from testbed.packages import need

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WRITABLE = ("/tmp", "/var/cache/engine", "/dev/shm")
BAKED = Path("opt/longshore/vllm-models/modelinfos/vllm-model_executor-models-llama-LlamaForCausalLM.json")

ASK = """
import glob, json, os, socket, time, urllib.error, urllib.request
def ready():
    try:
        return urllib.request.urlopen("http://127.0.0.1:8081/readyz", timeout=10).status == 200
    except OSError:
        return False
end = time.monotonic() + 600
while not ready():
    assert time.monotonic() < end
    time.sleep(0.5)
question = {"role": "user", "content": "What is the capital of France?"}
body = {"model": "m", "temperature": 0, "max_tokens": 16, "messages": [question]}
request = urllib.request.Request(
    "http://127.0.0.1:8080/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
answer = json.load(urllib.request.urlopen(request, timeout=120))["choices"][0]["message"]["content"]
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
(kept,) = glob.glob("/var/cache/engine/*/vllm/modelinfos/*.json")
print(json.dumps({
    "answer": answer,
    "uid": status["Uid"].split()[0],
    "capabilities": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "privileges": status["NoNewPrivs"],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "kept": os.stat(kept).st_mtime,
}))
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The files of the runtime's image."""
    need("runc")
    folder = tmp_path / "system"
    folder.mkdir()
    folder.chmod(0o755)
    images.archive("runtime-cpu", __version__).unpack(folder)
    (folder / "mnt/models").mkdir(parents=True)
    for place in WRITABLE:  # what is mounted there takes these permissions over
        (folder / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (folder / place.lstrip("/")).chmod(0o1777)
    return folder


@pytest.fixture
def model(smollm2: Path, tmp_path: Path) -> Path:
    """The model, for everybody to read."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2, folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@contextmanager
def running(container: Container, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(container.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        container.tell("KILL")
        process.wait(60)


def test_it_serves_as_anybody_and_alone(system: Path, model: Path, tmp_path: Path) -> None:
    rendered = serving_runtime("x", on_cpu=True)["spec"]["containers"][0]
    words = [*rendered["command"], *rendered["args"], "--served-model-name=m"]
    own = [f"{variable['name']}={variable['value']}" for variable in rendered["env"]]
    folders = {str(there): here for here, there in images.engine_mounts().items()} | {"/mnt/models": model}
    environment = images.archive("runtime-cpu", __version__).config["Env"] + own
    log = tmp_path / "log"
    alone = Container(system, tmp_path, words, environment, readable=folders, memory=WRITABLE, alone=True)
    with running(alone, log) as process:
        eventually(lambda: alone.execute("true").returncode == 0, "the container is there")
        told = alone.execute("python3", "-c", ASK, timeout=800)
        assert told.returncode == 0, told.stderr + log.read_text()[-3000:]
        found = json.loads(told.stdout)
        assert "Paris" in found["answer"]
        assert found["uid"] == str(ANYBODY)
        assert {int(mask, 16) for mask in found["capabilities"]} == {0}
        assert (found["privileges"], found["interfaces"]) == ("1", ["lo"])
        assert found["kept"] == (system / BAKED).stat().st_mtime, "what the image knows of the model's class was used"
        alone.tell("TERM")
        assert process.wait(120) == 0, log.read_text()[-3000:]
