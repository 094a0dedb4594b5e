"""What is sent: the very buffer, in one piece, as often as a request is repeated."""

from __future__ import annotations

import io
import socket
from typing import Any

import pytest

from longshore.storage.bodies import Body, send_at_once
from longshore_runtime import s3
from support.servers import S3Server


@pytest.mark.parametrize("data", [b"", b"some bytes"])
def test_a_body_is_a_file_that_is_read_whole(data: bytes) -> None:
    body, file, buffer = Body(data), io.BytesIO(data), bytearray(4)
    assert body.read(3) == data
    assert not body.read(3)
    for offset, whence in ((0, io.SEEK_END), (0, io.SEEK_SET), (min(2, len(data)), io.SEEK_SET)):
        assert body.seek(offset, whence) == file.seek(offset, whence) == body.tell()
    count = body.readinto(memoryview(buffer))
    assert buffer[:count] == file.read(4)
    assert len(body) == len(data)


@pytest.mark.parametrize("signed", [True, False])
def test_a_body_arrives_in_one_call_without_being_asked_for(
    signed: bool, versitygw: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, sent = bytearray(b"0123456789abcdef" * 65536), list[bytes]()
    send = socket.socket.sendall
    client, bucket = connect(versitygw, monkeypatch, signed=signed), f"bodies-{signed}".lower()
    client.create_bucket(Bucket=bucket)
    monkeypatch.setattr(socket.socket, "sendall", lambda *each: (sent.append(bytes(each[1])), send(*each))[1])
    client.put_object(Bucket=bucket, Key="k", Body=Body(data))
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    assert sent.count(bytes(data)) == 1
    assert not any(b"100-continue" in piece for piece in sent)


def connect(server: S3Server, monkeypatch: pytest.MonkeyPatch, *, signed: bool) -> Any:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return send_at_once(s3.connect(s3={"payload_signing_enabled": signed}))
