"""A registry of many versions in a bucket, listed: what `longshore list` takes, beside the listing of the bucket itself.

`make bench-list [RUNS=3] [VERSIONS=10000]`, some two minutes. One version is pushed; the others are copies of its record, which
is all that a listing has to do with. The table has medians of whole processes, from their start to their end, on all cores,
which the server shares. The bare client is boto3, asking for the names of the records alone, a thousand at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.measurement import Peak
from benchmarks.report import print_goal, print_table

from support.models import make_model
from support.servers import S3Server, run_minio, run_versitygw

MIB = 1024**2
BUCKET = "bench"
REGISTRY = f"s3://{BUCKET}/registry"
LIST, NEWEST, BARE = "longshore list", "longshore list MODEL, the newest 100", "boto3, the names alone"
NAMES = f"""
import boto3
pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="{BUCKET}", Prefix="registry/m/versions/")
print(sum(len(page.get("Contents", [])) for page in pages))
"""
SERVERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[S3Server]]] = {
    "versitygw": run_versitygw,
    "MinIO": run_minio,
}


@dataclass(frozen=True)
class Result:
    """One process: `wall` in seconds, the most `memory` in bytes, what it `said`."""

    wall: float
    memory: int
    said: str


def measure(command: Sequence[str], environment: dict[str, str]) -> Result:
    """What a command takes. Exits when it fails."""
    started = monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with Peak(process.pid) as peak:
        said, complaint = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {complaint.strip()[-1000:]}")
    return Result(monotonic() - started, peak.most, said)


def fill(server: S3Server, model: Path, environment: dict[str, str], versions: int) -> None:
    """Make a registry of so many versions of one model."""
    server.make_bucket(BUCKET)
    measure([sys.executable, "-m", "longshore", "push", str(model), "m:1", "--registry", REGISTRY], environment)
    client = server.client()
    record = client.get_object(Bucket=BUCKET, Key="registry/m/versions/1.json")["Body"].read()
    keys = (f"registry/m/versions/{number}.json" for number in range(2, versions + 1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=record), keys))


def bench(name: str, runs: int, versions: int) -> None:
    """Everybody in turn, `runs` times, on one kind of server."""
    command = [sys.executable, "-m", "longshore", "list", "--registry", REGISTRY]
    commands = {LIST: command, NEWEST: [*command, "m"], BARE: [sys.executable, "-c", NAMES]}
    taken: dict[str, list[Result]] = {each: [] for each in commands}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="longshore-bench-") as folder:
        (served := Path(folder) / "server").mkdir()
        with SERVERS[name](served) as server:
            environment = {**os.environ, **server.environment, "HOME": folder, "LONGSHORE_IDENTITY": "bench"}
            fill(server, make_model(Path(folder) / "model"), environment, versions)
            for _ in range(runs + 1):
                for each, words in commands.items():
                    taken[each].append(measure(words, environment))
    if str(versions) not in taken[LIST][0].said:
        sys.exit(f"{LIST} does not say that there are {versions} versions: {taken[LIST][0].said}")
    taken = {each: results[1:] for each, results in taken.items()}  # the first made the bytecode
    wall = {each: statistics.median(result.wall for result in results) for each, results in taken.items()}
    rows = [
        (
            each,
            f"{wall[each]:.2f}",
            f"{min(result.wall for result in results):.2f}-{max(result.wall for result in results):.2f}",
            f"{max(result.memory for result in results) / MIB:.0f}",
        )
        for each, results in taken.items()
    ]
    print(f"\n{versions} versions on {name}")
    print_table(("command", "s", "from-to", "MiB"), rows)
    print_goal(f"list-{versions}-{name}", wall[LIST], "<=", 2.0, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--versions", type=int, default=10_000)
    options = parser.parse_args()
    for name in SERVERS:
        bench(name, options.runs, options.versions)


if __name__ == "__main__":
    main()
