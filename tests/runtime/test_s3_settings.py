"""The variables that KServe sets for S3, each as its own initializer reads it: one test per row of the table in docs/pod.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import use_server
from longshore_runtime import s3
from longshore_runtime.errors import LongshoreError, StoreFailed
from longshore_runtime.pull.sources import open_source
from longshore_runtime.s3_settings import read_s3_settings
from support.servers import S3Server
from support.sites import FakeSite, run_tls_site

DOCUMENT = Path(__file__).parents[2] / "docs" / "pod.md"
NAMES = (
    "AWS_", "S3_", "STORAGE_", "CA_BUNDLE", "awsAnonymous", "REQUESTS_CA_BUNDLE", "SSL_CERT",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any of the variables, but with keys."""
    import os

    for name in list(os.environ):
        if name.startswith(NAMES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    return monkeypatch


def presigned() -> str:
    """The address at which a client made from the environment would look for an object."""
    return s3.connect().generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "m/config.json"})


def host_of(url: str) -> str | None:
    return urlsplit(url).hostname


def test_aws_access_key_id_and_aws_secret_access_key_sign() -> None:
    assert "the-key" in presigned()
    assert "the-secret" not in presigned()


def test_aws_session_token_goes_along(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_SESSION_TOKEN", "the-token")
    assert re.search(r"(?i)security-token=the-token", presigned())


def test_aws_endpoint_url_is_asked_by_path(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "https://minio.models:9000")
    assert presigned().startswith("https://minio.models:9000/models/m/config.json?")


def test_aws_default_region_chooses_the_endpoint(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3.connect().meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


def test_s3_user_virtual_bucket_puts_the_bucket_into_the_host(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "https://oss.example.com")
    environment.setenv("S3_USER_VIRTUAL_BUCKET", "true")
    assert host_of(presigned()) == "models.oss.example.com"


def test_the_legacy_endpoint_puts_the_bucket_into_the_host(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert (host_of(presigned()) or "").startswith("models.s3.")


def test_s3_use_accelerate_asks_the_edge(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("S3_USE_ACCELERATE", "true")
    assert host_of(presigned()) == "models.s3-accelerate.amazonaws.com"


def test_awsanonymouscredential_signs_nothing(environment: pytest.MonkeyPatch, site: FakeSite) -> None:
    environment.setenv("AWS_ENDPOINT_URL", site.endpoint)
    for anonymous, signed in (("false", True), ("True", False)):
        environment.setenv("awsAnonymousCredential", anonymous)
        site.asked.clear()
        assert open_source("s3://models/m").read("config.json") is None
        said = ["authorization" in asked.headers or "X-Amz-Signature=" in asked.path for asked in site.asked]
        assert set(said) == {signed}


def test_s3_verify_ssl_turns_the_check_off(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with run_tls_site(tmp_path) as (site, _):
        environment.setenv("AWS_ENDPOINT_URL", site.endpoint)
        environment.setenv("S3_MAX_ATTEMPTS", "1")
        with pytest.raises(StoreFailed):
            open_source("s3://models/m").read("config.json")
        for off in ("0", "false", "False"):
            environment.setenv("S3_VERIFY_SSL", off)
            assert open_source("s3://models/m").read("config.json") is None


def test_aws_ca_bundle_is_trusted(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with run_tls_site(tmp_path) as (site, bundle):
        environment.setenv("AWS_ENDPOINT_URL", site.endpoint)
        environment.setenv("AWS_CA_BUNDLE", str(bundle))
        assert open_source("s3://models/m").read("config.json") is None
        environment.setenv("AWS_CA_BUNDLE", str(tmp_path / "absent"))
        with pytest.raises(StoreFailed, match=r"the CA bundle .*/absent is missing; correct AWS_CA_BUNDLE"):
            open_source("s3://models/m")


def test_ca_bundle_configmap_name_is_trusted_where_it_is_mounted(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with run_tls_site(tmp_path) as (site, bundle):
        environment.setenv("AWS_ENDPOINT_URL", site.endpoint)
        environment.setenv("CA_BUNDLE_CONFIGMAP_NAME", "ours")
        environment.setenv("CA_BUNDLE_VOLUME_MOUNT_POINT", str(tmp_path))
        with pytest.raises(StoreFailed, match=r"cabundle.crt is missing; give the ConfigMap ours a cabundle\.crt"):
            open_source("s3://models/m")
        (tmp_path / "cabundle.crt").write_bytes(bundle.read_bytes())
        assert open_source("s3://models/m").read("config.json") is None


def test_s3_connect_timeout_s3_read_timeout_and_s3_max_attempts_are_obeyed(environment: pytest.MonkeyPatch) -> None:
    for name, value in (("S3_CONNECT_TIMEOUT", "3"), ("S3_READ_TIMEOUT", "4"), ("S3_MAX_ATTEMPTS", "5")):
        environment.setenv(name, value)
    config: Any = s3.connect().meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (3, 4, 6), "five repetitions"
    for wrong in ("x", "0", "-1", "1.5"):
        environment.setenv("S3_READ_TIMEOUT", wrong)
        with pytest.raises(LongshoreError, match="S3_READ_TIMEOUT is"):
            read_s3_settings()


def test_storage_config_and_storage_override_config_win(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "https://elsewhere")
    stored = {"type": "s3", "endpoint_url": "https://minio:9000", "access_key_id": "stored-key", "secret_access_key": "s"}
    environment.setenv("STORAGE_CONFIG", json.dumps(stored | {"region": "eu-west-1", "bucket": "ignored"}))
    assert presigned().startswith("https://minio:9000/models/")
    assert "stored-key" in presigned()
    environment.setenv("STORAGE_OVERRIDE_CONFIG", json.dumps({"endpoint_url": "https://other:9000", "anonymous": True}))
    assert presigned() == "https://other:9000/models/m/config.json"
    environment.setenv("STORAGE_CONFIG", json.dumps({"type": "hdfs", "endpoint_url": "https://minio:9000"}))
    assert presigned().startswith("https://elsewhere/")
    for wrong in ("{", "[1]", '"text"'):
        environment.setenv("STORAGE_CONFIG", wrong)
        with pytest.raises(LongshoreError, match="STORAGE_CONFIG is not a JSON object"):
            read_s3_settings()


def test_aws_role_arn_and_aws_web_identity_token_file_are_irsa(
    environment: pytest.MonkeyPatch, moto: S3Server, tmp_path: Path
) -> None:
    use_server(moto, environment)
    moto.make_bucket("irsa")
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "token").write_text("a-service-accounts-token")
    environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/models")
    source: Any = open_source("s3://irsa/m")
    assert list(source.list_files()) == []
    assert source.client._request_signer._credentials.method == "assume-role-with-web-identity"


def test_the_table_names_what_is_tested_and_the_tests_what_is_in_it() -> None:
    section = DOCUMENT.read_text().partition("### S3")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"S3_ENDPOINT", "S3_USE_HTTPS"}
    tests = {name for name in globals() if name.startswith("test_")}
    assert {name for name in documented if not any(name.lower() in test for test in tests)} <= {"CA_BUNDLE_VOLUME_MOUNT_POINT"}
    assert len(documented) >= 16


@pytest.mark.parametrize("variables", [{"awsAnonymousCredential": "true"}, {"S3_VERIFY_SSL": "false"}, {}])
def test_ranges_are_asked_for_as_all_else_is(
    environment: pytest.MonkeyPatch, moto: S3Server, variables: dict[str, str], request: pytest.FixtureRequest
) -> None:
    use_server(moto, environment)
    bucket = f"ranges-{abs(hash(request.node.nodeid)):x}"
    moto.make_bucket(bucket)
    s3.connect().put_object(Bucket=bucket, Key="m/x", Body=b"0123456789", ACL="public-read")
    for name, value in variables.items():
        environment.setenv(name, value)
    buffer = bytearray(4)
    open_source(f"s3://{bucket}/m").read_into("x", 3, memoryview(buffer))
    assert buffer == b"3456"
