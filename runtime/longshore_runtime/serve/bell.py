"""What somebody inside the pod rings to have the engine sleep or wake: a Unix socket that only the launcher's user can open.

A line with the verb goes in; lines of JSON come out: every few seconds what is being done, and with `done` what came of it.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from longshore_runtime.errors import EngineFailed, LongshoreError, NotFound, Refused
from longshore_runtime.serve.state import State

NEWS = 10.0
"""Seconds between two lines while something is being done."""

_ASKING = 10.0
_LINE = 256


def find_place() -> Path:
    """Where the socket lies: in a folder of this user's, below the folder for temporary files."""
    return Path(tempfile.gettempdir()) / f"longshore-{os.getuid()}" / "bell"


class Bell:
    """Listens at `path` until `close`, and does what `deeds` has for a verb; `state` says how it is meanwhile and afterwards.

    Raises Refused where others could open the socket, or another launcher listens there.
    """

    def __init__(self, path: Path, deeds: Mapping[str, Callable[[], None]], state: State) -> None:
        self._path, self._deeds, self._state = path, deeds, state
        _make_private(path.parent)
        if _answers(path):
            raise Refused(f"another launcher listens at {path}", "have TMPDIR name another folder")
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise Refused(f"{path} cannot be listened at: {error}", "have TMPDIR name another folder") from error
        path.chmod(0o600)
        self._listener.listen()
        threading.Thread(target=self._listen, name="bell", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(connection,), name="bell-answer", daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        """One caller. What was begun for one that hangs up is done all the same."""
        with connection, suppress(OSError):
            connection.settimeout(_ASKING)
            verb = connection.makefile("r", encoding="utf-8", errors="replace").readline(_LINE).strip()
            outcome: dict[str, Any] = {}
            doing = threading.Thread(target=self._do, args=(verb, outcome), name=f"bell-{verb}", daemon=True)
            doing.start()
            while doing.is_alive():
                doing.join(NEWS)
                if doing.is_alive():
                    connection.sendall(self._line(done=False))
            connection.sendall(self._line(done=True, **outcome))

    def _do(self, verb: str, outcome: dict[str, Any]) -> None:
        outcome |= {"error": None, "hint": None}
        try:
            if verb not in self._deeds:
                raise Refused(f"{verb!r} is not understood", f"say one of {', '.join(self._deeds)}")
            self._deeds[verb]()
        except LongshoreError as error:
            outcome |= {"error": error.message, "hint": error.hint}
        except Exception as error:
            outcome |= {"error": f"a bug in Longshore: {type(error).__name__}: {error}", "hint": "report it"}

    def _line(self, **more: Any) -> bytes:
        now = self._state.read()
        return json.dumps({"phase": now.phase, "step": now.step, **more}).encode() + b"\n"


def ring(path: Path, verb: str, hear: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Ask for something and return what came of it, once it is done: `phase`, and `error` and `hint` where it failed.

    `hear` gets what is said meanwhile. Raises NotFound where nobody listens, and EngineFailed where the launcher ends.
    """
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with connection:
            connection.connect(str(path))
            connection.sendall(f"{verb}\n".encode())
            for line in connection.makefile("r", encoding="utf-8"):
                told: dict[str, Any] = json.loads(line)
                if told["done"]:
                    return told
                hear(told)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotFound("no launcher here was started to sleep", "start it with --sleepable") from error
    except (OSError, ValueError, KeyError) as error:
        raise EngineFailed(f"the launcher broke off: {error}", "see its log") from error
    raise EngineFailed("the launcher has ended", "see its log")


def _make_private(folder: Path) -> None:
    """A folder that nobody but this user can look into, whatever lay there before."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Refused(f"{folder} is somebody else's", "remove it, or have TMPDIR name another folder")
    folder.chmod(0o700)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
