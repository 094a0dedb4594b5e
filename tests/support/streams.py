"""Many requests at once for a completion, by a client that costs little, and whether each was answered to its end."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

PROMPT = "Tell a story of number {}."


@dataclass
class Heard:
    """One answer: `first` and `seconds` until its first piece and its end, `pieces` of a stream, and how it ended."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    first: float = 0.0
    seconds: float = 0.0
    pieces: int = 0
    complete: bool = False


async def ask(port: int, path: str, body: object, request: str = "") -> Heard:
    """One request on a connection of its own; GET where there is no body. An answer that is cut is not `complete`."""
    heard, began = Heard(), time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        data = json.dumps(body).encode() if body is not None else b""
        lines = [f"{'POST' if body is not None else 'GET'} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        lines += [f"X-Request-Id: {request}"] if request else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        heard.status = int(head[0].split()[1])
        heard.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if "chunked" in heard.headers.get("transfer-encoding", ""):
            while size := int(await reader.readline(), 16):
                heard.first = heard.first or time.monotonic() - began
                heard.body += (await reader.readexactly(size + 2))[:-2]
                heard.pieces += 1
            heard.complete = heard.body.endswith(b"data: [DONE]\n\n")
        else:
            heard.body = await reader.readexactly(int(heard.headers["content-length"]))
            heard.first = time.monotonic() - began
            heard.complete = True
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass
    finally:
        heard.seconds = time.monotonic() - began
        writer.close()
    return heard


async def ask_many(port: int, count: int, *, tokens: int, stream: bool = True) -> list[Heard]:
    """So many completions of so many tokens each, at once."""
    bodies = (
        {"model": "m", "prompt": PROMPT.format(n), "max_tokens": tokens, "ignore_eos": True, "stream": stream, "temperature": 0}
        for n in range(count)
    )
    return list(await asyncio.gather(*(ask(port, "/v1/completions", body) for body in bodies)))
