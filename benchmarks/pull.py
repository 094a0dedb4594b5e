"""A model from a bucket into a folder: KServe's own initializer and the usual S3 clients against ours, in one run.

`make bench-pull [RUNS=3] [SIZE=1024]` (MiB for each of four shards), as root. All pull the same bytes from nginx, which stands
for a store that is never the bottleneck and answers listings from a file; the client has one core and the server the other.
Ours verifies every byte against the manifest, the others verify nothing. The table has medians of whole processes, from their
start to their end; memory is the sum over a client's processes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.report import print_goal, print_table

from longshore import Registry
from support.disk import on_disk
from support.models import make_model
from testbed.build import cache_folder, manifests, say
from testbed.certificate import make_certificate
from testbed.control_plane import free_ports
from testbed.daemons import Daemons
from testbed.images import ROOT
from testbed.packages import need, search_path

MIB = 1024**2
CLIENT_CORE, SERVER_CORE = "0", "1"
OURS, STOCK = "longshore", "kserve-storage"


@dataclass(frozen=True)
class Way:
    """From where to where: over `scheme`, into a folder below `target`."""

    name: str
    scheme: str
    target: Path


@dataclass(frozen=True)
class Result:
    """One pull: `wall` and `cpu` in seconds, `memory` in bytes."""

    wall: float
    cpu: float
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="of each client on each way")
    parser.add_argument("--size", type=int, default=1024, help="MiB of each of the four shards")
    options = parser.parse_args()
    need("nginx")
    with tempfile.TemporaryDirectory(prefix="longshore-bench-", dir="/var/tmp") as folder:
        data = make_data(Path(folder) / "data", options.size)
        size = sum(path.stat().st_size for path in (data / "plain").rglob("*") if path.is_file())
        with serve(data) as endpoints:
            ways = [
                Way("HTTP to tmpfs", "http", Path("/dev/shm")),
                Way("HTTP to disk", "http", Path(folder)),
                Way("TLS to disk", "https", Path(folder)),
            ]
            found = {way.name: compare(way, endpoints, options.runs) for way in ways}
            resumed = measure_resumption(endpoints, Path(folder), size)
    report(found, size, resumed)


def compare(way: Way, endpoints: Mapping[str, str], runs: int) -> dict[str, list[Result]]:
    """Every client, in turns."""
    found: dict[str, list[Result]] = {}
    clients = commands(way, endpoints)
    for run in range(runs):
        for name, (command, environment) in clients.items():
            with target_below(way.target) as target:
                result = measure([*command, str(target)] if name != "s5cmd" else [*command, f"{target}/"], environment)
                check(target, endpoints["data"])
            found.setdefault(name, []).append(result)
            say(f"{way.name}: run {run + 1} of {runs}: {name}: {result.wall:.1f} s")
    return found


def report(found: Mapping[str, Mapping[str, Sequence[Result]]], size: int, resumed: float) -> None:
    """The table of medians, and the goals."""

    def rate(way: str, name: str) -> float:
        return size / 1e9 / statistics.median(result.wall for result in found[way][name])

    rows = [
        [
            f"{way}: {name}",
            f"{rate(way, name):.2f}",
            f"{rate(way, name) / rate(way, STOCK):.2f}",
            f"{statistics.median(result.cpu for result in results) / size * 1e9:.2f}",
            f"{max(result.memory for result in results) / MIB:.0f}",
        ]
        for way, clients in found.items()
        for name, results in clients.items()
    ]
    print_table(["one core", "GB/s", "x stock", "CPU s/GB", "MiB"], rows)
    print_goal("http-disk-vs-stock", rate("HTTP to disk", OURS) / rate("HTTP to disk", STOCK), ">=", 3.5, "x")
    print_goal("tls-disk-vs-stock", rate("TLS to disk", OURS) / rate("TLS to disk", STOCK), ">=", 2.2, "x")
    fastest = max(rate("HTTP to tmpfs", name) for name in found["HTTP to tmpfs"] if name != OURS)
    print_goal("tmpfs-vs-fastest-unverified", rate("HTTP to tmpfs", OURS) / fastest, ">=", 1, "x")
    print_goal("peak-memory", max(r.memory for clients in found.values() for r in clients[OURS]) / MIB, "<=", 256, "MiB")
    print_goal("fetched-again-after-a-kill-at-90-percent", 100 * resumed, "<=", 12, "%")


# -- the data and the server -----------------------------------------------------------------------


def make_data(data: Path, size: int) -> Path:
    """A pushed version below `models/`, and the same files without our metadata below `plain/`; a listing of each."""
    model = make_model(data / "plain/tree", shards=4, elements=size * MIB // 2)
    root = data / "models"
    tree = Path(Registry(root.as_uri()).push(model, "m:1").version.uri.removeprefix("file://"))
    shutil.rmtree(model)
    model.mkdir()
    for file in tree.iterdir():
        if file.is_file():
            os.link(file, model / file.name)
    for bucket, prefix in (("models", tree.relative_to(root)), ("plain", Path("tree"))):
        files = sorted(path for path in (data / bucket / prefix).rglob("*") if path.is_file())
        contents = "".join(
            f"<Contents><Key>{escape(str(file.relative_to(data / bucket)))}</Key><Size>{file.stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
            for file in files
        )
        text = (
            f"<Name>{bucket}</Name><Prefix>{prefix}/</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}"
        )
        (data / f"{bucket}.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}'
            "</ListBucketResult>"
        )
    (data / "address").write_text(f"s3://models/{tree.relative_to(root)}")
    return data


@contextlib.contextmanager
def serve(data: Path) -> Iterator[dict[str, str]]:
    """Nginx over the data on its core: its endpoints by scheme, its authority's file, the data's folder."""
    plain, secure = free_ports(2)
    with contextlib.closing(Daemons()) as daemons:
        certificate = make_certificate(daemons.folder / "certificate", ["127.0.0.1"])
        config = daemons.folder / "nginx.conf"
        config.write_text(nginx_config(data, daemons.folder, plain, secure, str(certificate.certificate), str(certificate.key)))
        nginx = shutil.which("nginx", path=search_path()) or ""
        taskset = shutil.which("taskset") or ""
        daemons.start(
            "nginx", taskset, "--cpu-list", SERVER_CORE, nginx, "-c", config, "-p", daemons.folder, PATH=search_path()
        )
        time.sleep(1)
        yield {
            "http": f"http://127.0.0.1:{plain}",
            "https": f"https://127.0.0.1:{secure}",
            "authority": str(certificate.authority),
            "data": str(data),
        }


def nginx_config(data: Path, folder: Path, plain: int, secure: int, certificate: str, key: str) -> str:
    listings = "".join(
        f"location = /{bucket} {{ default_type application/xml; alias {data}/{bucket}.xml; }}\n"
        f"location = /{bucket}/ {{ default_type application/xml; alias {data}/{bucket}.xml; }}\n"
        for bucket in ("models", "plain")
    )
    return f"""\
