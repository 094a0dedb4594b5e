"""A model into a folder: KServe's own initializer, the usual S3 clients and the hubs' own against ours, in one run.

`make bench-pull [RUNS=4] [SIZE=512] [MINUTES=20]` (MiB of each of four shards), as root. All pull the same bytes; a client
has one core and the servers the other. Ours verifies every byte, of the others modelscope alone verifies. On the disk a
client has 1 GiB of memory, as KServe gives its initializer. The runs are interleaved, each beginning with another client, and
end when the time is over. Before each, more memory than the model takes is written to and freed, again until that is fast: a
virtual machine has to get memory that was free for some seconds back from its host, at a tenth of the speed, which the client
whose turn it is would pay for. The table has medians of whole processes, from their start to their end; memory is the sum over
a client's processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import OURS, STOCK, Command, commands
from benchmarks.measurement import Failed, Result, measure, memory_group
from benchmarks.report import print_goal, print_table
from benchmarks.stores import FIRST_BYTE, RATE, make_data, serve

from support.disk import on_disk
from testbed.build import say
from testbed.packages import need

MIB = 1024**2
CLIENT_CORE, SERVER_CORE = "0", "1"
WARM, ROUNDS = 2e9, 6
"""Bytes per second at which memory is written to that need not be got from a host first, and how often that is tried."""
POD = 1024 * MIB
"""Bytes of memory that KServe lets an initializer have."""


@dataclass(frozen=True)
class Way:
    """From a `kind` of server at an `endpoint` into a folder below `target`, with `memory` bytes where there is a limit."""

    name: str
    kind: str
    endpoint: str
    target: Path
    memory: int | None = None


Found = dict[str, dict[str, list[Result]]]
"""The results of each client on each way."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=4, help="of each client on each way, at most")
    parser.add_argument("--size", type=int, default=512, help="MiB of each of the four shards")
    parser.add_argument("--minutes", type=float, default=20, help="after which no run begins, but for the first of each")
    options = parser.parse_args()
    need("nginx")
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="longshore-bench-", dir="/var/tmp") as folder:
        data = make_data(Path(folder) / "data", options.size)
        size = tree_size(data)
        with serve(data, SERVER_CORE) as endpoints:
            bench = Bench(endpoints, data, Path(folder))
            bench.compare(options.runs, until)
            resumed, cached = bench.measure_resumption(size), bench.measure_cache()
    report(bench.found, size, resumed, cached)


class Bench:
    """All ways, all clients."""

    def __init__(self, endpoints: Mapping[str, str], data: Path, disk: Path) -> None:
        self.found: Found = {}
        self._size = tree_size(data)
        self._endpoints, self._data, self._disk = endpoints, data, disk
        self._address = (data / "address").read_text()
        memory = Path("/dev/shm")
        self._ways = [
            Way("HTTP to tmpfs", "s3", "http", memory),
            Way("TLS to tmpfs", "s3", "https", memory),
            Way("HTTP to disk in 1 GiB", "s3", "http", disk, POD),
            Way("TLS to disk in 1 GiB", "s3", "https", disk, POD),
            Way("HTTP to disk", "s3", "http", disk),
            Way("far away to tmpfs", "s3", "far", memory),
            Way("hf to tmpfs", "hf", "http", memory),
            Way("modelscope to tmpfs", "modelscope", "http", memory),
        ]

    def compare(self, runs: int, until: float) -> None:
        """Every client on every way, in turns."""
        for run in range(runs):
            for way in self._ways:
                commands = list(self._commands(way).items())
                for name, command in commands[run % len(commands) :] + commands[: run % len(commands)]:
                    if run and time.monotonic() > until:
                        return
                    try:
                        result = self._run(way, name, command)
                    except Failed as error:
                        if name == OURS:
                            raise SystemExit(f"{way.name}: {name} failed with {error}") from error
                        say(f"{way.name}: {name} failed with {str(error).splitlines()[0]}")
                        continue
                    self.found.setdefault(way.name, {}).setdefault(name, []).append(result)
                    say(f"run {run + 1} of {runs}: {way.name}: {name}: {result.wall:.1f} s")

    def _commands(self, way: Way) -> dict[str, Command]:
        return commands(way.kind, self._endpoints[way.endpoint], self._endpoints["authority"], self._address)

    def _run(self, way: Way, name: str, command: Command) -> Result:
        words, environment = command
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(target_below(way.target))
            before = stack.enter_context(memory_group(way.memory)) if way.memory else []
            if (found := warm_memory(self._size)) < WARM:
                say(f"memory is slow: {found / 1e9:.1f} GB/s")
            result = measure([*before, *words, f"{target}/" if name == "s5cmd" else str(target)], environment, CLIENT_CORE)
            self._check(target)
        return result

    def _check(self, target: Path) -> None:
        """Every client has brought every file, whole by its size."""
        for file in (self._data / "plain/tree").iterdir():
            pulled = target / file.name
            if not pulled.is_file() or pulled.stat().st_size != file.stat().st_size:
                raise Failed(f"{pulled} is missing or short")

    def measure_resumption(self, size: int) -> float:
        """The share of the bytes that is fetched again after a SIGKILL at 90 %."""
        command, environment = self._commands(self._ways[2])[OURS]
        with target_below(self._disk) as target, memory_group(POD) as before:
            words = ["taskset", "--cpu-list", CLIENT_CORE, *before, *command, str(target)]
            process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while on_disk(target) < 0.9 * size and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            done = subprocess.run([*command, str(target)], env=environment, capture_output=True, text=True, check=True)
            fetched: int = json.loads(done.stdout.splitlines()[-1])["fetched"]
        return fetched / size

    def measure_cache(self) -> float:
        """Seconds of a start of which a node's cache has the version, the median of five."""
        command, environment = self._commands(self._ways[0])[OURS]
        with target_below(self._disk) as folder:
            environment = environment | {"LONGSHORE_CACHE": str(folder / "cache"), "LONGSHORE_CACHE_SIZE": "1TB"}
            (folder / "cache").mkdir()
            times = [measure([*command, str(folder / f"pod-{n}")], environment, CLIENT_CORE).wall for n in range(6)]
        return statistics.median(times[1:])


def tree_size(data: Path) -> int:
    """Bytes of the model."""
    return sum(path.stat().st_size for path in (data / "plain").rglob("*") if path.is_file())


def warm_memory(size: int) -> float:
    """Write to a third more than `size` bytes of memory and free them, until that is fast; returns the last bytes per second.

    A round is not enough: what is freed may end up behind memory that the host has taken back, which then is used first.
    """
    block, count, rate = memoryview(bytes(MIB)), size * 4 // 3 // MIB + 1, 0.0
    for _ in range(ROUNDS):
        with tempfile.TemporaryFile(dir="/dev/shm", buffering=0) as file:
            started = time.monotonic()
            for _ in range(count):
                file.write(block)
            rate = count * MIB / (time.monotonic() - started)
        if rate >= WARM:
            break
    return rate


@contextlib.contextmanager
def target_below(folder: Path) -> Iterator[Path]:
    target = Path(tempfile.mkdtemp(prefix="longshore-pull-", dir=folder))
    os.sync()
    try:
        yield target
    finally:
        shutil.rmtree(target)


def report(found: Found, size: int, resumed: float, cached: float) -> None:
    """The table of medians, and the goals."""

    def rate(way: str, name: str) -> float:
        return size / 1e9 / statistics.median(result.wall for result in found[way][name])

    def ratio(way: str, name: str, other: str) -> str:
        return f"{rate(way, name) / rate(way, other):.2f}" if other in found[way] else "-"

    rows = [
        [
            f"{way}: {name}",
            f"{rate(way, name):.2f}",
            ratio(way, name, STOCK),
            f"{statistics.median(result.cpu for result in results) / size * 1e9:.2f}",
            f"{max(result.memory for result in results) / MIB:.0f}",
            str(len(results)),
        ]
        for way, clients in found.items()
        for name, results in clients.items()
    ]
    far = f"far away: {FIRST_BYTE * 1e3:.0f} ms to the first byte, {RATE / 1e6:.0f} MB/s per connection"
    print(f"{size / 1e9:.1f} GB, one core; {far}")
    print_table(["", "GB/s", "x stock", "CPU s/GB", "MiB", "runs"], rows)
    _print_goals(found, rate, resumed, cached)


def _print_goals(found: Found, rate: Callable[[str, str], float], resumed: float, cached: float) -> None:
    http, tls = "HTTP to disk in 1 GiB", "TLS to disk in 1 GiB"
    print_goal("http-disk-vs-stock", rate(http, OURS) / rate(http, STOCK), ">=", 3.5, "x")
    print_goal("tls-disk-vs-stock", rate(tls, OURS) / rate(tls, STOCK), ">=", 2.2, "x")
    for way in ("HTTP to tmpfs", "TLS to tmpfs", "hf to tmpfs", "modelscope to tmpfs"):
        fastest = max(rate(way, name) for name in found[way] if name != OURS)
        print_goal(f"{way.replace(' ', '-').lower()}-vs-fastest", rate(way, OURS) / fastest, ">=", 1, "x")
    memory = max(result.memory for clients in found.values() for result in clients[OURS])
    print_goal("peak-memory", memory / MIB, "<=", 256, "MiB")
    print_goal("fetched-again-after-a-kill-at-90-percent", 100 * resumed, "<=", 12, "%")
    print_goal("cached-second-start", cached, "<=", 0.5, "s")


if __name__ == "__main__":
    main()
