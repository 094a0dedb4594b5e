"""Which of a store's answers a client believes: those that can be read, and that name what was asked for.

An answer that was damaged on its way, or is the answer to another request, is asked for again; if it stays so, it counts as
a connection that failed. botocore itself ends in errors of many kinds over the one, and believes the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus

from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserFactory

if TYPE_CHECKING:
    import botocore.session
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 4
DAMAGED = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
)
"""What stores say of a request whose bytes are not those that were sent."""

_UNUSABLE = "Unusable"
_ECHOED = ("Prefix", "Delimiter", "Key", "UploadId")
"""What an answer repeats of its request, where it is of a kind that does."""
_ASKED = "longshore-asked"


class Misdirected(BotoCoreError):
    """An answer that cannot be read, or without what every answer to the question has: it was damaged, or is another's."""

    fmt = "the store's answer is not to what was asked"


def take(answer: Mapping[str, Any], *path: str) -> Any:
    """What lies at the path in an answer that cannot be without it; raises Misdirected."""
    found: Any = answer
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            raise Misdirected
        found = found[name]
    return found


def read_warily(session: botocore.session.Session, parse_time: Any) -> None:
    """Have a session's clients never fail over an answer that cannot be read; `judge` tells it from others."""
    parsers: Any = _Parsers()
    parsers.set_parser_defaults(timestamp_parser=parse_time)
    session.register_component("response_parser_factory", parsers)


def judge(client: S3Client) -> None:
    """Have a client of such a session ask again for what it cannot use, and raise Misdirected where that does not help."""
    listeners: dict[str, Any] = {
        "before-parameter-build.s3": _note,
        "needs-retry.s3": _ask_again,
        "after-call.s3": _refuse,
    }
    for event, listener in listeners.items():
        client.meta.events.register(event, listener)


class _Parsers(ResponseParserFactory):
    def create_parser(self, protocol_name: str) -> Any:
        return _Parser(super().create_parser(protocol_name))


class _Parser:
    """botocore's parser of a protocol, whose stumbling is an answer, too: it happens where nothing is repeated."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def parse(self, response: dict[str, Any], shape: Any) -> Any:
        status = response["status_code"]
        if status >= 300 and not isinstance(response["body"], bytes):  # an error that names a checksum as an object does
            response["body"] = b""
        try:
            return self._parser.parse(response, shape)
        except Exception:  # of many kinds: what is no XML, no number, no date
            return {"Error": {"Code": _UNUSABLE}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}


def _note(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    context[_ASKED] = {name: params[name] for name in _ECHOED if name in params}


def _ask_again(response: Any, attempts: int, request_dict: dict[str, Any], **_: Any) -> float | None:
    """For botocore: seconds until a request that was damaged on its way, or its answer, is sent once more; else None."""
    if not response:
        return None
    parsed = response[1]
    if _is_of_another(parsed, request_dict["context"].get(_ASKED, {})):
        parsed["Error"] = {"Code": _UNUSABLE}
    code = parsed.get("Error", {}).get("Code")
    return 0.0 if code in DAMAGED | {_UNUSABLE} and attempts < ATTEMPTS else None


def _is_of_another(parsed: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
    """Whether an answer names something else than what was asked for; names may be spelled as in addresses."""
    told = ((parsed.get(name), value) for name, value in asked.items())
    return any(name is not None and value not in (name, unquote(name), unquote_plus(name)) for name, value in told)


def _refuse(parsed: Mapping[str, Any], **_: Any) -> None:
    if parsed.get("Error", {}).get("Code") == _UNUSABLE:
        raise Misdirected
