"""What S3's client raises, in one line each."""

from __future__ import annotations

import pytest
from botocore.parsers import ResponseParserError

from longshore_runtime.errors import Interrupted
from longshore_runtime.s3 import Misdirected, explained, take


@pytest.mark.parametrize("error", [Misdirected(), ResponseParserError("not XML"), ConnectionResetError()])
def test_an_answer_to_another_request_is_an_interruption(error: Exception) -> None:
    with pytest.raises(Interrupted, match=f"the connection to s3://b/k failed: {type(error).__name__}"), explained("s3://b/k"):
        raise error


def test_what_every_answer_has_is_taken_from_it() -> None:
    assert take({"a": {"b": "c"}}, "a", "b") == "c"
    for answer in ({}, {"a": "b"}, {"a": {}}):
        with pytest.raises(Misdirected):
            take(answer, "a", "b")
