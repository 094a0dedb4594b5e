"""What S3's client raises, in one line each."""

from __future__ import annotations

import pytest

from longshore_runtime.errors import Interrupted
from longshore_runtime.s3 import explained
from longshore_runtime.s3_answers import Misdirected


@pytest.mark.parametrize("error", [Misdirected(), ConnectionResetError()])
def test_an_answer_to_another_request_is_an_interruption(error: Exception) -> None:
    with pytest.raises(Interrupted, match=f"the connection to s3://b/k failed: {type(error).__name__}"), explained("s3://b/k"):
        raise error
