"""How vLLM's server is started: with a stand-in for vLLM that tells what happened, and what of the real one is relied on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from longshore_runtime.serve.engines import vllm_server

PLATFORMS = """
import os
class current_platform:
    is_cpu = lambda: os.environ["DEVICE"] == "cpu"
"""
UTILS = """
import multiprocessing, os
def get_mp_context():
    return multiprocessing.get_context("spawn")
"""
ENGINE = """
import os
with open(os.environ["TOLD"], "a") as told:
    told.write(f'{{"imported": {os.getpid()}}}\\n')
"""
ENTRY = """
import gc, json, os, sys
from vllm.v1.engine import core, utils

def run(name, tensor_queue=None):
    tell(core=os.getpid(), parent=os.getppid(), name=name, spawned="spawn_main" in open("/proc/self/cmdline").read())

def tell(**words):
    with open(os.environ["TOLD"], "a") as told:
        told.write(json.dumps(words) + "\\n")

def main():
    tell(server=os.getpid(), argv=sys.argv[1:], collects=gc.isenabled())
    if preload := os.environ.get("TEST_PRELOAD"):
        os.environ["LD_PRELOAD"] = preload
    context = utils.get_mp_context()
    queue = json.loads(os.environ["QUEUE"])
    names = ("first", "second")
    processes = [context.Process(target=run, name=name, kwargs={"name": name, "tensor_queue": queue}) for name in names]
    for process in processes:
        process.start()
        process.join()
        tell(ended=process.exitcode)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A package `vllm` that writes down who imports its engine and who runs it."""
    files = {
        "vllm/platforms.py": PLATFORMS,
        "vllm/v1/engine/utils.py": UTILS,
        "vllm/v1/engine/core.py": ENGINE,
        "vllm/v1/engine/async_llm.py": "",
        "vllm/entrypoints/launchers/api_server/entry.py": ENTRY,
    }
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for folder in file.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
    return tmp_path


def start(stand_in: Path, *arguments: str, **environment: str) -> list[dict[str, object]]:
    told = stand_in / "told"
    where = os.pathsep.join((str(stand_in), *filter(None, sys.path)))
    defaults = {"PYTHONPATH": where, "TOLD": str(told), "DEVICE": "cpu", "QUEUE": "null"}
    command = [sys.executable, "-m", "longshore_runtime.serve.engines.vllm_server", *arguments]
    subprocess.run(command, env=os.environ | defaults | environment, check=True, timeout=120)
    return [json.loads(line) for line in told.read_text().splitlines()]


def test_the_core_does_not_import_again(stand_in: Path) -> None:
    told = start(stand_in, "--model", "m")
    server = next(line for line in told if "server" in line)
    assert (server["argv"], server["collects"]) == (["--model", "m"], True)
    first, second = (line for line in told if "core" in line)
    assert (first["name"], first["spawned"], first["parent"]) == ("first", False, server["server"])
    assert (second["name"], second["spawned"]) == ("second", True)
    assert {line["imported"] for line in told if "imported" in line} == {server["server"], second["core"]}
    assert [line["ended"] for line in told if "ended" in line] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ((), {"DEVICE": "cuda"}),
        ((), {"TEST_PRELOAD": "libnone.so"}),
        ((), {"QUEUE": "[1]"}),
        (("--numa-bind",), {}),
    ],
)
def test_it_is_spawned_where_a_fork_would_not_do(
    stand_in: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    told = start(stand_in, *arguments, **environment)
    assert [line["spawned"] for line in told if "core" in line] == [True, True]
    assert [line["ended"] for line in told if "ended" in line] == [0, 0]


def test_an_older_vllm_is_run_as_it_was(stand_in: Path) -> None:
    launchers = stand_in / "vllm/entrypoints/launchers"
    launchers.rename(stand_in / "elsewhere")
    (stand_in / "vllm/entrypoints/openai").mkdir()
    text = 'import os, sys\nopen(os.environ["TOLD"], "w").write(f\'{{"name": "{__name__}", "last": "{sys.argv[-1]}"}}\')\n'
    (stand_in / "vllm/entrypoints/openai/api_server.py").write_text(text)
    assert start(stand_in, "--port", "9") == [{"name": "__main__", "last": "9"}]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_installed_vllm_has_what_this_relies_on() -> None:
    for module in (*vllm_server.CORE, *vllm_server.WORKER):
        assert source_of(module)
    utils = source_of("vllm.v1.engine.utils")
    assert "context = get_mp_context()" in utils
    assert f'"{vllm_server._INHERITED}": tensor_queue' in utils
    assert "\ndef main():" in source_of(vllm_server.ENTRY)


def source_of(module: str) -> str:
    """The text of a module of vLLM, without importing what is above it."""
    vllm = find_spec("vllm")
    assert vllm
    assert vllm.submodule_search_locations
    return Path(vllm.submodule_search_locations[0], *module.split(".")[1:]).with_suffix(".py").read_text()
