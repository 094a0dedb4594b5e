"""S3 servers on the loopback interface: moto for speed, versitygw as a real one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from testbed.build import binary

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

    def make_bucket(self, name: str) -> None:
        client = boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        client.create_bucket(Bucket=name)


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
def run_versitygw(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """versitygw over a folder, stopped at the end."""
    program = binary("versitygw")
    port = free_port()
    environment = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET, "PATH": os.environ["PATH"]}
    data, sidecar = folder / "data", folder / "meta"
    data.mkdir(parents=True)
    sidecar.mkdir()
    command = [str(program), "--port", f"{host}:{port}", "--quiet", "posix", "--sidecar", str(sidecar), str(data)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for_port(port, process, folder / "log", host)
            yield S3Server(f"http://{host}:{port}", data)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, host: str = "127.0.0.1") -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
