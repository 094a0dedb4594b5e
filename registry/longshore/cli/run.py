"""`longshore run`."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from longshore.chat import ask
from longshore.cli.options import adapters_option, json_option, registry_option
from longshore.cli.output import Stopwatch, open_progress, print_json, show_digest
from longshore.cli.target import find_parts, find_target
from longshore.cli.transfer import describe
from longshore.local import Run, Served, serve
from longshore.settings import read_settings
from longshore_runtime.progress import Progress, format_size
from longshore_runtime.serve.ports import choose_port


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY|ADDRESS")
@click.argument("engine_arguments", metavar="[-- ENGINE OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@adapters_option
@click.option("--prompt", metavar="TEXT", help="Ask once, print the answer, and stop.")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="The answer's length, with --prompt."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Where to serve; a free port by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve on.")
@click.option(
    "--model-dir", metavar="DIR", type=click.Path(path_type=Path), help="Keep the files here; otherwise they are removed."
)
@click.option(
    "--adapters-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also serve adapters that are pulled to folders in here meanwhile.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show the engine's own output.")
@registry_option
@json_option
def run(
    target: str,
    engine_arguments: tuple[str, ...],
    *,
    adapters: tuple[str, ...],
    prompt: str | None,
    max_tokens: int,
    port: int | None,
    host: str,
    model_dir: Path | None,
    adapters_dir: Path | None,
    verbose: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Serve a version on this machine, as a pod would.

    Pulls and verifies into a folder, works out the engine's arguments from the files, starts the engine,
    and serves the OpenAI API until Ctrl-C, which lets running requests finish. An adapter is served with its base, each under
    its own name.
    """
    if as_json and prompt is None:
        raise click.UsageError("--json needs --prompt")
    found = find_target(target, registry)
    (base, *others), engine = find_parts(found, adapters)
    title, port = found.title, port or choose_port()
    wanted = Run(base, host, port, model_dir, engine_arguments, tuple(others), adapters_dir=adapters_dir, engine=engine)
    progress = Stopwatch(open_progress())
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        log: TextIO | None = sys.stderr if verbose else None
        served = stack.enter_context(serve(wanted, read_settings().cache, progress, log))
        progress.say(f"ready: {title} answered a request ({_describe(served)})")
        if prompt is not None:
            _ask(served, found.name, prompt, max_tokens, as_json)
        else:
            _hold(served, title, progress)


def _ask(served: Served, name: str, prompt: str, max_tokens: int, as_json: bool) -> None:
    def hear(piece: str) -> None:
        if not as_json:
            click.echo(piece, nl=False)

    answer = ask(served.address, name, prompt, chat=served.chat, max_tokens=max_tokens, hear=hear)
    if as_json:
        print_json({**vars(answer), "tokens_per_second": answer.tokens_per_second, "digest": _digest_of(served, name)})
        return
    click.echo()
    rate, first = answer.tokens_per_second, answer.first_token
    click.echo(
        f"{answer.tokens} tokens in {answer.seconds:.2f} s: first after {first:.2f} s, then {rate:.1f} tokens/s", err=True
    )


def _digest_of(served: Served, name: str) -> str | None:
    """What was asked: the part that answers under this name, the base for an address."""
    parts = (served.run.base, *served.run.others)
    found = (verdict.digest for part, verdict in zip(parts, served.verdicts, strict=True) if part.name == name)
    return next(found, served.verdicts[0].digest)


def _hold(served: Served, title: str, progress: Progress) -> None:
    names = ", ".join(repr(part.name) for part in (served.run.base, *served.run.others) if part.role != "draft")
    click.echo(f"{title} is served at {served.address} as {names}; Ctrl-C stops it")
    try:
        served.launcher.wait()
    except KeyboardInterrupt:
        progress.say("stopping: requests that are running get 30 s to finish")


def _describe(served: Served) -> str:
    return ", ".join(
        f"{format_size(verdict.size)} verified as {show_digest(verdict.digest)}" if verdict.digest else describe(verdict)
        for verdict in served.verdicts
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
