"""What is asked for a range, and which answers are just that."""

from __future__ import annotations

import pytest

from longshore_runtime.errors import Busy
from longshore_runtime.ranges.question import Question, compose

RIGHT = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-104/1000\r\ncontent-length: 100"


def ask(url: str = "https://models.example/a?signature=x", **headers: str) -> Question:
    question = compose(url, headers, 5, 100)
    assert question is not None
    return question


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://models.example/a", "models.example"),
        ("https://models.example:443/a", "models.example"),
        ("https://models.example:8443/a", "models.example:8443"),
        ("http://[::1]:9000/a", "[::1]:9000"),
        ("http://models.example:443/a", "models.example:443"),
    ],
)
def test_a_server_is_named_as_in_its_address(url: str, address: str) -> None:
    assert ask(url).origin.address == address
    assert f"Host: {address}" in ask(url).fields


def test_a_question_names_its_range_and_what_was_signed() -> None:
    question = ask(Authorization="Bearer x")
    assert (question.target, question.range) == ("/a?signature=x", "5-104")
    assert "Authorization: Bearer x" in question.fields
    assert "Accept-Encoding: identity" in question.fields
    assert compose("https://models.example/a", {}, 5, 0) is None


@pytest.mark.parametrize(
    ("more", "stays"), [(b"", True), (b"\r\nConnection: keep-alive", True), (b"\r\nConnection: Close", False)]
)
def test_just_that_range_is_accepted(more: bytes, stays: bool) -> None:
    assert ask().judge(RIGHT + more) == (True, stays)


@pytest.mark.parametrize(
    "head",
    [
        RIGHT.replace(b"206", b"200"),
        RIGHT.replace(b"5-104", b"5-105"),
        RIGHT.replace(b": 100", b": 99"),
        RIGHT + b"\r\nContent-Length: 100",
        RIGHT + b"\r\nTransfer-Encoding: chunked",
        RIGHT + b"\r\nContent-Encoding: gzip",
        RIGHT + b"\r\nX: y\r\n  Content-Encoding: gzip",
        RIGHT + b"\r\nno header",
        b"SSH-2.0-OpenSSH_9.2",
        b"",
    ],
)
def test_nothing_else_is(head: bytes) -> None:
    assert ask().judge(head)[0] is False


def test_who_has_too_much_to_do_says_for_how_long() -> None:
    with pytest.raises(Busy, match=r"models\.example asks for patience") as caught:
        ask().judge(b"HTTP/1.1 503 Slow Down\r\nRetry-After: 7")
    assert caught.value.after == 7
