"""The middleware, driven as a server drives it, before an application that does as a test says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.serve.engines.vllm_gate import Gate, Message, Receive, Scope, Send
from longshore_runtime.serve.gate import ACCESS_LOG, DESCRIPTOR, TOKEN_HEADER, Page, Traffic

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Server:
    """A gate before `app`, with the launcher's page and the lines of the access log."""

    def __init__(self, app: App) -> None:
        self.page, self.log = Page.create(), list[dict[str, Any]]()
        environment = {DESCRIPTOR: str(self.page.descriptor), ACCESS_LOG: "1"}
        self.gate = Gate(app, environment, lambda line: self.log.append(json.loads(line)))

    async def ask(self, path: str, *headers: tuple[bytes, bytes], method: str = "POST", kind: str = "http") -> list[Message]:
        """All that is sent in answer to a request."""
        scope = {"type": kind, "path": path, "method": method, "headers": list(headers), "client": ("10.0.0.1", 1)}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"prompt": "secret"}', "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.gate(scope, receive, send)
        return sent


def status(sent: list[Message]) -> int:
    return int(sent[0]["status"])


def headers(sent: list[Message]) -> dict[bytes, bytes]:
    return dict(sent[0]["headers"])


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes the body and streams two pieces."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def test_a_page_is_shared_by_its_descriptor() -> None:
    page = Page.create()
    assert not page.attached
    other = Page.inherit({DESCRIPTOR: str(page.descriptor)})
    other.start()
    other.owe(1)
    other.beat()
    assert (page.attached, page.token, page.traffic()) == (True, other.token, Traffic(1, 1, 0, 1))
    page.mode = "closed"
    assert other.mode == "closed"
    page.close()
    other.end()
    assert page.traffic().running == 0
    assert Page.inherit({}).token != Page.inherit({}).token


HIDDEN = """
/v1/load_lora_adapter /v1/unload_lora_adapter/ /inference/v1/abort_requests /sleep /wake_up /collective_rpc
/scale_elastic_ep /reset_prefix_cache /server_info /start_profile / /v1 /metrics/../sleep
"""


@pytest.mark.parametrize("path", HIDDEN.split())
def test_what_is_the_operators_is_hidden_and_the_launcher_may(path: str) -> None:
    server = Server(answer)
    refused = asyncio.run(server.ask(path))
    assert status(refused) == 404
    assert json.loads(refused[1]["body"])["error"]["type"] == "NotFoundError"
    assert status(asyncio.run(server.ask(path, (TOKEN_HEADER, b"guessed")))) == 404
    assert status(asyncio.run(server.ask(path, (TOKEN_HEADER, server.page.token)))) == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v2/rerank", "/tokenize", "/score", "/invocations"])
def test_what_is_public_passes(path: str) -> None:
    assert status(asyncio.run(Server(answer).ask(path))) == 200


def test_a_request_is_counted_while_it_runs_and_owed_while_it_waits_for_the_engine() -> None:
    seen: list[Traffic] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(server.page.traffic())
        await receive()
        seen.append(server.page.traffic())
        await answer(scope, receive, send)
        seen.append(server.page.traffic())

    server = Server(app)
    asyncio.run(server.ask("/v1/completions"))
    assert seen == [Traffic(1, 0, 0, 0), Traffic(1, 1, 0, 0), Traffic(1, 0, 0, 1)]
    assert server.page.traffic() == Traffic(0, 0, 1, 1)
    seen.clear()
    asyncio.run(server.ask("/health"))
    assert [found.running for found in seen] == [0, 0, 0]
    assert len(server.log) == 1, "probes have no line"


