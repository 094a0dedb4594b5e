"""`longshore completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from longshore.cli import COMPLETION, cli

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands and options.

    For bash: add `source <(longshore completion bash)` to ~/.bashrc. For zsh the same in ~/.zshrc. For fish:
    longshore completion fish > ~/.config/fish/completions/longshore.fish
    """
    # The class of bash would look for a bash on this machine first; the script may be for another one.
    click.echo(ShellComplete.source(SHELLS[shell](cli, {}, "longshore", COMPLETION)))
