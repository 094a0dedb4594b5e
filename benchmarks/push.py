"""A model from a directory, and from a hub, into a bucket: s5cmd, rclone and boto3 against ours, in one run.

`make bench-push [RUNS=3] [SIZE=256]` (MiB for each of four shards; 1024 is the 4 GB of the goal). All send the same files to
versitygw, which keeps them in memory where there is room (/dev/shm). Ours hashes every file (SHA-256, BLAKE3, CRC-64) and has
every part verified by the store; the others do what they do by themselves. The table has medians of whole processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import tool
from benchmarks.report import print_goal, print_table

from support.hubs import FakeHuggingFace, model_of
from support.models import make_model
from support.servers import S3Server, run_versitygw

MIB = 1024**2
BUCKET = "bench"
OURS = "longshore"
BOTO3 = """
import sys, boto3, pathlib
client = boto3.client("s3")
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    client.upload_file(str(path), sys.argv[2], f"{sys.argv[3]}/{path.name}")
"""
DOWNLOAD = "import sys; from longshore_runtime.pull.__main__ import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Bench:
    """What is sent, to which server, with which environment; `runs` of each."""

    server: S3Server
    model: Path
    work: Path
    runs: int
    environment: dict[str, str]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.model.iterdir())

    def time(self, command: Sequence[str], **more: str) -> float:
        """Seconds that a command takes."""
        started = time.monotonic()
        done = subprocess.run(command, env=self.environment | more, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-1000:]}")
        return time.monotonic() - started

    def push(self, source: str | Path, registry: str, reference: str) -> list[str]:
        return [sys.executable, "-m", "longshore", "push", str(source), reference, "--registry", registry, "--json"]

    def empty(self) -> None:
        """Forget what was sent: there is not room for everybody's."""
        client = self.server.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for found in page.get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=found["Key"])


def pushers(bench: Bench) -> dict[str, Callable[[], float]]:
    endpoint, model = bench.server.endpoint, str(bench.model)
    rclone = ["--s3-provider=Other", f"--s3-endpoint={endpoint}", "--s3-env-auth", "--s3-force-path-style"]
    return {
        OURS: lambda: bench.time(bench.push(model, f"s3://{BUCKET}/ours", "m:1")),
        "s5cmd": lambda: bench.time(
            [str(tool("s5cmd")), "--log=error", "--endpoint-url", endpoint, "cp", f"{model}/*", f"s3://{BUCKET}/s5cmd/"]
        ),
        "rclone": lambda: bench.time(
            [str(tool("rclone")), "copy", "--config=", "--transfers=8", *rclone, model, f":s3:{BUCKET}/rclone"]
        ),
        "boto3 upload_file": lambda: bench.time([sys.executable, "-c", BOTO3, model, BUCKET, "boto3"]),
    }


def bench_pushes(bench: Bench) -> None:
    """Everybody in turn, `runs` times."""
    ways = pushers(bench)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bench.runs):
        for name, run in ways.items():
            bench.empty()
            taken[name].append(run())
    rates = {name: bench.size / statistics.median(times) / 1e9 for name, times in taken.items()}
    rows = [
        (name, f"{statistics.median(times):.2f}", f"{rates[name]:.3f}", f"{min(times):.2f}-{max(times):.2f}")
        for name, times in taken.items()
    ]
    print(f"\npush of {bench.size / 1e9:.2f} GB to versitygw")
    print_table(("client", "s", "GB/s", "range s"), rows)
    print_goal("push rate against s5cmd's", rates[OURS] / rates["s5cmd"], ">=", 1.0, "x")


def bench_change(bench: Bench) -> None:
    """A second version with one small file changed."""
    import json

    bench.empty()
    registry = f"s3://{BUCKET}/ours"
    first = bench.time(bench.push(bench.model, registry, "m:1"))
    card = bench.model / "README.md"
    card.write_text("changed")
    started = time.monotonic()
    done = subprocess.run(
        bench.push(bench.model, registry, "m:2"), env=bench.environment, capture_output=True, text=True, check=True
    )
    second, sent = time.monotonic() - started, json.loads(done.stdout)["sent"]
    card.unlink()
    print("\nsecond push with one small file changed")
    print_table(
        ("push", "s", "bytes sent"), [("first", f"{first:.2f}", str(bench.size)), ("second", f"{second:.2f}", str(sent))]
    )
    print_goal("bytes sent for a small change", 100 * sent / bench.size, "<=", 1.0, "%")


def bench_import(bench: Bench) -> None:
    """From a hub into the bucket, against a download and an upload."""
    hub = FakeHuggingFace()
    hub.models["org/m"] = model_of({path.name: path.read_bytes() for path in bench.model.iterdir()})
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": ""}
    copy = bench.work / "copy"
    taken: dict[str, list[float]] = {"import": [], "download": [], "upload": []}
    try:
        for _ in range(bench.runs):
            bench.empty()
            taken["import"].append(bench.time(bench.push("hf://org/m", f"s3://{BUCKET}/import", "m:1"), **environment))
            bench.empty()
            shutil.rmtree(copy, ignore_errors=True)
            taken["download"].append(bench.time([sys.executable, "-c", DOWNLOAD, "hf://org/m", str(copy)], **environment))
            taken["upload"].append(bench.time(bench.push(copy, f"s3://{BUCKET}/upload", "m:1")))
    finally:
        hub.stop()
    medians = {name: statistics.median(times) for name, times in taken.items()}
    both = medians["download"] + medians["upload"]
    print("\nhub to bucket")
    rows = [(name, f"{seconds:.2f}") for name, seconds in (*medians.items(), ("download, then upload", both))]
    print_table(("way", "s"), rows)
    print_goal(
        "import against the slower leg", medians["import"] / max(medians["download"], medians["upload"]), "<=", 1.15, "x"
    )


@contextmanager
def workplace(needed: int) -> Iterator[Path]:
    """A folder in memory where there is room for `needed` bytes, on the disk otherwise."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * needed and _available() > 2 * needed
    with tempfile.TemporaryDirectory(dir=memory if roomy else None, prefix="longshore-bench-") as folder:
        print(f"working in {'memory' if roomy else 'a folder on the disk'}, {os.cpu_count()} cores")
        yield Path(folder)


def _available() -> int:
    """Bytes of memory that are free for the asking."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="MiB for each of four shards")
    options = parser.parse_args()
    with workplace(4 * options.size * MIB * 4) as work, run_versitygw(work / "server") as server:
        model = make_model(work / "model", shards=4, elements=options.size * MIB // 2)
        server.make_bucket(BUCKET)
        environment = os.environ | server.environment | {"HOME": str(work), "LONGSHORE_IDENTITY": "bench"}
        bench = Bench(server, model, work, options.runs, dict(environment))
        bench_pushes(bench)
        bench_change(bench)
        bench_import(bench)


if __name__ == "__main__":
    main()
