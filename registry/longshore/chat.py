"""Asking a served model one question over the OpenAI API, word by word."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from longshore_runtime.errors import EngineFailed


@dataclass(frozen=True)
class Answer:
    """`tokens` generated in `seconds`, the first after `first_token` seconds; the rate is of those that followed it."""

    text: str
    tokens: int
    seconds: float
    first_token: float

    @property
    def tokens_per_second(self) -> float:
        """Generation rate once the first token was there; over everything when there was only one."""
        following, time_for_them = self.tokens - 1, self.seconds - self.first_token
        return following / time_for_them if following > 0 and time_for_them > 0 else self.tokens / max(self.seconds, 1e-6)


def ask(address: str, model: str, prompt: str, *, chat: bool, max_tokens: int, hear: Callable[[str], None]) -> Answer:
    """Ask the model at the base URL `address`; `hear` gets the answer's pieces as they come.

    Deterministic (temperature 0). Raises EngineFailed when the server refuses or breaks off.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    path = "/chat/completions" if chat else "/completions"
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    started, first, pieces, tokens = time.monotonic(), None, [], 0
    try:
        for event in _stream(request):
            for choice in event["choices"]:
                if piece := choice["delta"].get("content") if chat else choice["text"]:
                    first = first or time.monotonic()
                    pieces.append(piece)
                    hear(piece)
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    except urllib.error.HTTPError as error:
        raise EngineFailed(f"the engine refused the prompt: {_message_of(error)}", "shorten it, or see its log") from error
    except (OSError, ValueError, KeyError) as error:
        raise EngineFailed("the engine broke off its answer", "run again with --verbose to see why") from error
    ended = time.monotonic()
    return Answer("".join(pieces), tokens, ended - started, (first or ended) - started)


def _stream(request: urllib.request.Request) -> Iterator[dict[str, Any]]:
    """The server-sent events of the answer, until `[DONE]`."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=600) as response:
        for line in response:
            data = line.decode().removeprefix("data:").strip()
            if data == "[DONE]":
                return
            if data:
                yield json.loads(data)


def _message_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
