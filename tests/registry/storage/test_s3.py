"""What only S3 can do wrong: credentials, permissions, endpoints, conditional writes under way."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from conftest import use_server
from longshore.storage import open_store
from longshore.storage.s3 import S3Store
from longshore_runtime.errors import Interrupted, StoreFailed
from support.servers import S3Server, free_port


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


@pytest.fixture
def store(versitygw: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    use_server(versitygw, monkeypatch)
    assert versitygw.folder
    if not (versitygw.folder / "faults").exists():
        versitygw.make_bucket("faults")
    return open_store("s3://faults/r")  # type: ignore[return-value]


def test_wrong_credentials_are_named_without_being_shown(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
    with pytest.raises(StoreFailed) as caught:
        open_store("s3://faults/r").read("x")
    assert "does not accept the credentials" in caught.value.message
    assert "wrong-secret-value" not in str(caught.value)


def test_missing_credentials_say_what_to_set(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StoreFailed, match="there are no credentials for s3://faults/r/x; set AWS_ACCESS_KEY_ID"):
        open_store("s3://faults/r").read("x")


def test_an_endpoint_where_nothing_listens_is_named(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreFailed, match="nothing answers at the endpoint of s3://faults/r/x; check AWS_ENDPOINT_URL"):
        open_store("s3://faults/r").read("x")


def test_a_denied_write_names_the_permission(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(**_: object) -> None:
        raise refusal("AccessDenied", 403)

    monkeypatch.setattr(store.client, "put_object", deny)
    with pytest.raises(StoreFailed, match="the store denies PutObject on s3://faults/r/key"):
        store.create("key", b"")


def test_a_lost_answer_is_recognised_as_ones_own_win(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = store.client.put_object

    def put_and_lose_the_answer(**arguments: object) -> None:
        put(**arguments)  # type: ignore[arg-type]
        raise refusal("PreconditionFailed", 412)  # what boto3's own repetition would meet

    monkeypatch.setattr(store.client, "put_object", put_and_lose_the_answer)
    assert store.create("lost-answer", b"mine").won


def test_a_write_under_way_is_waited_for(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, refusals = store.client.put_object, [refusal("ConditionalRequestConflict", 409)] * 2

    def put_after_conflicts(**arguments: object) -> object:
        if refusals:
            raise refusals.pop()
        return put(**arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store.client, "put_object", put_after_conflicts)
    assert store.create("conflict", b"mine").won


def test_a_key_that_stays_busy_ends_in_an_error(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(**_: object) -> None:
        raise refusal("ConditionalRequestConflict", 409)

    monkeypatch.setattr(store.client, "put_object", conflict)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Interrupted, match="other writers keep"):
        store.create("busy", b"mine")


def test_uploads_that_nobody_finished_are_listed_and_discarded(store: S3Store) -> None:
    upload = store.client.create_multipart_upload(Bucket="faults", Key="r/m/trees/d/x")["UploadId"]
    store.client.upload_part(Bucket="faults", Key="r/m/trees/d/x", UploadId=upload, PartNumber=1, Body=b"part")
    store.client.create_multipart_upload(Bucket="faults", Key="another/registry")
    (found,) = store.list_unfinished()
    assert (found.key, found.size) == ("m/trees/d/x", 4)
    store.discard(found)
    store.discard(found)
    assert list(store.list_unfinished()) == []


def test_the_identity_is_what_sts_says_or_the_keys_name(
    store: S3Store, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.identity() == "key testing-key"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    assert store.identity().startswith("arn:aws:")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    assert store.identity() == "key testing-key"
