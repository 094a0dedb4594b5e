"""The launcher's own requests to the engine on this machine."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from http import HTTPStatus

from longshore_runtime.serve.gate import TOKEN_HEADER

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy, whatever the environment says: the engine is on this machine."""


class Client:
    """Asks the server that listens at `host`:`port`, as the launcher: with the `token` that only the two know."""

    def __init__(self, host: str, port: int, token: bytes) -> None:
        reachable = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        self._base = f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"
        self._headers = {"Content-Type": "application/json", TOKEN_HEADER.decode(): token.decode()}

    def read(self, path: str, timeout: float = 5) -> str | None:
        """The body of a successful answer to GET, or None."""
        try:
            with _DIRECT.open(urllib.request.Request(self._base + path, None, self._headers), timeout=timeout) as answer:
                return str(answer.read().decode(errors="replace"))
        except OSError:
            return None

    def ask(self, path: str, body: dict[str, object], timeout: float) -> tuple[int, str]:
        """The status and the body of what a POST is answered with; 0 where it is not answered at all."""
        request = urllib.request.Request(self._base + path, json.dumps(body).encode(), self._headers)
        try:
            with _DIRECT.open(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def answers(self, path: str, body: dict[str, object] | None = None, timeout: float = 2) -> bool:
        """Whether a request is answered; that the server cannot serve this kind of request (4xx, 501) is an answer too."""
        data = json.dumps(body).encode() if body is not None else None
        try:
            with _DIRECT.open(urllib.request.Request(self._base + path, data, self._headers), timeout=timeout):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500 or error.code == HTTPStatus.NOT_IMPLEMENTED
        except OSError:
            return False
