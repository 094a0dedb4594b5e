"""The relay before a server that does as a path says: a real process before a real process."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from longshore_runtime.serve.engines.relay import find_key
from longshore_runtime.serve.gate import ACCESS_LOG, DESCRIPTOR, TOKEN_HEADER, Page
from support.servers import free_port
from support.streams import Heard, ask

SERVER = """
import json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "hang" in self.path:
            time.sleep(300)
        if "slow" in self.path:
            time.sleep(2)
        self.whole(200, {"path": self.path, "key": self.headers["Authorization"], "token": self.headers["X-Longshore-Token"]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = json.loads(body).get("kind")
        if kind == "whole":
            self.whole(422, {"got": len(body), "path": self.path})
        elif kind == "dies":
            os._exit(7)
        else:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(1000 if kind == "endless" else 3):
                try:
                    self.piece(b"data: %d\\n\\n" % number)
                except OSError:
                    return open("left", "w").close()
                if kind == "breaks":
                    return self.connection.close()
                time.sleep(0.05)
            self.piece(b"data: [DONE]\\n\\n")
            self.piece(b"")

    def piece(self, data):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
        self.wfile.flush()

    def whole(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

assert "LONGSHORE_GATE" not in os.environ
time.sleep(float(sys.argv[2]))
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Relayed:
    """A relay with the server behind it, and the launcher's page."""

    def __init__(self, folder: Path, delay: float, engine: str, *flags: str) -> None:
        self.port, self.page, self.folder = free_port(), Page.create(), folder
        (folder / "server.py").write_text(SERVER)
        command = [sys.executable, "-m", "longshore_runtime.serve.engines.relay", "--engine", engine]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--", sys.executable, "server.py", "{port}", str(delay)]
        environment = dict(os.environ) | {DESCRIPTOR: str(self.page.descriptor), ACCESS_LOG: "1"}
        assert self.page.descriptor is not None
        self.process = subprocess.Popen(
            [*command, *flags],
            cwd=folder,
            env=environment,
            pass_fds=[self.page.descriptor],
            stdout=(folder / "log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def engine(self) -> int:
        """The process of the server."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        return int(found.stdout)

    def get(self, path: str, headers: dict[str, str] | None = None, timeout: float = 30) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not what():
            assert time.monotonic() < end
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False


@contextmanager
def relayed(folder: Path, *flags: str, delay: float = 0.0, engine: str = "llamacpp", ready: bool = True) -> Iterator[Relayed]:
    made = Relayed(folder, delay, engine, *flags)
    try:
        if ready:
            made.until(made.answers)
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    with relayed(tmp_path_factory.mktemp("relay"), "--api-key", "first,second") as made:
        yield made


def post(relay: Relayed, kind: str, more: str = "") -> Heard:
    return asyncio.run(ask(relay.port, "/v1/completions", {"kind": kind, "more": more}))


def test_a_stream_comes_in_pieces_and_whole_answers_as_they_are(relay: Relayed) -> None:
    heard = post(relay, "stream")
    assert (heard.status, heard.complete, heard.pieces) == (200, True, 4)
    assert heard.first < heard.seconds - 0.1, "the first piece did not wait for the last"
    assert heard.headers["x-request-id"]
    large = post(relay, "whole", more="x" * 3_000_000)
    assert (large.status, json.loads(large.body)["path"]) == (422, "/v1/completions")
    assert json.loads(large.body)["got"] > 3_000_000


@pytest.mark.parametrize(
    "path", ["/slots", "/lora-adapters", "/props", "/v1/streams/lookup", "/", "/v1/../slots", "/v1/%2e%2e/slots"]
)
def test_what_is_the_operators_is_hidden(relay: Relayed, path: str) -> None:
    assert relay.get(path)[0] == 404


def test_the_key_goes_with_what_is_the_launchers_or_nobodys(relay: Relayed) -> None:
    token = {TOKEN_HEADER.decode(): relay.page.token.decode()}
    assert relay.get("/metrics")[1] == {"path": "/metrics", "key": "Bearer first", "token": None}
    assert relay.get("/slots?x=1", token)[1] == {"path": "/slots?x=1", "key": "Bearer first", "token": None}
    assert relay.get("/v1/models")[1]["key"] is None
    assert relay.get("/v1/models", {"Authorization": "Bearer own"})[1]["key"] == "Bearer own"


def test_the_launchers_look_does_not_wait_for_an_engine_that_hangs(relay: Relayed) -> None:
    token = {TOKEN_HEADER.decode(): relay.page.token.decode()}
    assert relay.get("/health?hang", token)[0] == 503
    with pytest.raises(TimeoutError):
        relay.get("/metrics?hang", timeout=3)  # somebody else decides for himself


def test_it_waits_longer_for_what_takes_its_time_by_nature(relay: Relayed, tmp_path: Path) -> None:
    assert relay.get("/metrics?slow", {TOKEN_HEADER.decode(): relay.page.token.decode()})[0] == 503
    with relayed(tmp_path, engine="trtllm") as other:
        token = {TOKEN_HEADER.decode(): other.page.token.decode()}
        assert other.get("/metrics?slow", token)[0] == 200
        assert other.get("/health?slow", token)[0] == 503
        assert other.get("/metrics")[0] == 404, "who asks first takes it from the launcher"


def test_requests_are_counted_and_refused_when_the_gate_is_closed(relay: Relayed) -> None:
    relay.until(lambda: relay.page.traffic().running == 0)
    before = relay.page.traffic()

    async def close_meanwhile() -> tuple[int, bool]:
        running = asyncio.create_task(ask(relay.port, "/v1/completions", {"kind": "stream"}))
        await asyncio.to_thread(relay.until, lambda: relay.page.traffic().running == 1)
        relay.page.mode = "closed"
        try:
            late = await ask(relay.port, "/v1/completions", {"kind": "stream"})
            return late.status, (await running).complete
        finally:
            relay.page.mode = "open"

    assert relay.page.attached
    assert asyncio.run(close_meanwhile()) == (503, True)
    relay.until(lambda: relay.page.traffic().running == 0)
    after = relay.page.traffic()
    assert (after.ended - before.ended, after.beats - before.beats, after.owed) == (2, 4, 0)


def test_an_answer_that_breaks_off_is_not_ended_for_the_client(relay: Relayed) -> None:
    heard = post(relay, "breaks")
    assert (heard.status, heard.complete) == (200, False)
    assert heard.body == b"data: 0\n\n"


def test_an_engine_does_not_work_for_a_client_that_left(relay: Relayed) -> None:
    with socket.create_connection(("127.0.0.1", relay.port)) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n" + b'{"kind": "endless"}')
        assert client.recv(10_000)
    relay.until((relay.folder / "left").exists)


def test_an_engine_that_does_not_listen_yet_is_a_503(tmp_path: Path) -> None:
    with relayed(tmp_path, delay=300, ready=False) as relay:
        relay.until(lambda: _status(relay) == 503)
        assert relay.process.poll() is None


def _status(relay: Relayed) -> int:
    try:
        return relay.get("/health")[0]
    except OSError:
        return 0


def test_it_ends_with_the_engine_and_says_how(tmp_path: Path) -> None:
    with relayed(tmp_path) as relay:
        assert post(relay, "dies").status == 502
        assert relay.process.wait(60) == 7
    (second := tmp_path / "second").mkdir()
    with relayed(second) as relay:
        os.kill(relay.engine(), signal.SIGKILL)
        assert relay.process.wait(60) == 128 + signal.SIGKILL
        assert "the engine was ended by SIGKILL" in (second / "log").read_text()


def test_told_to_stop_it_ends_the_engine(tmp_path: Path) -> None:
    with relayed(tmp_path) as relay:
        engine = relay.engine()
        relay.process.terminate()
        assert relay.process.wait(60) == 0
        assert not Path(f"/proc/{engine}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")
def test_no_engine_outlives_a_killed_relay(tmp_path: Path) -> None:
    with relayed(tmp_path) as relay:
        engine = relay.engine()
        relay.process.kill()
        relay.until(lambda: not Path(f"/proc/{engine}").exists())


def test_a_port_that_is_taken_is_said_before_the_engine_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "longshore_runtime.serve.engines.relay", "--engine", "llamacpp"]
        command += ["--host", "127.0.0.1", "--port", str(taken.getsockname()[1]), "--", "touch", str(tmp_path / "started")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert not (tmp_path / "started").exists()


def test_keys_are_found_where_llama_server_looks_for_them(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\nfrom-file\nother\n")
    assert find_key(["x", "--api-key", "a,b"], {"LLAMA_API_KEY": "c"}) == "a"
    assert find_key(["x", "--api-key-file", str(tmp_path / "keys")], {}) == "from-file"
    assert find_key(["x"], {"LLAMA_API_KEY": "c,d"}) == "c"
    assert find_key(["x", "--api-keys"], {}) is None
