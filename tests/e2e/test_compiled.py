"""What is compiled once is not compiled again: the launcher with a real vLLM, of whose model two layers are enough."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.servers import free_port
from support.streams import ask

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

SMALL = ["--load-format=dummy", '--hf-overrides={"num_hidden_layers": 2}', "--max-model-len=1024"]


def start(model: Path, kept: Path, log: Path) -> None:
    """Start a launcher, have it answer, and stop it."""
    port = free_port()
    command = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={model}", "--served-model-name=m", "--notice=0"]
    command += ["--host=127.0.0.1", f"--port={port}", f"--cache-dir={kept}", "--keep-compiled", *SMALL]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_CACHE", "TORCHINDUCTOR"))}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            while " ready" not in log.read_text():
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
            body = {"model": "m", "prompt": "One two", "max_tokens": 4, "ignore_eos": True, "stream": True}
            assert asyncio.run(ask(port, "/v1/completions", body)).complete
        finally:
            process.terminate()
            process.wait(120)
    assert process.returncode == 0, log.read_text()[-3000:]


def libraries(kept: Path) -> dict[Path, int]:
    """The compiled files below a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in kept.rglob("*.so")}


def test_a_second_start_compiles_nothing(smollm2: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    start(smollm2, kept, tmp_path / "first")
    assert "compiling the model" in (tmp_path / "first").read_text()
    (key,) = kept.iterdir()
    compiled = libraries(key / "inductor")
    assert compiled, "PyTorch keeps it below the folder that the launcher names"
    start(smollm2, kept, tmp_path / "second")
    assert libraries(key / "inductor") == compiled
    assert list(kept.iterdir()) == [key]