def test_a_client_that_does_not_read_is_not_the_engines_debt() -> None:
    async def run() -> None:
        async def stuck(message: Message) -> None:
            await asyncio.sleep(3600)

        scope = {"type": "http", "path": "/v1/completions", "method": "POST", "headers": []}

        async def receive() -> Message:
            return {"type": "http.request"}

        task = asyncio.create_task(server.gate(scope, receive, stuck))
        await asyncio.sleep(0.01)
        assert server.page.traffic() == Traffic(1, 0, 0, 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    server = Server(answer)
    asyncio.run(run())
    assert server.page.traffic().running == 0
    assert server.log[0]["cut"] is True


def test_a_closing_gate_answers_and_a_closed_one_refuses() -> None:
    server = Server(answer)
    assert b"connection" not in headers(asyncio.run(server.ask("/v1/completions")))
    server.page.mode = "closing"
    polite = asyncio.run(server.ask("/v1/completions"))
    assert (status(polite), headers(polite)[b"connection"]) == (200, b"close")
    server.page.mode = "closed"
    refused = asyncio.run(server.ask("/v1/completions"))
    assert (status(refused), headers(refused)[b"connection"], headers(refused)[b"retry-after"]) == (503, b"close", b"1")
    assert "is being shut down" in json.loads(refused[1]["body"])["error"]["message"]
    assert status(asyncio.run(server.ask("/health"))) == 200
    assert asyncio.run(server.ask("/v1/realtime", kind="websocket"))[0]["type"] == "websocket.close"
    assert server.page.traffic().running == 0


def test_one_that_sleeps_refuses_and_says_so_and_the_launcher_may_ask() -> None:
    server = Server(answer)
    server.page.mode = "asleep"
    refused = asyncio.run(server.ask("/v1/completions"))
    assert (status(refused), headers(refused)[b"retry-after"]) == (503, b"1")
    assert "is asleep and takes no requests until it is woken" in json.loads(refused[1]["body"])["error"]["message"]
    assert status(asyncio.run(server.ask("/v1/completions", (TOKEN_HEADER, server.page.token)))) == 200
    server.page.mode = "open"
    assert status(asyncio.run(server.ask("/v1/completions"))) == 200


def dev_routes() -> list[str]:
    """The paths that vLLM has with VLLM_SERVER_DEV_MODE=1 and not without, by its source: importing it takes long."""
    spec = importlib.util.find_spec("vllm")
    assert spec
    assert spec.origin
    entrypoints = Path(spec.origin).parent / "entrypoints"
    routers = (entrypoints / "launchers/api_server/routers.py").read_text()
    (block,) = re.findall(r"if envs\.VLLM_SERVER_DEV_MODE:\n((?: {8}.*\n|\n)+)", routers)
    assert re.findall(r"from (\S+) import", block) == ["vllm.entrypoints.serve", "vllm.entrypoints.rl.factories"]
    sources = [path.read_text() for folder in ("serve/dev", "rl") for path in sorted((entrypoints / folder).rglob("*.py"))]
    assert not [text for text in sources if re.search(r"prefix=|add_api_route|\.mount\(", text)], "paths that are not read here"
    return [path for text in sources for path in re.findall(r'@router\.\w+\(\s*"([^"]+)"', text)]


DEV = dev_routes()


def test_the_routes_for_development_are_those_that_are_meant() -> None:
    assert {"/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/server_info", "/pause", "/update_weights"} <= set(DEV)


@pytest.mark.parametrize("path", DEV)
def test_what_is_for_development_is_closed_to_everybody_but_the_launcher(path: str) -> None:
    server = Server(answer)
    for spelled in (path, f"{path}/", f"/{path}", path.upper()):
        for method in ("GET", "POST"):
            assert status(asyncio.run(server.ask(spelled, method=method))) == 404
    assert status(asyncio.run(server.ask(path, (TOKEN_HEADER, server.page.token)))) == 200


def test_request_ids_are_kept_or_made_and_logged_without_what_was_said() -> None:
    server, seen = Server(answer), list[bytes]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"])[b"x-request-id"])
        await answer(scope, receive, send)

    server.gate._app = app
    given = asyncio.run(server.ask("/v1/completions", (b"x-request-id", b"mine-1")))
    made = asyncio.run(server.ask("/v1/completions", (b"x-request-id", b'bad" id\n')))
    assert [headers(given)[b"x-request-id"], headers(made)[b"x-request-id"]] == seen
    assert seen[0] == b"mine-1"
    assert len(seen[1]) == 32
    first = server.log[0]
    assert (first["request"], first["path"], first["status"], first["bytes"]) == ("mine-1", "/v1/completions", 200, 23)
    assert first["first"] <= first["seconds"]
    assert "cut" not in first
    assert "secret" not in json.dumps(server.log)


def test_an_application_that_fails_is_counted_out() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("no")

    server = Server(fails)
    with pytest.raises(ValueError, match="no"):
        asyncio.run(server.ask("/v1/completions"))
    assert server.page.traffic() == Traffic(0, 0, 1, 0)
    assert server.log[0]["status"] == 500
