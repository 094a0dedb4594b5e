"""The launcher's command, the runtime container's entry point: `python -m longshore_runtime.serve [OPTIONS] [ENGINE OPTIONS]`.

Options that the launcher does not know go to the engine and win over what it derives.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from longshore_runtime.errors import EngineFailed, LongshoreError, explain_os_error
from longshore_runtime.leases import Keeper, find_leases
from longshore_runtime.serve.arrival import Arrival, choose_folder, expect
from longshore_runtime.serve.bell import Bell, find_place
from longshore_runtime.serve.caches import fingerprint
from longshore_runtime.serve.engines import choose_engine, open_engine
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.group import read_group
from longshore_runtime.serve.health import HealthServer
from longshore_runtime.serve.launcher import STALL_GRACE, Launcher
from longshore_runtime.serve.logs import JsonLog, Log, TextLog
from longshore_runtime.serve.model import choose_draft, find_site, read_adapter, read_model, read_shape, require_fitting_heads
from longshore_runtime.serve.state import State
from longshore_runtime.serve.verification import require_verified
from longshore_runtime.termination import leave_message

NOTICE = 5.0
"""Seconds that routers and proxies get to notice that a pod is going, by default."""


def main(arguments: list[str]) -> int:
    """Serve until told to stop (SIGTERM, SIGINT); returns the exit code."""
    options, for_engine = build_parser().parse_known_args(arguments)
    Keeper(find_leases(options.model_dir)).start()  # to its end: the node's cache keeps what this pod reads
    log: Log = JsonLog() if options.log_format == "json" else TextLog()
    state = State()
    arrival: Arrival | None = None
    try:
        arrival = expect(options.model_dir, state, log.say)
        launcher = build_launcher(options, for_engine, log, state, arrival)
        if options.print_command:
            for command in launcher.commands():
                print(shlex.join(command))
            return 0
        return _serve(launcher, options, log)
    except LongshoreError as error:
        return _fail(error, log, state, arrival)
    except Exception as error:
        if isinstance(error, OSError) and (failure := explain_os_error(error)):
            return _fail(failure, log, state, arrival)
        traceback.print_exc()
        name = type(error).__name__
        return _fail(LongshoreError(f"a bug in Longshore: {name}", "report it with the container's log"), log, state, arrival)


def build_launcher(
    options: argparse.Namespace, for_engine: Sequence[str], log: Log, state: State, arrival: Arrival | None
) -> Launcher:
    """The launcher that the options describe. Raises LongshoreError when there is no model, or no such engine."""
    facts, serving = read_model(options.model_dir)
    adapters = [read_adapter(name, Path(folder)) for name, folder in options.adapter]
    engine = open_engine(choose_engine(serving, facts))
    speculation, draft = choose_draft(serving, engine.speculation, options.draft)
    require_fitting_heads(facts, speculation, draft)
    task = Task(
        model=choose_folder(options.model_dir),
        name=options.served_model_name,
        facts=facts,
        host=options.host,
        port=options.port,
        grace=options.grace,
        arguments=(serving.arguments, *(wish.arguments for _, wish in adapters), tuple(for_engine)),
        geometry=read_shape(options.model_dir, draft),
        adapters=tuple(adapter for adapter, _ in adapters),
        speculation=speculation,
        draft=draft,
        more_adapters=options.adapters_dir is not None,
        sleepable=options.sleepable,
        kept=_keeps(options),
        group=read_group(os.environ),
    )
    return Launcher(
        engine,
        task,
        log.say,
        log.engine(engine.name),
        state,
        arrival,
        stall_grace=options.stall_grace,
        access_log=options.log_format == "json",
        caches=(options.cache_dir, fingerprint(options.model_dir)) if options.cache_dir else None,
        site=find_site(options.adapters_dir, options.model_dir),
    )


def _keeps(options: argparse.Namespace) -> bool:
    """Whether what the engine compiles is there for the next start. Raises LongshoreError where it has no place."""
    if not options.keep_compiled:
        return False
    if options.cache_dir is None:
        raise LongshoreError("there is no folder in which compiled code could be kept", "give --cache-dir, too")
    with suppress(OSError):  # of which the launcher tells
        options.cache_dir.mkdir(parents=True, exist_ok=True)
    return os.access(options.cache_dir, os.W_OK | os.X_OK)


def build_parser() -> argparse.ArgumentParser:
    """The launcher's own options."""
    parser = argparse.ArgumentParser("python -m longshore_runtime.serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model-dir", type=Path, default=Path("/mnt/models"), help="the folder that the pull filled")
    parser.add_argument("--served-model-name", required=True, help="the model's name in the OpenAI API")
    parser.add_argument(
        "--adapter",
        metavar="NAME=DIR",
        type=_split_adapter,
        action="append",
        default=[],
        help="a LoRA adapter to serve under a name of its own; may be repeated",
    )
    parser.add_argument(
        "--adapters-dir", metavar="DIR", type=Path, help="where more of them may appear while it runs, a folder each"
    )
    parser.add_argument("--draft", metavar="DIR", type=Path, help="the second model, by whose guesses it answers sooner")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--health-port", type=int, default=0, help="where the launcher answers the kubelet; 0: nowhere")
    parser.add_argument("--grace", type=int, default=60, help="seconds that running requests get when it is told to stop")
    parser.add_argument("--notice", type=float, default=NOTICE, help="seconds before, in which new ones are still answered")
    parser.add_argument(
        "--stall-grace", type=float, default=STALL_GRACE, help="seconds without progress after which an engine is given up"
    )
    parser.add_argument("--sleepable", action="store_true", help="let it be put to sleep, where the engine can: see nap.py")
    parser.add_argument("--cache-dir", type=Path, help="where the engine keeps what it compiles, also for other pods")
    parser.add_argument(
        "--keep-compiled", action="store_true", help="--cache-dir outlives the container: on a CPU compile as well"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--print-command", action="store_true", help="print the engine's command, in each pod of a group, and exit"
    )
    return parser


def _split_adapter(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name, folder


def _serve(launcher: Launcher, options: argparse.Namespace, log: Log) -> int:
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            log.say("told to stop: finishing the running requests")
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    health = HealthServer(options.host, options.health_port, launcher.condition) if options.health_port else None
    bell: Bell | None = None
    try:
        if options.sleepable:
            deeds = {"sleep": lambda: launcher.sleep(options.notice), "wake": launcher.wake}
            bell = Bell(find_place(), deeds, launcher.state)
        for folder in (options.model_dir, *filter(None, [options.draft]), *(Path(folder) for _, folder in options.adapter)):
            require_verified(folder, log.say)
        launcher.start()
        launcher.wait_ready()
        log.say("ready")
        launcher.wait()
    except KeyboardInterrupt:
        failure = launcher.stalled()
        launcher.stop(notice=options.notice)
        if failure:
            raise failure from None
    finally:
        if bell:
            bell.close()
        if health:
            health.close()
    return 0


def _fail(error: LongshoreError, log: Log, state: State, arrival: Arrival | None) -> int:
    """Say why, to people and to Kubernetes; returns the exit code."""
    log.fail(str(error))
    context = arrival.describe() if arrival else {}
    cause = error.cause if isinstance(error, EngineFailed) else None
    leave_message(error, **context, cause=cause, step=state.read().step or None)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
