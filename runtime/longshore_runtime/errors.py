"""The one family of errors that Longshore raises on purpose.

Each carries what went wrong and, in `hint`, what to do next. A command prints both as one line and
exits with 1; anything else that reaches the command line is a bug.
"""

from __future__ import annotations

import errno
import os


class LongshoreError(Exception):
    """Something that was asked for cannot be done; `hint` is the next thing to try."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class Refused(LongshoreError):
    """The request is understood and must not be carried out."""


class NotFound(LongshoreError):
    """What was named does not exist."""


class Corrupt(LongshoreError):
    """Bytes are not what the manifest says they are."""


class InvalidModel(LongshoreError):
    """The files do not make up a model that could be served."""


class StoreFailed(LongshoreError):
    """A bucket, a folder or a disk did not do what it was asked to do."""


def explain_os_error(error: OSError) -> StoreFailed | None:
    """What this machine's file system did not do, in its own words; None where it names no file."""
    if not error.filename:
        return None
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = f"allow it to the user {os.geteuid()} (for reading: chmod -R a+rX FOLDER), or run as the owner"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space"
    else:
        hint = "check the disk and what is mounted there"
    return StoreFailed(f"cannot use {error.filename}: {error.strerror}", hint)


class Interrupted(StoreFailed):
    """A store broke off or was too busy; the same request may well succeed when it is repeated.

    `after` is the number of seconds that the store asks to be left alone.
    """

    def __init__(self, message: str, hint: str | None = None, after: float = 0.0) -> None:
        super().__init__(message, hint)
        self.after = after


class Busy(Interrupted):
    """A store has too much to do: it wants fewer requests, or later ones."""


class EngineFailed(LongshoreError):
    """The inference engine is missing, refused the model, or died; `cause` is one word for why, for programs."""

    def __init__(self, message: str, hint: str | None = None, cause: str | None = None) -> None:
        super().__init__(message, hint)
        self.cause = cause
