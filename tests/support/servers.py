"""S3 servers on the loopback interface: moto for speed, versitygw and MinIO as real ones, rclone as one that lies."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from testbed.build import binary
from testbed.certificate import Certificate
from testbed.daemons import Daemons

KEY, SECRET = "testing-key", "testing-secret"


@dataclass(frozen=True)
class S3Server:
    """A running server. `folder` is where it keeps the bytes of its buckets, for servers that keep them as files."""

    endpoint: str
    folder: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client of it needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str = "s3") -> Any:
        """A client with all permissions."""
        return boto3.client(
            service, endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)


@contextlib.contextmanager
def run_moto() -> Iterator[S3Server]:
    """moto's server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


@contextlib.contextmanager
def run_versitygw(folder: Path, host: str = "127.0.0.1", certificate: Certificate | None = None) -> Iterator[S3Server]:
    """versitygw over a folder, stopped at the end; with a certificate it speaks TLS alone."""
    port = free_port()
    data, sidecar = folder / "data", folder / "meta"
    data.mkdir(parents=True)
    sidecar.mkdir()
    secure = ["--cert", certificate.certificate, "--key", certificate.key] if certificate else []
    options = ["--port", f"{host}:{port}", "--quiet", "--keep-alive", *secure]
    command = [binary("versitygw"), *options, "posix", "--sidecar", sidecar, data]
    with _running(port, host, *command, ROOT_ACCESS_KEY=KEY, ROOT_SECRET_KEY=SECRET):
        yield S3Server(f"{'https' if certificate else 'http'}://{host}:{port}", data)


@contextlib.contextmanager
def run_minio(folder: Path) -> Iterator[S3Server]:
    """MinIO over a folder, stopped at the end. It keeps bytes in a form of its own."""
    port = free_port()
    settings = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off", "HOME": str(folder)}
    command = [binary("minio"), "server", "--quiet", "--address", f"127.0.0.1:{port}", folder / "data"]
    with _running(port, "127.0.0.1", *command, **settings):
        server = S3Server(f"http://127.0.0.1:{port}")
        await_answer(server)
        yield server


@contextlib.contextmanager
def run_rclone(folder: Path) -> Iterator[S3Server]:
    """rclone's `serve s3`, which accepts conditional writes and ignores the condition."""
    port = free_port()
    (folder / "data").mkdir()
    program = Path(sys.executable).parent / "rclone"
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", folder / "data"]
    with _running(port, "127.0.0.1", *command, RCLONE_CONFIG=os.devnull, HOME=str(folder)):
        yield S3Server(f"http://127.0.0.1:{port}", folder / "data")


@contextlib.contextmanager
def _running(port: int, host: str, program: Path, *arguments: str | Path, **settings: str) -> Iterator[None]:
    """A server that listens on the port, until the block ends, or this process, however that comes about."""
    with contextlib.closing(Daemons()) as daemons:
        daemons.start(program.name, program, *arguments, PATH=os.environ["PATH"], **settings)
        daemons.await_ready(program.name, lambda: listens(host, port))
        yield


def await_answer(server: S3Server) -> None:
    """Return once the server serves requests: it may listen before it does."""
    end = time.monotonic() + 90
    while True:
        try:
            server.client().list_buckets()
            return
        except (ClientError, BotoCoreError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(host: str, port: int) -> bool:
    """Whether a connection is taken there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False
