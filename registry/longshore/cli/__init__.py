"""The command line. Each module parses, builds, and calls one function; nothing is decided here.

Commands are imported when they are run, so that `longshore --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import CompletionItem

from longshore._version import __version__
from longshore_runtime.errors import LongshoreError, explain_os_error
from longshore_runtime.lookup import load
from longshore_runtime.progress import PROGRESS

COMMANDS = {
    "push": ("push:push", "Commit a directory, or what lies at an address, as a version of a model."),
    "list": ("read:list_", "List models, or the versions of one."),
    "show": ("read:show", "Show what a version is: files, digests, model facts."),
    "pull": ("transfer:pull", "Bring a version into a folder, every byte verified."),
    "verify": ("transfer:verify", "Hold a version, a pulled folder or a hub's model against its digests."),
    "check": ("check:check", "Say whether a model could be served, before it is moved."),
    "diff": ("diff:diff", "Show what changed between two versions, or pulled folders."),
    "sign": ("sign:sign", "Sign a version, as OpenSSF Model Signing does."),
    "alias": ("alias:alias", "Point an alias at a version, or protect it."),
    "rollback": ("alias:rollback", "Point an alias back at the version before."),
    "history": ("alias:history", "Show the moves of a model's aliases, newest first."),
    "copy": ("copy:copy", "Copy a version to another registry, every byte verified."),
    "log": ("log:log", "Show what was done to a model, newest first."),
    "delete": ("delete:delete", "Delete a version, unless something needs it."),
    "undelete": ("delete:undelete", "Bring a deleted version back."),
    "gc": ("delete:gc", "Remove files that no version needs any more."),
    "fit": ("fit:fit", "Show how a model goes onto GPUs, and why."),
    "registry": ("registry:registry", "Try out the store below a registry, and say whom it should permit what."),
    "run": ("run:run", "Serve a version on this machine, as a pod would."),
    "deploy": ("deploy:deploy", "Serve a version in a cluster and watch it become ready."),
    "status": ("deploy:status", "Show what is deployed, how far it is, and why not further."),
    "logs": ("deploy:logs", "Show what a deployed version's initializer and engine print."),
    "sleep": ("nap:sleep", "Have a deployed version give its GPUs' memory back until it is woken."),
    "wake": ("nap:wake", "Have a version that sleeps serve again."),
    "undeploy": ("deploy:undeploy", "Take a version out of a cluster and wait until it is gone."),
    "completion": ("completion:completion", "Print what makes a shell complete commands and options."),
    "render": ("render:render", "Print the Kubernetes objects that serve a version."),
}


COMPLETION = "_LONGSHORE_COMPLETE"
"""The variable by which a shell asks what could come next."""


class Commands(click.Group):
    """A group whose commands are imported one by one, when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = load(f"longshore.cli.{COMMANDS[cmd_name][0]}")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and texts of commands, without importing any of them."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="longshore")
@click.option(
    "--progress",
    type=click.Choice(["bar", "lines", "json"]),
    envvar=PROGRESS,
    help="How long work says how far it is, on stderr. Otherwise a bar on a terminal, lines elsewhere.",
)
def cli(progress: str | None) -> None:
    """The bucket is the model registry, KServe is the fleet.

    A reference names a version: MODEL:VERSION, MODEL@ALIAS or MODEL@sha256:DIGEST.
    The registry is --registry, or LONGSHORE_REGISTRY, or a folder of your own.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 refused or failed with one line, 2 usage, 130 interrupted."""
    try:
        # What a command that found something wrong exits with; click hands the code over when it is not standalone.
        code = cli.main(arguments, prog_name="longshore", complete_var=COMPLETION, standalone_mode=False)
        sys.exit(code or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing is half-done, and running the command again goes on from here", 130)
    except LongshoreError as error:
        _fail(f"error: {error}", 1)
    except BrokenPipeError:  # whoever reads our output has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("LONGSHORE_DEBUG"):
            raise
        if isinstance(error, OSError) and (failure := explain_os_error(error)):
            _fail(f"error: {failure}", 1)
        text = f"error: unexpected {type(error).__name__}: {error}; this is a bug: please report what LONGSHORE_DEBUG=1 shows"
        _fail(" ".join(text.split()), 1)


def _fail(text: str, code: int) -> None:
    click.echo(text, err=True)
    sys.exit(code)
