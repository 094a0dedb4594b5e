"""What the launcher costs and gains: plain vLLM as it comes, vLLM with our arguments alone, and behind our launcher.

`make bench-serve [RUNS=3]`. Four servers of one small model run side by side, all but the one that is measured suspended; they
take turns at each number of concurrent requests. Rates are of whole streams; the table has medians over the runs. On the
CPU all of them get a KV cache of 1 GiB: as it comes, vLLM takes nearly all of the machine's memory.

As it comes, vLLM also compiles its steps for a CPU at each start. Ours does where that is kept for the next start
(`--keep-compiled`): that one was started once before, and its goals are those against plain vLLM. Where nothing is kept
ours starts at once and compiles nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import print_goal, print_table

from longshore_runtime.serve.gate import DESCRIPTOR
from support.models import find_smollm2
from support.servers import free_port
from support.streams import Heard, ask

TOKENS = 64
ROUNDS = {1: 3, 8: 16, 32: 64, 64: 128}
"""Requests in all, by how many of them run at a time."""

PLAIN, TUNED, OURS, KEPT = "plain vLLM", "our arguments, no launcher", "our launcher", "our launcher, compiled before"
CACHE = ["--kv-cache-memory-bytes", str(1024**3)]
START_SECONDS = 300


@dataclass
class Server:
    """A running server of the model `m`; `first` seconds until it was healthy, of which ours took `own` for itself."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    first: float = 0.0
    own: float = 0.0

    def let(self, number: signal.Signals) -> None:
        """Suspend it or let it go on, with all of its processes."""
        for group in groups_of(self.process.pid):
            os.killpg(group, number)


def groups_of(pid: int) -> set[int]:
    """The process groups below a process: the engine has one of its own."""
    found = {os.getpgid(pid)}
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    for child in children:
        found |= groups_of(int(child))
    return found


@contextmanager
def serving(name: str, command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[Server]:
    """Start a server and wait until it is healthy."""
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONWARNINGS": "ignore"}
    began, stamp = time.monotonic(), time.time()
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command), env=os.environ | offline | environment, stdout=out, stderr=out, start_new_session=True
        )
    server = Server(name, port, process)
    try:
        while not asyncio.run(healthy(port)):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                sys.exit(f"{name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        server.first, up = time.monotonic() - began, time.time()
        if name in (OURS, KEPT):
            server.own = said(log, "starting vllm", process) - stamp + max(0.0, said(log, "ready", process) - up)
        yield server
    finally:
        server.let(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


async def healthy(port: int) -> bool:
    try:
        return bool((await ask(port, "/health", None)).status == 200)
    except OSError:
        return False


def said(log: Path, beginning: str, process: subprocess.Popen[bytes]) -> float:
    """When the launcher said something, in seconds since 1970."""
    while True:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (words := json.loads(line)).get("message", "").startswith(beginning):
                whole, _, rest = words["time"].rstrip("Z").partition(".")
                return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(f"0.{rest}")
        if process.poll() is not None:
            sys.exit(f"the launcher ended: {log.read_text()[-2000:]}")
        time.sleep(0.05)


async def load(port: int, at_once: int, count: int) -> tuple[float, list[Heard]]:
    """So many streams, so many at once; returns the seconds that all of them took."""
    gate, began = asyncio.Semaphore(at_once), time.monotonic()

    async def one(number: int) -> Heard:
        body = {"model": "m", "prompt": f"Tell a story of number {number}.", "max_tokens": TOKENS, "ignore_eos": True}
        async with gate:
            return await ask(port, "/v1/completions", body | {"stream": True, "temperature": 0})

    heard = await asyncio.gather(*(one(number) for number in range(count)))
    if not all(found.complete for found in heard):
        sys.exit(f"{sum(not found.complete for found in heard)} of {count} streams were cut")
    return time.monotonic() - began, list(heard)


def measure(servers: Sequence[Server], runs: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Tokens per second and the median seconds to the first token, by server and requests at once."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for run in range(runs):
        for at_once, count in ROUNDS.items():
            for server in servers if run % 2 == 0 else list(reversed(servers)):
                server.let(signal.SIGCONT)
                asyncio.run(load(server.port, at_once, min(at_once, 8)))  # warm again after the pause
                seconds, heard = asyncio.run(load(server.port, at_once, count))
                server.let(signal.SIGSTOP)
                first = statistics.median(answer.first for answer in heard)
                found.setdefault((server.name, at_once), []).append((count * TOKENS / seconds, first))
    return found


def report(servers: Sequence[Server], found: dict[tuple[str, int], list[tuple[float, float]]]) -> None:
    def rate(name: str, at_once: int) -> float:
        return statistics.median(rate for rate, _ in found[name, at_once])

    def first(name: str, at_once: int) -> float:
        return statistics.median(first for _, first in found[name, at_once])

    header = ["server", "start s", *(f"tok/s at {n}" for n in ROUNDS), *(f"TTFT ms at {n}" for n in ROUNDS)]
    rows = []
    for server in servers:
        rates = [f"{rate(server.name, n):.0f}" for n in ROUNDS]
        firsts = [f"{1000 * first(server.name, n):.0f}" for n in ROUNDS]
        rows.append((server.name, f"{server.first:.1f}", *rates, *firsts))
    print_table(header, rows)
    for name, words in ((KEPT, "tokens"), (OURS, "uncompiled-tokens")):
        for at_once in ROUNDS:
            print_goal(f"{words}-vs-plain-{at_once}-at-once", rate(name, at_once) / rate(PLAIN, at_once), ">=", 0.98, "x")
    for at_once in ROUNDS:
        print_goal(f"tokens-vs-same-arguments-{at_once}-at-once", rate(OURS, at_once) / rate(TUNED, at_once), ">=", 0.98, "x")
    for at_once in ROUNDS:
        print_goal(f"first-token-vs-plain-{at_once}-at-once", first(PLAIN, at_once) / first(KEPT, at_once), ">=", 0.98, "x")
    if (os.cpu_count() or 0) <= 2:
        best = statistics.median(rate(KEPT, n) / rate(PLAIN, n) for n in ROUNDS)
        print_goal("tokens-vs-plain-on-two-cores-median", best, ">=", 1.25, "x")
    print_goal("launcher-share-of-the-start", max(server.own for server in servers), "<=", 1.0, " s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    os.environ.pop(DESCRIPTOR, None)
    model = find_smollm2()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for name in (PLAIN, TUNED, OURS, KEPT):
            port = free_port()
            launcher = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={model}", "--served-model-name=m"]
            launcher += ["--host=127.0.0.1", f"--port={port}", "--log-format=json", f"--health-port={free_port()}", *CACHE]
            environment = {}
            if name == PLAIN:
                server = ["vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "m"]
                command = [sys.executable, "-m", *server, "--host", "127.0.0.1", "--port", str(port), *CACHE]
            elif name == TUNED:
                printed = subprocess.run([*launcher, "--print-command"], capture_output=True, text=True, check=True)
                command = shlex.split(printed.stdout)
                at = command.index("--middleware")
                del command[at : at + 2]
                environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if (os.cpu_count() or 0) <= 4 else {}
            else:
                command = launcher
            log = Path(folder, name.replace(" ", "-"))
            if name == KEPT:
                command += [f"--cache-dir={folder}/compiled", "--keep-compiled"]
                with serving(name, command, port, log, **environment):
                    pass
            servers.append(stack.enter_context(serving(name, command, port, log, **environment)))
            servers[-1].let(signal.SIGSTOP)
        report(servers, measure(servers, options.runs))


if __name__ == "__main__":
    main()
