"""What an S3 store keeps of an object's bytes, and what of that can be held against them.

Whoever sends an object may name its checksum, and stores compute one by themselves; a HEAD asks for it. It tells damage on
the way here, and what happened to the bytes since they were sent. Objects that were sent in parts have either the checksum of
the whole, or one that is made of their parts': the parts' sizes are needed then, which two more questions tell where all but
the last are equal, as every client makes them. An entity tag is the MD5 of an object that was sent whole and is not encrypted
with keys of its owner.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from longshore_runtime import crcs
from longshore_runtime.digests import Algorithm, Checksum
from longshore_runtime.errors import Interrupted, NotFound, StoreFailed
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.retries import retry

Ask = Callable[[str, int | None], Mapping[str, str]]
"""The headers (in small letters) that answer a HEAD of a file, or of a part of it (from 1)."""

_ASKERS = 8
_MOST_PARTS = 10_000
_WIDTHS: dict[Algorithm, int] = {"sha256": 32, "crc64nvme": 8, "sha1": 20, "crc32c": 4, "crc32": 4}
"""What can be computed here, the best first, and the bytes of its value."""

_MD5 = re.compile(r'"([0-9a-f]{32})"')
_CIPHER, _OWN_CIPHER = "x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-algorithm"


def look_up(entries: list[Entry], ask: Ask) -> list[Entry]:
    """The files with the checksums that their store keeps of them, where they can be used. Asks for several at once."""
    with ThreadPoolExecutor(_ASKERS) as pool:
        return list(pool.map(lambda entry: replace(entry, checksum=_find(entry, ask)), entries))


def _find(entry: Entry, ask: Ask) -> Checksum | None:
    try:
        found, in_parts = read_checksum(retry(lambda: ask(entry.path, None)))
        if found is None or not in_parts:
            return found
        first = retry(lambda: ask(entry.path, 1))
        count = _read_number(first, "x-amz-mp-parts-count")
        last = retry(lambda: ask(entry.path, count)) if count > 1 else first
    except Interrupted:
        raise
    except (StoreFailed, NotFound):  # it answers no HEAD; whether it answers a GET is seen then
        return None
    parts = place_parts(entry.size, _read_number(first, "content-length"), _read_number(last, "content-length"), count)
    return replace(found, parts=parts) if parts else None


def read_checksum(headers: Mapping[str, str]) -> tuple[Checksum | None, bool]:
    """What the headers tell of an object that can be used, and whether it is made of the parts'."""
    for algorithm, width in _WIDTHS.items():
        text, dash, _ = headers.get(f"x-amz-checksum-{algorithm}", "").partition("-")
        in_parts = bool(dash) or headers.get("x-amz-checksum-type") == "COMPOSITE"
        usable = crcs.are_usable() if algorithm in crcs.WIDTHS else not in_parts
        if usable and (value := _decode(text, width)):
            return Checksum(algorithm, value), in_parts
    tag = _MD5.fullmatch(headers.get("etag", ""))
    opaque = headers.get(_CIPHER, "AES256") != "AES256" or _OWN_CIPHER in headers
    return Checksum("md5", tag[1]) if tag and not opaque else None, False


def place_parts(size: int, first: int, last: int, count: int) -> tuple[int, ...]:
    """The parts (bytes of each) of an object that has `count`, from the first and the last; none where others differ."""
    if not 0 < count <= _MOST_PARTS or not 0 < last <= first or first * (count - 1) + last != size:
        return ()
    return (first,) * (count - 1) + (last,)


def _read_number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _decode(text: str, width: int) -> str | None:
    """Base64 as hex, when it has so many bytes."""
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        return None
    return value.hex() if len(value) == width else None
