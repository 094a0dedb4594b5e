"""What the launcher's container prints: text for people, or one line of JSON for each thing that happened."""

from __future__ import annotations

import json
import sys
import time
from typing import Protocol


class Sink(Protocol):
    """What the launcher needs of a stream."""

    def write(self, text: str, /) -> object:
        """Take in a line."""

    def flush(self) -> object:
        """Let it be seen."""


class Log(Protocol):
    """Where the launcher's own words go, and the engine's."""

    def say(self, text: str) -> None:
        """The launcher has something to say."""

    def fail(self, text: str) -> None:
        """The launcher ends, and says why."""

    def engine(self, name: str) -> Sink:
        """Where the lines of the engine of that name go."""
        ...


class TextLog:
    """The launcher's words on stderr, as `launcher: …`; the engine's lines as they are on stdout."""

    def say(self, text: str) -> None:
        _say(f"launcher: {text}")

    def fail(self, text: str) -> None:
        _say(f"error: {text}")

    def engine(self, name: str) -> Sink:
        return sys.stdout


class JsonLog:
    """Everything on stdout: `time` (UTC), `source` (launcher, access or the engine's name), `message`.

    What the engine's server says as JSON, as it does of each request, stays as it is.
    """

    def say(self, text: str) -> None:
        _print("launcher", text)

    def fail(self, text: str) -> None:
        _print("launcher", text, level="error")

    def engine(self, name: str) -> Sink:
        return _Wrapping(name)


class _Wrapping:
    """Lines become JSON."""

    def __init__(self, source: str) -> None:
        self._source = source

    def write(self, line: str) -> None:
        # An engine that writes a line in several pieces may have been in the middle of one.
        own, mark, access = line.partition('{"time": ')
        if not mark or not _is_record(mark + access):
            own, access = line, ""
        if text := own.rstrip():
            _print(self._source, text)
        if access:
            sys.stdout.write(mark + access)

    def flush(self) -> None:
        sys.stdout.flush()


def _is_record(text: str) -> bool:
    """Whether it is a line of the access log, whole."""
    try:
        return bool(json.loads(text)["source"] == "access")
    except (ValueError, TypeError, KeyError):
        return False


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _print(source: str, message: str, **more: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
    sys.stdout.write(json.dumps({"time": stamp, "source": source, **more, "message": message}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def read_words(line: str) -> str | None:
    """What the launcher says in a line of either kind of log, None in somebody else's."""
    shown = show_line(line)
    return shown.removeprefix("launcher: ") if shown.startswith("launcher: ") else None


def show_line(line: str) -> str:
    """A line of either kind of log as people read it: `launcher: …`, and what others print as they printed it."""
    if not line.startswith('{"time": '):
        return line
    try:
        content = json.loads(line)
        message = str(content["message"])
    except (ValueError, KeyError, TypeError):
        return line
    return f"launcher: {message}" if content.get("source") == "launcher" else message
