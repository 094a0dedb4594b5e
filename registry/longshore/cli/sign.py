"""`longshore sign`, and the options of the commands that ask for signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, show_digest
from longshore.registry import Registry
from longshore.signing import Signer, Trust, read_password, require_signer
from longshore.signing import sign as sign_version

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def certificate_options(command: Command) -> Command:
    """`--certificate` and `--certificate-chain`: what vouches for the key that a command signs with."""
    chain = click.option(
        "--certificate-chain", metavar="FILE", type=_FILE, multiple=True, help="Those above the certificate; may be repeated."
    )
    return click.option("--certificate", metavar="FILE", type=_FILE, help="The certificate of the key to sign with.")(
        chain(command)
    )


def read_signer(key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> Signer:
    """Whom the options name, seen to be able to sign."""
    if chain and certificate is None:
        raise click.UsageError("--certificate-chain needs --certificate")
    signer = Signer(key, certificate, chain, read_password())
    require_signer(signer)
    return signer


@click.command()
@click.argument("reference")
@click.option("--key", metavar="FILE", type=_FILE, required=True, help="The private key: PEM, an elliptic curve.")
@certificate_options
@registry_option
@json_option
def sign(
    reference: str,
    key: Path,
    certificate: Path | None,
    certificate_chain: tuple[Path, ...],
    registry: str | None,
    as_json: bool,
) -> None:
    """Sign a version, as OpenSSF Model Signing does.

    Reads its manifest alone, wherever the version lies. A key with a password gets it from LONGSHORE_KEY_PASSWORD.
    """
    done = sign_version(Registry(registry), reference, read_signer(key, certificate, certificate_chain))
    if as_json:
        print_json(
            {
                "reference": done.version.reference,
                "digest": done.version.digest,
                "signature": done.name,
                "created": done.created,
            }
        )
        return
    how = "signed" if done.created else "is signed by this key already"
    click.echo(f"{done.version.reference}  {show_digest(done.version.digest)}  {how}: {done.name}")


def trust_options(command: Command) -> Command:
    """`--public-key` and `--certificate-chain`: whose signature a command asks for."""
    chain = click.option(
        "--certificate-chain",
        metavar="FILE",
        type=_FILE,
        multiple=True,
        help="Require a signature by a certificate below this one; may be repeated.",
    )
    key = click.option("--public-key", metavar="FILE", type=_FILE, help="Require a signature by this key (PEM).")
    return key(chain(command))


def read_trust(public_key: Path | None, certificate_chain: tuple[Path, ...]) -> Trust:
    """The trust that the options name, which is false when they name none."""
    if public_key is not None and certificate_chain:
        raise click.UsageError("give --public-key or --certificate-chain, not both")
    return Trust(public_key, certificate_chain)
