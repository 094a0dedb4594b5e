"""Importing what was written as a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_arguments() -> Iterator[None]:
    """Hide the command line: importing kserve parses it as its model server's, and ends the process where it does not fit."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments
