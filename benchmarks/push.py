"""A model from a directory, and from a hub, into a bucket: s5cmd, rclone and boto3 against ours, in one run.

`make bench-push [RUNS=3] [SIZE=1024]` (MiB for each of four shards; 1024 is the 4 GB of the goal, with which it takes some six
minutes and 13 GB of memory). All send the same files to versitygw, which keeps them in memory where there is room (/dev/shm).
Ours hashes every file (SHA-256, BLAKE3, CRC-64) and has every part verified by the store; the others do what they do by
themselves. The hub is nginx, with a Hugging Face hub's listing and files: once on the same cores, so that whatever it takes to
send a byte is taken from its receivers, and once behind a line of 1 Gbit/s.

The tables have medians of whole processes, from their start to their end, on all cores, which the servers share; CPU is the
client's seconds and, of a push, the server's. Programs' bytecode is compiled beforehand, as it is where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from benchmarks.clients import tool
from benchmarks.hub import serve_hub
from benchmarks.measurement import Peak
from benchmarks.report import print_goal, print_table

from support.models import make_model
from support.servers import S3Server, run_versitygw
from testbed.packages import need

MIB = 1024**2
BUCKET = "bench"
OURS = "longshore"
BOTO3 = """
import sys, boto3, pathlib
client = boto3.client("s3")
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    client.upload_file(str(path), sys.argv[2], f"{sys.argv[3]}/{path.name}")
"""
LINE = 125_000_000


@dataclass(frozen=True)
class Result:
    """One process: `wall`, its own `cpu` and the server's in seconds, `memory` in bytes, what it `said` on stdout."""

    wall: float
    cpu: float
    served: float
    memory: int
    said: str


@dataclass(frozen=True)
class Bench:
    """What is sent, to which server, with which environment; `runs` of each, in folders on a disk and in memory."""

    server: S3Server
    model: Path
    memory: Path
    runs: int
    environment: Mapping[str, str]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.model.iterdir())

    def measure(self, command: Sequence[str], **more: str) -> Result:
        """What a command takes. Exits when it fails."""
        served, started = self._served(), monotonic()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command, env={**self.environment, **more}, stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
            with Peak(process.pid) as peak:
                assert process.stdout
                answer = process.stdout.read().decode()
                _, status, usage = os.wait4(process.pid, 0)
            said.seek(0)
            if status:
                sys.exit(f"{' '.join(map(str, command))} failed: {said.read().decode(errors='replace').strip()[-1000:]}")
        return Result(monotonic() - started, usage.ru_utime + usage.ru_stime, self._served() - served, peak.most, answer)

    def _served(self) -> float:
        """Seconds of CPU that the server has taken."""
        port = self.server.endpoint.rpartition(":")[2]
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                arguments = command.read_bytes().split(b"\0")
                if f"127.0.0.1:{port}".encode() in arguments and arguments[0].endswith(b"versitygw"):
                    fields = command.with_name("stat").read_text().rpartition(")")[2].split()
                    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def push(self, source: str | Path, registry: str, reference: str) -> list[str]:
        return [sys.executable, "-m", "longshore", "push", str(source), reference, "--registry", registry, "--json"]

    def empty(self) -> None:
        """Forget what was sent: there is not room for everybody's."""
        client = self.server.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for found in page.get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=found["Key"])


def commands(bench: Bench) -> dict[str, list[str]]:
    endpoint, model = bench.server.endpoint, str(bench.model)
    rclone = ["--s3-provider=Other", f"--s3-endpoint={endpoint}", "--s3-env-auth", "--s3-force-path-style"]
    return {
        OURS: bench.push(model, f"s3://{BUCKET}/ours", "m:1"),
        "s5cmd": [str(tool("s5cmd")), "--log=error", "--endpoint-url", endpoint, "cp", f"{model}/*", f"s3://{BUCKET}/s5cmd/"],
        "rclone": [str(tool("rclone")), "copy", "--config=", "--transfers=8", *rclone, model, f":s3:{BUCKET}/rclone"],
        "boto3 upload_file": [sys.executable, "-c", BOTO3, model, BUCKET, "boto3"],
    }


def bench_pushes(bench: Bench) -> None:
    """Everybody in turn, `runs` times; then a second version of ours, with one small file changed."""
    taken: dict[str, list[Result]] = {name: [] for name in commands(bench)}
    for number in range(bench.runs):
        for name, command in reversed(commands(bench).items()):  # so that ours is there at the end
            bench.empty()
            taken[name].append(bench.measure(command))
            note(f"push {number + 1} of {bench.runs}: {name}: {taken[name][-1].wall:.1f} s")
    rate = {name: bench.size / 1e9 / _median(results, "wall") for name, results in taken.items()}
    gigabytes = bench.size / 1e9
    rows = [
        (
            name,
            f"{rate[name]:.3f}",
            f"{rate[name] / rate['s5cmd']:.2f}",
            f"{_median(results, 'cpu') / gigabytes:.2f}",
            f"{_median(results, 'served') / gigabytes:.2f}",
            f"{max(result.memory for result in results) / MIB:.0f}",
            f"{min(result.wall for result in results):.1f}-{max(result.wall for result in results):.1f}",
        )
        for name, results in taken.items()
    ]
    print(f"\npush of {gigabytes:.2f} GB to versitygw")
    print_table(("client", "GB/s", "x s5cmd", "CPU s/GB", "server's", "MiB", "s"), rows)
    print_goal("push-vs-s5cmd", rate[OURS] / rate["s5cmd"], ">=", 1.0, "x")
    _bench_change(bench, taken[OURS][-1])


def _bench_change(bench: Bench, first: Result) -> None:
    card = bench.model / "README.md"
    card.write_text("changed")
    second = bench.measure(bench.push(bench.model, f"s3://{BUCKET}/ours", "m:2"))
    card.unlink()
    rows = [
        (name, f"{result.wall:.1f}", str(json.loads(result.said)["sent"]))
        for name, result in (("first", first), ("second, one small file changed", second))
    ]
    print()
    print_table(("push", "s", "bytes sent"), rows)
    print_goal("bytes-of-a-small-change", 100 * int(rows[1][2]) / bench.size, "<=", 1.0, "%")


def bench_imports(bench: Bench, where: str, rate: int | None = None) -> None:
    """From a hub, that sends `rate` bytes a second, into the bucket, against a download and an upload."""
    copy, target = bench.memory / "copy", f"s3://{BUCKET}/hub"
    taken: dict[str, list[Result]] = {"import": [], "download": [], "upload": []}
    with serve_hub(bench.model, rate) as endpoint:
        hub = {"HF_ENDPOINT": endpoint, "HF_TOKEN": ""}
        for number in range(bench.runs):
            bench.empty()
            taken["import"].append(bench.measure(bench.push("hf://org/m", target, "m:1"), **hub))
            bench.empty()
            taken["download"].append(
                bench.measure([sys.executable, "-m", "longshore_runtime.pull", "hf://org/m", str(copy)], **hub)
            )
            taken["upload"].append(bench.measure(bench.push(copy, target, "m:1")))
            shutil.rmtree(copy)
            note(f"import {number + 1} of {bench.runs}: " + ", ".join(f"{n} {r[-1].wall:.1f} s" for n, r in taken.items()))
    bench.empty()
    wall = {name: _median(results, "wall") for name, results in taken.items()}
    rows = [
        (
            name,
            f"{wall[name]:.1f}",
            f"{bench.size / 1e9 / wall[name]:.3f}",
            f"{_median(results, 'cpu') / bench.size * 1e9:.2f}",
            f"{max(result.memory for result in results) / MIB:.0f}",
        )
        for name, results in taken.items()
    ]
    both = wall["download"] + wall["upload"]
    print(f"\n{bench.size / 1e9:.2f} GB from a hub {where} to the bucket")
    print_table(
        ("way", "s", "GB/s", "CPU s/GB", "MiB"),
        [*rows, ("download, then upload", f"{both:.1f}", f"{bench.size / 1e9 / both:.3f}", "", "")],
    )
    ratio = wall["import"] / max(wall["download"], wall["upload"])
    print_goal(f"import-vs-slower-leg-{where.replace(' ', '-')}", ratio, "<=", 1.15, "x")


def _median(results: Sequence[Result], what: str) -> float:
    return float(statistics.median(getattr(result, what) for result in results))


@contextmanager
def workplaces(needed: int) -> Iterator[tuple[Path, Path]]:
    """A folder on the disk, and one in memory where `needed` bytes are free there, on the disk otherwise."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > needed and available() > needed
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="longshore-bench-") as disk,
        tempfile.TemporaryDirectory(dir=memory if roomy else "/var/tmp", prefix="longshore-bench-") as folder,
    ):
        print(f"the server keeps its files {'in memory' if roomy else 'on the disk'}; {os.cpu_count()} cores")
        yield Path(disk), Path(folder)


def available() -> int:
    """Bytes of memory that are free for the asking."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warm_up(bench: Bench, model: Path) -> None:
    """Have everything run once, so that all bytecode is there."""
    programs: Sequence[Sequence[str]] = (
        bench.push(model, f"s3://{BUCKET}/warm", "m:1"),
        [sys.executable, "-c", BOTO3, str(model), BUCKET, "warm"],
        [sys.executable, "-m", "longshore_runtime.pull", model.as_uri(), str(bench.memory / "warm")],
    )
    for command in programs:
        bench.measure(command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024, help="MiB for each of four shards")
    options = parser.parse_args()
    need("nginx")
    with workplaces(3 * 4 * options.size * MIB) as (disk, memory), run_versitygw(memory / "server") as server:
        model = make_model(disk / "model", shards=4, elements=options.size * MIB // 2)
        server.make_bucket(BUCKET)
        known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        own = {"HOME": str(disk), "LONGSHORE_IDENTITY": "bench", "PYTHONPYCACHEPREFIX": str(disk / "bytecode")}
        bench = Bench(server, model, memory, options.runs, known | server.environment | own)
        warm_up(bench, make_model(disk / "small"))
        bench_pushes(bench)
        bench_imports(bench, "on these cores")
        bench_imports(replace(bench, runs=1), "at 1 Gbit/s", LINE)


if __name__ == "__main__":
    main()
