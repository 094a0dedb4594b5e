"""Answers of a store that are believed, asked for again, or refused."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from longshore_runtime.errors import Interrupted
from longshore_runtime.s3 import S3Folder, explained
from longshore_runtime.s3_answers import Misdirected, take


def test_what_every_answer_has_is_taken_from_it() -> None:
    assert take({"a": {"b": "c"}}, "a", "b") == "c"
    for answer in ({}, {"a": "b"}, {"a": {}}):
        with pytest.raises(Misdirected):
            take(answer, "a", "b")


OBJECT = (200, b"object")
ERROR = b"<Error><Code>Odd</Code></Error>"
LISTING = (
    b"<ListBucketResult><Name>bucket</Name><Prefix>registry%2Fm+1/</Prefix><EncodingType>url</EncodingType><KeyCount>1</KeyCount><Contents><Key>registry/m+1/key</Key><Size>6</Size></Contents>"
    b"<IsTruncated>false</IsTruncated></ListBucketResult>"
)
PREFIX = "registry/m 1/"
DAMAGED = LISTING.replace(b"<KeyCount>1<", b"<KeyCount>q<")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, bytes]]]:
    """What a store answers with, one after the other; each answer names a checksum as if it were an object."""
    left: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amz-checksum-sha256", base64.b64encode(hashlib.sha256(b"object").digest()).decode())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield left
        server.shutdown()


@pytest.mark.parametrize(("statuses", "found"), [([500, 503, 200], b"object"), ([404], None), ([500, 404], None)])
def test_an_error_that_names_a_checksum_is_an_error_still(
    answers: list[tuple[int, bytes]], statuses: list[int], found: bytes | None
) -> None:
    answers += [OBJECT if status == 200 else (status, ERROR) for status in statuses]
    assert S3Folder("s3://bucket/registry").read("key") == found
    assert not answers


ANOTHER = LISTING.replace(b"m+1", b"m+2")


@pytest.mark.parametrize("damaged", [DAMAGED, LISTING[:60], b"<html>", LISTING.replace(b"Size>6", b"Size>s"), ANOTHER])
def test_an_answer_that_cannot_be_read_or_is_of_another_is_asked_for_again(
    answers: list[tuple[int, bytes]], damaged: bytes
) -> None:
    answers += [(200, damaged), (200, damaged), (200, LISTING)]
    listing = S3Folder("s3://bucket/registry").client.list_objects_v2(Bucket="bucket", Prefix=PREFIX)
    assert [entry["Size"] for entry in listing["Contents"]] == [6]
    assert not answers


@pytest.mark.parametrize("damaged", [DAMAGED, ANOTHER])
def test_an_answer_that_is_never_right_is_none(answers: list[tuple[int, bytes]], damaged: bytes) -> None:
    answers += [(200, damaged)] * 20
    folder = S3Folder("s3://bucket/registry")
    with pytest.raises(Interrupted, match="the connection to s3://bucket/registry failed: Misdirected"), explained(folder.uri):
        folder.client.list_objects_v2(Bucket="bucket", Prefix=PREFIX)
    assert len(answers) >= 10
