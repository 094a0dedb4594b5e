"""One way to talk to S3-compatible stores: how a client is made, and what their refusals mean.

Credentials, region, endpoint, profile and CA bundle come from where every AWS tool finds them
(environment, ~/.aws, the pod's web identity), and from what KServe adds to that (`s3_settings`). A store other than
AWS is addressed by path (`endpoint/bucket/key`) unless `S3_USER_VIRTUAL_BUCKET` says otherwise.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError, SSLError
from botocore.utils import parse_timestamp

from longshore_runtime import s3_answers
from longshore_runtime.certificates import find_distrust
from longshore_runtime.errors import Busy, Interrupted, LongshoreError, NotFound, StoreFailed
from longshore_runtime.s3_settings import S3Settings, read_s3_settings, split_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTIONS = 32
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
"""What stores say of an object that does not exist."""

_DENIED = {"403", "AccessDenied", "Forbidden", "AllAccessDisabled"}
_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}


class S3Folder:
    """What lies below `s3://BUCKET/PREFIX/`, and a client for it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.bucket, key = split_uri(uri)
        self.prefix = f"{key}/" if key else ""
        self.client = connect()

    def uri_of(self, path: str) -> str:
        """The address of something in the folder."""
        return f"{self.uri}/{path}"

    def read(self, path: str) -> bytes | None:
        """A small object whole, or None when there is none of this name."""
        with explained(self.uri_of(path)):
            for left in reversed(range(s3_answers.ATTEMPTS)):
                try:
                    # Held against the checksum that the object was sent with, where the store tells it.
                    answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path, ChecksumMode="ENABLED")
                    return answer["Body"].read()
                except ClientError as error:
                    if is_absent(error):
                        return None
                    raise
                except (BotoCoreError, OSError):  # damaged or cut off on the way
                    if not left:
                        raise
        raise AssertionError


def connect(s3: Mapping[str, Any] | None = None, read_timeout: float | None = None) -> S3Client:
    """A client that any number of threads may share.

    `s3` are botocore's own options of that name, `read_timeout` the seconds of silence after which a request is repeated.
    """
    settings = read_s3_settings()
    config = Config(
        retries={"mode": "standard", "max_attempts": settings.attempts},
        max_pool_connections=CONNECTIONS,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout if read_timeout is None else read_timeout,
        tcp_keepalive=True,
        # What is sent names its checksum where it matters; some stores choke on boto3's unasked-for ones.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version=UNSIGNED if settings.anonymous else None,
    )
    try:
        make: Any = _open_session().create_client

        def address(style: dict[str, Any]) -> S3Client:
            options: Any = {**(s3 or {}), **style}
            return cast("S3Client", make("s3", config=config.merge(Config(s3=options)), **settings.given))

        likely = _addressing(_named_endpoint(settings), settings)
        client = address(likely)
        if (style := _addressing(client.meta.endpoint_url, settings)) != likely:
            client = address(style)
        s3_answers.judge(client)
    except (BotoCoreError, ValueError) as error:
        raise StoreFailed(
            f"the S3 settings cannot be used: {error}", "check AWS_PROFILE, AWS_ENDPOINT_URL and ~/.aws"
        ) from error
    return client


def _open_session() -> botocore.session.Session:
    """A session of our own: one that is shared would keep the first credentials it saw, and is not thread-safe."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _descriptions())
    s3_answers.read_warily(session, _parse_time)
    return session


@cache
def _descriptions() -> Any:
    """AWS's descriptions of its services: to parse them takes most of the time that a client takes to be made."""
    return botocore.session.get_session().get_component("data_loader")


def _parse_time(text: Any) -> datetime:
    """A moment in an answer. Listings carry thousands, which botocore's own parser takes most of their time for."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)


def _named_endpoint(settings: S3Settings) -> str:
    """The endpoint that the environment names. A file may name another, which only a client that is made tells."""
    named = settings.given.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return named or "https://s3.amazonaws.com"


def _addressing(endpoint: str, settings: S3Settings) -> dict[str, Any]:
    """How buckets are addressed, where that is not boto3's own choice: stores other than AWS by path."""
    style: dict[str, Any] = {"use_accelerate_endpoint": True} if settings.accelerate else {}
    if settings.virtual or not _is_aws(endpoint):
        style["addressing_style"] = "virtual" if settings.virtual else "path"
    return style


