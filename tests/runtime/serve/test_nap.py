"""The command by which somebody inside the pod has the engine sleep or wake, and the socket that it goes through."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.errors import EngineFailed, Refused
from longshore_runtime.serve import bell as module
from longshore_runtime.serve.bell import Bell, find_place, ring
from longshore_runtime.serve.nap import main
from longshore_runtime.serve.ports import choose_port
from longshore_runtime.serve.state import State


@pytest.fixture
def place() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp())
    yield folder / "own" / "bell"
    shutil.rmtree(folder)


class Bench:
    """A bell that does as a test says, and what it was asked for."""

    def __init__(self, place: Path) -> None:
        self.state, self.asked = State(), list[str]()
        self.deed: Callable[[], object] = lambda: None
        self.bell = Bell(place, {"sleep": lambda: self.do("asleep"), "wake": lambda: self.do("ready")}, self.state)

    def do(self, phase: Any) -> None:
        self.asked.append(phase)
        self.deed()
        self.state.update(phase=phase)


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    made = Bench(place)
    yield made
    made.bell.close()


def run(place: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main([verb], place)
    (line,) = capsys.readouterr().out.splitlines()
    return code, json.loads(line)


def test_the_command_returns_when_it_is_done(bench: Bench, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "sleep", capsys) == (0, {"phase": "asleep", "error": None, "hint": None})
    assert run(place, "wake", capsys) == (0, {"phase": "ready", "error": None, "hint": None})
    assert bench.asked == ["asleep", "ready"]


def test_what_goes_wrong_is_said_with_the_state(bench: Bench, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise EngineFailed("no room", "make some")

    bench.deed = fail
    assert run(place, "sleep", capsys) == (1, {"phase": "starting", "error": "no room", "hint": "make some"})

    def stumble() -> None:
        raise KeyError("k")

    bench.deed = stumble
    assert run(place, "wake", capsys)[1]["error"] == "a bug in Longshore: KeyError: 'k'"
    assert ring(place, "dance", print)["error"] == "'dance' is not understood"
    with pytest.raises(SystemExit):
        main(["dance"], place)


def test_while_it_takes_long_it_says_what_it_does(bench: Bench, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEWS", 0.05)
    heard = threading.Event()
    bench.state.update(phase="draining", step="going to sleep")
    bench.deed = lambda: heard.wait(60)
    told = ring(place, "sleep", lambda line: heard.set() if line["step"] == "going to sleep" else None)
    assert heard.is_set()
    assert (told["phase"], told["error"]) == ("asleep", None)


def test_what_was_begun_is_done_when_the_caller_hangs_up(bench: Bench, place: Path) -> None:
    done = threading.Event()
    bench.deed = done.set
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(place))
        caller.sendall(b"sleep\n")
    assert done.wait(60)


def test_nobody_else_can_open_it(bench: Bench, place: Path) -> None:
    assert stat.S_IMODE(place.lstat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.lstat().st_mode) == 0o700
    with pytest.raises(Refused, match="another launcher listens at"):
        Bench(place)


def test_a_folder_that_is_somebody_elses_is_refused(place: Path, tmp_path: Path) -> None:
    place.parent.symlink_to(tmp_path)
    with pytest.raises(Refused, match="is somebody else's"):
        Bench(place)


def test_a_folder_that_others_could_look_into_is_closed_and_a_dead_socket_replaced(place: Path) -> None:
    place.parent.mkdir()
    place.parent.chmod(0o777)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(place))
    made = Bench(place)
    assert stat.S_IMODE(place.parent.lstat().st_mode) == 0o700
    assert ring(place, "sleep", print)["phase"] == "asleep"
    made.bell.close()
    assert not place.exists()


def test_where_no_launcher_listens_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "longshore_runtime.serve.nap", "sleep"]
    done = subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == {
        "phase": None,
        "error": "no launcher here was started to sleep",
        "hint": "start it with --sleepable",
    }


def test_it_lies_in_a_folder_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/scratch")
    assert find_place() == Path(f"/scratch/longshore-{os.getuid()}/bell")


POD = """
import sys
sys.path.insert(0, {tests!r})
from longshore_runtime.serve import __main__ as command
from support.engine import TestEngine
command.open_engine = lambda _: TestEngine("well")
sys.exit(command.main(sys.argv[1:]))
"""


def test_the_launchers_own_command_sleeps_wakes_and_ends_while_it_sleeps(model: Path, place: Path, tmp_path: Path) -> None:
    script = tmp_path / "pod.py"
    script.write_text(POD.format(tests=str(Path(__file__).parents[2])))
    port, health = choose_port(), choose_port()
    options = ["--model-dir", str(model), "--served-model-name=m", "--host=127.0.0.1", "--notice=0", "--sleepable"]
    environment = os.environ | {"TMPDIR": str(place.parents[1])}

    def nap(verb: str) -> Any:
        command = [sys.executable, "-m", "longshore_runtime.serve.nap", verb]
        return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout)

    def probe(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{health}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)["reason"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["reason"]
        except OSError:
            return 0, ""

    command = [sys.executable, script, *options, f"--port={port}", f"--health-port={health}"]
    with subprocess.Popen(command, env=environment) as pod:
        try:
            end = time.monotonic() + 60
            while probe("/readyz")[0] != 200:
                assert time.monotonic() < end
                time.sleep(0.1)
            for verb, phase, ready in (("sleep", "asleep", 503), ("wake", "ready", 200), ("sleep", "asleep", 503)):
                assert nap(verb) == {"phase": phase, "error": None, "hint": None}
                assert probe("/readyz") == (ready, phase)
                assert [probe(path)[0] for path in ("/startupz", "/livez")] == [200, 200]
            pod.terminate()
            assert pod.wait(60) == 0
        finally:
            pod.kill()
    assert nap("wake")["error"] == "no launcher here was started to sleep"
