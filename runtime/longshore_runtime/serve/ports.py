"""Ports of this machine."""

from __future__ import annotations

import os
import socket

from longshore_runtime.errors import Refused


def require_free_port(host: str, port: int) -> None:
    """Raise Refused when something listens there already, or the port may not be used."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Refused(f"port {port} on {host} cannot be used: {reason}", "choose another with --port") from error


def choose_port() -> int:
    """A port on the loopback interface that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