def identity(client: S3Client) -> str:
    """Who the credentials belong to: the ARN that STS tells, else (a store without STS, no answer) the access key's id."""
    settings, session = read_s3_settings(), _open_session()
    credentials = session.get_credentials()
    key = settings.given.get("aws_access_key_id") or (credentials.access_key if credentials else None)
    if settings.anonymous or key is None:
        return "anonymous"
    if not _is_aws(client.meta.endpoint_url) and not os.environ.get("AWS_ENDPOINT_URL_STS"):
        return f"key {key}"  # nobody says where its STS is
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=2)
    keys = {name: value for name, value in settings.given.items() if name != "endpoint_url"}
    make: Any = session.create_client
    try:
        return str(make("sts", config=config, **keys).get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return f"key {key}"


def describe(client: S3Client) -> dict[str, str]:
    """The variables by which another process reaches the same store as this client; its keys are not among them."""
    settings, found = read_s3_settings(), {"AWS_DEFAULT_REGION": client.meta.region_name}
    if not _is_aws(client.meta.endpoint_url):
        found["AWS_ENDPOINT_URL_S3"] = client.meta.endpoint_url
    if settings.virtual:
        found["S3_USER_VIRTUAL_BUCKET"] = "true"
    return found


def _is_aws(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def error_code(error: ClientError) -> str:
    """The store's word for what went wrong, or the HTTP status where it has none."""
    return str(error.response.get("Error", {}).get("Code") or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))


def is_refusal(error: ClientError) -> bool:
    """Whether the store does not let these credentials do it."""
    return error_code(error) in _DENIED | _CREDENTIALS


def is_absent(error: ClientError) -> bool:
    """Whether the store says that the object (not the bucket) does not exist."""
    return error_code(error) in ABSENT


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what boto3 raises inside into one sentence about `uri` with what to do next."""
    try:
        yield
    except ClientError as error:
        raise _explain(uri, error) from error
    except NoCredentialsError as error:
        raise StoreFailed(
            f"there are no credentials for {uri}", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from error
    except (SSLError, ssl.SSLError) as error:
        if (reason := find_distrust(error)) is None:
            raise _broken(uri, error) from error
        raise StoreFailed(
            f"the certificate of the server of {uri} is not trusted ({reason})",
            "name your CA's file in AWS_CA_BUNDLE, or give KServe its ConfigMap (caBundleConfigMapName)",
        ) from error
    except EndpointConnectionError as error:
        raise StoreFailed(f"nothing answers at the endpoint of {uri}", "check AWS_ENDPOINT_URL and the network") from error
    except (BotoCoreError, OSError) as error:  # OSError: urllib3's errors while a body is read, and sockets' own
        raise _broken(uri, error) from error


def _broken(uri: str, error: Exception) -> Interrupted:
    return Interrupted(f"the connection to {uri} failed: {type(error).__name__}", "run the command again; it resumes")


def _explain(uri: str, error: ClientError) -> LongshoreError:
    code = error_code(error)
    if code == "NoSuchBucket":
        return NotFound(f"the bucket of {uri} does not exist", f"create it: aws s3 mb s3://{split_uri(uri)[0]}")
    if code in ABSENT:
        return NotFound(f"{uri} does not exist", "check the address")
    if code in _DENIED:
        action = error.operation_name
        return StoreFailed(f"the store denies {action} on {uri}", "give these credentials that permission, or use others")
    if code == "RequestTimeTooSkewed":
        return StoreFailed(f"the store refuses {uri}: its clock and this machine's differ", "set this machine's clock")
    if code in _CREDENTIALS:
        return StoreFailed(f"the store does not accept the credentials for {uri} ({code})", "renew or correct them")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 500)
    if status in (429, 503):
        return Busy(f"the store of {uri} asks for patience ({code})", "run the command again; it resumes")
    kind = Interrupted if status >= 500 else StoreFailed
    return kind(f"{error.operation_name} on {uri} failed with {code}", "run the command again; it resumes")
