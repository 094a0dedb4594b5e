"""The launcher beside a pull of weights: with an engine for tests, and with vLLM's loader alone."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.arrivals import Arrivals
from longshore_runtime.errors import StoreFailed
from longshore_runtime.handover import read_handover
from longshore_runtime.handover_files import HANDOVER, PREVIEW
from longshore_runtime.manifest import ModelFacts, Serving
from longshore_runtime.progress import Silent
from longshore_runtime.pull.engine import pull
from longshore_runtime.pull.rate import MAX_RATE
from longshore_runtime.serve.arrival import choose_folder, expect
from longshore_runtime.serve.engines import open_engine
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.engines.vllm_plugin import GROUP, LOAD_FORMAT, NAME, await_preview
from longshore_runtime.serve.host import Host
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.model import read_model, read_shape
from longshore_runtime.serve.ports import choose_port
from longshore_runtime.serve.state import State
from support.engine import TestEngine
from support.models import flip_byte, make_model
from support.servers import S3Server

MIB = 1024**2
LAST = "model-00002-of-00002.safetensors"


@pytest.fixture
def uri(versitygw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    use_server(versitygw, monkeypatch)
    bucket = f"arrival-{os.urandom(4).hex()}"
    versitygw.make_bucket(bucket)
    model = make_model(tmp_path / "model", elements=10 * MIB)
    return Registry(f"s3://{bucket}").push(model, "m:1", serving=Serving(arguments=("--seed", "1"))).version.uri


@pytest.fixture
def folder(uri: str, tmp_path: Path) -> Path:
    """A model's folder in which the weights are still to come."""
    pull(uri, tmp_path / "models", Silent(), overlap=True)
    return tmp_path / "models"


class Started:
    """A launcher over the test engine, beside the pull of what is to come."""

    def __init__(self, folder: Path, behaviour: str = "well", waits: bool = True) -> None:
        self.said, self.state = list[str](), State()
        facts, _ = read_model(folder)
        engine = TestEngine(behaviour)
        engine.waits = lambda task: waits  # type: ignore[method-assign]
        task = Task(choose_folder(folder), "m", facts, "127.0.0.1", choose_port(), 5)
        self.arrival = expect(folder, self.state, self.said.append)
        self.launcher = Launcher(engine, task, self.said.append, state=self.state, arrival=self.arrival)


@pytest.mark.parametrize("waits", [True, False])
def test_the_weights_arrive_beside_the_engine(folder: Path, waits: bool) -> None:
    started = Started(folder, waits=waits)
    try:
        started.launcher.start()
        assert (read_handover(folder) is None) or waits
        started.launcher.wait_ready(120)
        end = time.monotonic() + 120
        while started.state.read().verdict is None:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        started.launcher.stop(grace=0)
    now = started.state.read()
    assert now.bytes == now.size
    assert now.verdict
    assert now.verdict["verified"] == "digest"
    assert (folder / LAST).exists()
    assert choose_folder(folder) == folder / PREVIEW
    assert ("testengine is started when all of them are there" in started.said) is not waits
    assert any(text.startswith("weights: ") for text in started.said)
    assert expect(folder, State(), print) is None


def test_wrong_weights_stop_the_engine(folder: Path, uri: str, versitygw: S3Server) -> None:
    assert versitygw.folder
    flip_byte(versitygw.folder / uri.removeprefix("s3://") / LAST, 9 * MIB)
    started = Started(folder, behaviour="silent")
    started.launcher.start()
    with pytest.raises(StoreFailed, match=LAST):
        started.launcher.wait_ready(120)
    assert started.launcher._process
    assert started.launcher._process.poll() is not None
    assert started.state.read().phase == "failed"
    assert not (folder / LAST).exists()
    assert started.arrival
    assert started.arrival.describe()["source"] == uri


def test_told_to_stop_in_the_middle_it_leaves_what_the_next_one_goes_on_with(folder: Path) -> None:
    started = Started(folder, behaviour="silent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MAX_RATE, "100KB/s")  # so that it is not done before it is told to stop
        started.launcher.start()
    assert started.arrival
    assert started.arrival._process
    started.launcher.stop(grace=0)
    assert started.arrival._process.poll() is not None
    assert (folder / HANDOVER).exists()
    test_the_weights_arrive_beside_the_engine(folder, waits=True)


def test_the_shape_is_read_before_the_weights_are_there(folder: Path, tmp_path: Path) -> None:
    assert not (folder / LAST).exists()
    assert read_shape(folder) == read_shape(tmp_path / "model")
    facts, serving = read_model(folder)
    assert (facts.weight_bytes > 0, serving.arguments) == (True, ("--seed", "1"))


def test_vllm_waits_unless_somebody_chose_another_loader() -> None:
    engine, machine = open_engine("vllm"), Host("cpu", 32 * 1024**3, 2)
    facts = ModelFacts()
    plain = Task(Path("/m"), "m", facts, "127.0.0.1", 1, 5, arrivals=Path("/a"))
    assert engine.waits(plain)
    command = engine.command(plain, machine)
    assert command[command.index("--load-format") + 1] == LOAD_FORMAT
    assert not engine.waits(Task(Path("/m"), "m", facts, "127.0.0.1", 1, 5, arguments=(("--load_format=dummy",),)))
    environment = engine.environment(
        machine, {"LONGSHORE_ARRIVALS": "/a", "VLLM_PLUGINS": "mine", "AWS_SECRET_ACCESS_KEY": "s"}
    )
    assert environment["VLLM_PLUGINS"] == f"mine,{NAME}"
    assert "AWS_SECRET_ACCESS_KEY" not in environment


def test_vllm_looks_at_the_model_when_there_is_a_preview(tmp_path: Path) -> None:
    place = tmp_path / "arrivals"
    place.write_text("")
    later = threading.Timer(0.3, lambda: place.write_text(json.dumps({"bytes": 0}) + '\n{"preview": "/p"}\n'))
    later.start()
    began, arrivals = time.monotonic(), Arrivals(place)
    await_preview(arrivals)
    later.join()
    assert time.monotonic() - began > 0.2
    assert arrivals.preview == "/p"


def test_vllm_does_not_wait_for_a_preview_that_will_not_come(tmp_path: Path) -> None:
    place = tmp_path / "arrivals"
    place.write_text('{"error": "no such bucket", "hint": "-"}\n')
    with pytest.raises(RuntimeError, match="the weights did not arrive: no such bucket"):
        await_preview(Arrivals(place))


def test_the_image_and_the_wheel_name_the_same_plugin() -> None:
    root = Path(__file__).parents[3]
    place = "longshore_runtime.serve.engines.vllm_plugin:register"
    assert f'[project.entry-points."{GROUP}"]\n{NAME} = "{place}"' in (root / "pyproject.toml").read_text()
    assert f"[{GROUP}]\\n{NAME} = {place}\\n" in (root / "Dockerfile").read_text()
