"""Whom the kernel wakes for how many bytes."""

from __future__ import annotations

import socket
from contextlib import suppress

GATHERED = 512 * 1024
"""Bytes that are to lie ready before the kernel wakes whoever waits for more: each waking costs like receiving many of them."""


def gather(connection: socket.socket, beyond: int) -> None:
    """Have the kernel wake nobody for a few bytes, as long as enough (`beyond`) are still to come that it will do so at all."""
    with suppress(OSError):  # a system without it
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHERED if beyond >= GATHERED else 1)
