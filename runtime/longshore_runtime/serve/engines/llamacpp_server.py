"""llama.cpp's own server out of the package xllamacpp, for where there is no `llama-server`: `… llamacpp_server FLAGS`.

The flags are llama-server's, read by its own parser (`common_params_parse`). The package has that parser inside, and fills its
`CommonParams` field by field instead; so it is called by its symbol. That is of one version of the package, hence the checks.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from typing import Any

PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""`bool common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))` (common/arg.h)."""

SERVER_EXAMPLE = 12
"""LLAMA_EXAMPLE_SERVER (common/common.h): which of llama.cpp's programs the flags are for."""

_GLANCE = 0.1
"""Seconds between two looks at whether it was told to stop."""

_MARKS = (0x4C4F4E47, 0x53484F52)


class Mismatch(Exception):
    """The package is not the one that this module was made for."""


def parse(flags: Sequence[str]) -> Any | None:
    """The parameters that llama-server would have; None when its parser has refused a flag, and said so.

    Raises Mismatch.
    """
    from xllamacpp import xllamacpp

    params = xllamacpp.CommonParams()
    try:
        function = getattr(ctypes.CDLL(xllamacpp.__file__), PARSE)
    except AttributeError:
        raise Mismatch("the parser of llama-server's flags is not in it") from None
    words = [b"llama-server", *(flag.encode() for flag in flags)]
    vector = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    function.restype = ctypes.c_bool
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    place = id(params) + _find_offset(xllamacpp.CommonParams)
    understood = function(len(words), ctypes.cast(vector, ctypes.c_void_p), place, SERVER_EXAMPLE, None)
    sys.stderr.flush()
    if understood and "--metrics" in flags and not params.endpoint_metrics:
        raise Mismatch("its parser takes the flags for another program's")
    return params if understood else None


def _find_offset(kind: Any) -> int:
    """Bytes from the beginning of a CommonParams to the structure in it, found by its first two fields."""
    probe = kind()
    probe.n_predict, probe.n_ctx = _MARKS
    offset = ctypes.string_at(id(probe), kind.__basicsize__).find(struct.pack("<2i", *_MARKS))
    if offset < 0:
        raise Mismatch("its parameters are laid out differently")
    return offset


def main(flags: list[str]) -> int:
    """Serve until told to stop; returns the exit code. What fails on the way is in the output, as llama-server says it."""
    from xllamacpp import xllamacpp

    try:
        params = parse(flags)
    except Mismatch as mismatch:
        sys.stderr.write(f"error: this xllamacpp cannot be used: {mismatch}\n")
        return 1
    if params is None:
        return 1
    try:
        server = xllamacpp.Server(params)  # returns when the model is loaded; until then a signal ends the process
    except (RuntimeError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(_GLANCE):  # one of the server's threads may be the one that the signal interrupts
        pass
    del server  # ends its threads
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
