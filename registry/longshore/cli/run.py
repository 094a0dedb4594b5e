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
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import Stopwatch, open_progress, print_json, show_digest
from longshore.cli.target import find_target
from longshore.cli.transfer import describe
from longshore.local import Run, Served, serve
from longshore.settings import read_settings
from longshore_runtime.progress import Progress, format_size
from longshore_runtime.serve.launcher import choose_port


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY|ADDRESS")
@click.argument("engine_arguments", metavar="[-- ENGINE OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--prompt", metavar="TEXT", help="Ask once, print the answer, and stop.")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="The answer's length, with --prompt."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Where to serve; a free port by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve on.")
@click.option(
    "--model-dir", metavar="DIR", type=click.Path(path_type=Path), help="Keep the files here; otherwise they are removed."
)
@click.option("--verbose", "-v", is_flag=True, help="Show the engine's own output.")
@registry_option
@json_option
def run(
    target: str,
    engine_arguments: tuple[str, ...],
    prompt: str | None,
    max_tokens: int,
    port: int | None,
    host: str,
    model_dir: Path | None,
    verbose: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Serve a version on this machine, as a pod would.

    Pulls and verifies into a folder, works out the engine's arguments from the files, starts the engine,
    and serves the OpenAI API until Ctrl-C, which lets running requests finish.
    """
    if as_json and prompt is None:
        raise click.UsageError("--json needs --prompt")
    found = find_target(target, registry)
    title = found.title
    wanted = Run(found.uri, found.name, host, port or choose_port(), model_dir, engine_arguments)
    progress = Stopwatch(open_progress())
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        log: TextIO | None = sys.stderr if verbose else None
        served = stack.enter_context(serve(wanted, read_settings().cache, progress, log))
        progress.say(f"ready: {title} answered a request ({_describe(served)})")
        if prompt is not None:
            _ask(served, prompt, max_tokens, as_json)
        else:
            _hold(served, title, progress)


def _ask(served: Served, prompt: str, max_tokens: int, as_json: bool) -> None:
    def hear(piece: str) -> None:
        if not as_json:
            click.echo(piece, nl=False)

    answer = ask(served.address, served.run.name, prompt, chat=served.chat, max_tokens=max_tokens, hear=hear)
    if as_json:
        print_json({**vars(answer), "tokens_per_second": answer.tokens_per_second, "digest": served.verdict.digest})
        return
    click.echo()
    rate, first = answer.tokens_per_second, answer.first_token
    click.echo(
        f"{answer.tokens} tokens in {answer.seconds:.2f} s: first after {first:.2f} s, then {rate:.1f} tokens/s", err=True
    )


def _hold(served: Served, title: str, progress: Progress) -> None:
    click.echo(f"{title} is served at {served.address} as {served.run.name!r}; Ctrl-C stops it")
    try:
        served.launcher.wait()
    except KeyboardInterrupt:
        progress.say("stopping: requests that are running get 30 s to finish")


def _describe(served: Served) -> str:
    verdict = served.verdict
    if verdict.digest is None:
        return describe(verdict)
    return f"{format_size(verdict.size)} verified as {show_digest(verdict.digest)}"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