daemon off; worker_processes 1; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{secure} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    {listings}
    location / {{ root {data}; default_type application/octet-stream; }}
  }}
}}
"""


@contextlib.contextmanager
def target_below(folder: Path) -> Iterator[Path]:
    target = Path(tempfile.mkdtemp(prefix="longshore-pull-", dir=folder))
    os.sync()
    try:
        yield target
    finally:
        shutil.rmtree(target)


# -- the clients -----------------------------------------------------------------------------------


def commands(way: Way, endpoints: Mapping[str, str]) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Each client's command, to which the target is added, and its environment."""
    authority = endpoints["authority"]
    common = {
        "PATH": os.environ["PATH"],
        "HOME": str(Path.home()),
        "AWS_ENDPOINT_URL": endpoints[way.scheme],
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": authority,
        "SSL_CERT_FILE": authority,
    }
    entry = manifests("kserve-stock") / "python/storage-initializer/scripts/initializer-entrypoint"
    stock = {"PYTHONPATH": str(peer_packages()), "S3_ENDPOINT": endpoints[way.scheme].partition("//")[2], "S3_VERIFY_SSL": "1"}
    rclone = ["--s3-provider=Other", f"--s3-endpoint={endpoints[way.scheme]}", "--s3-env-auth", f"--ca-cert={authority}"]
    tree = (Path(endpoints["data"]) / "address").read_text()
    return {
        OURS: ([sys.executable, "-m", "longshore_runtime.pull", tree], common),
        STOCK: ([sys.executable, str(entry), "s3://plain/tree"], common | stock),
        "s5cmd": (
            [str(tool("s5cmd")), "--log=error", "cp", "s3://plain/tree/*"],
            common | {"S3_ENDPOINT_URL": common["AWS_ENDPOINT_URL"]},
        ),
        "rclone": ([str(tool("rclone")), "copy", "--config=", "--transfers=8", *rclone, ":s3:plain/tree"], common),
    }


def peer_packages() -> Path:
    """KServe's package and what it needs, in a folder of their own."""
    pins = ROOT / "requirements/peer-kserve-storage.txt"
    return installed("peer-kserve-storage", pins)


def tool(name: str) -> Path:
    """The program itself: one of the wheels starts it from Python."""
    folder = installed("peer-tools", ROOT / "requirements/peer-tools.txt")
    return next(found for found in (folder / name / "bin" / name, folder / "bin" / name) if found.exists())


def installed(name: str, pins: Path) -> Path:
    """A folder in the cache with the packages of a file of pins."""
    folder = cache_folder() / f"{name}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(dir=cache_folder(), prefix=".draft-"))
        uv = [shutil.which("uv") or "uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--compile-bytecode"]
        subprocess.run([*uv, "--python", sys.executable, "--target", str(draft), "--requirement", str(pins)], check=True)
        draft.rename(folder)
    return folder


# -- the measurement -------------------------------------------------------------------------------


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Result:
    """One client as a whole process tree on its core."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "--cpu-list", CLIENT_CORE, *command],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    peak = Peak(process.pid)
    said = b""
    with peak:
        assert process.stderr
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status:
        raise SystemExit(f"{command[0]} failed: {said.decode(errors='replace')[-2000:]}")
    return Result(wall, usage.ru_utime + usage.ru_stime, peak.most)


class Peak:
    """The most memory that the processes of a session had at any moment, looked at ten times a second."""

    def __init__(self, session: int) -> None:
        self.most = 0
        self._session, self._over = session, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            total = 0
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = stat.read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self._session:
                        total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            self.most = max(self.most, total)


def check(target: Path, data: str) -> None:
    """Every client has brought every file, whole by its size."""
    for file in (Path(data) / "plain/tree").iterdir():
        pulled = target / file.name
        if not pulled.is_file() or pulled.stat().st_size != file.stat().st_size:
            raise SystemExit(f"{pulled} is missing or short")


def measure_resumption(endpoints: Mapping[str, str], folder: Path, size: int) -> float:
    """The share of the bytes that is fetched again after a SIGKILL at 90 %."""
    command, environment = commands(Way("", "http", folder), endpoints)[OURS]
    with target_below(folder) as target:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", CLIENT_CORE, *command, str(target)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while on_disk(target) < 0.9 * size and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = subprocess.run([*command, str(target)], env=environment, capture_output=True, text=True, check=True)
        fetched: int = json.loads(done.stdout.splitlines()[-1])["fetched"]
    return fetched / size


if __name__ == "__main__":
    main()
