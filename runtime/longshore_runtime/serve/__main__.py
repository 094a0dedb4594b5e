"""The launcher's command, the runtime container's entry point: `python -m longshore_runtime.serve [OPTIONS] [ENGINE OPTIONS]`.

Options that the launcher does not know go to the engine and win over what it derives.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

from longshore_runtime.errors import LongshoreError
from longshore_runtime.leases import Keeper, find_leases
from longshore_runtime.serve.arrival import Arrival, choose_folder, expect
from longshore_runtime.serve.engines import open_engine
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.model import read_adapter, read_model, read_shape
from longshore_runtime.serve.state import State
from longshore_runtime.termination import leave_message

START_DEADLINE = 3600.0
"""Seconds until an engine that is not ready is given up."""


def main(arguments: list[str]) -> int:
    """Serve until told to stop (SIGTERM, SIGINT); returns the exit code."""
    options, for_engine = build_parser().parse_known_args(arguments)
    Keeper(find_leases(options.model_dir)).start()  # to its end: the node's cache keeps what this pod reads
    arrival: Arrival | None = None
    try:
        facts, serving = read_model(options.model_dir)
        adapters = [read_adapter(name, Path(folder)) for name, folder in options.adapter]
        arrival = expect(options.model_dir, State(), _say)
        task = Task(
            model=choose_folder(options.model_dir),
            name=options.served_model_name,
            facts=facts,
            host=options.host,
            port=options.port,
            grace=options.grace,
            arguments=(serving.arguments, *(wish.arguments for _, wish in adapters), tuple(for_engine)),
            geometry=read_shape(options.model_dir),
            adapters=tuple(adapter for adapter, _ in adapters),
        )
        launcher = Launcher(open_engine(serving.engine), task, say=_say, log=sys.stdout, arrival=arrival)
        if options.print_command:
            print(shlex.join(launcher.command()))
            return 0
        return _serve(launcher)
    except LongshoreError as error:
        print(f"error: {error}", file=sys.stderr)
        leave_message(error, **(arrival.describe() if arrival else {}))
        return 1


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
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grace", type=int, default=60, help="seconds that running requests get when it is told to stop")
    parser.add_argument("--print-command", action="store_true", help="print the engine's command and exit")
    return parser


def _split_adapter(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name, folder


def _serve(launcher: Launcher) -> int:
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            _say("told to stop: finishing the running requests")
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        launcher.start()
        launcher.wait_ready(START_DEADLINE)
        _say("ready")
        launcher.wait()
    except KeyboardInterrupt:
        launcher.stop()
    return 0


def _say(text: str) -> None:
    print(f"launcher: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
