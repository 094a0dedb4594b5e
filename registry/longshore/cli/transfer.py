"""`longshore pull` and `longshore verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from longshore.adapters import Composition, pull_together
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.cli.sign import read_trust, trust_options
from longshore.cli.target import Target, find_target
from longshore.signing import Trust, require_signature, select_trusted
from longshore_runtime.errors import NotFound, Refused
from longshore_runtime.progress import format_size
from longshore_runtime.pull.engine import pull as pull_tree
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.rate import parse_rate
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.file import split_uri
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.verdict import Verdict
from longshore_runtime.pull.verification import (
    Finding,
    compare_listing,
    read_manifest,
    refuse,
    refuse_published,
    verify_published,
)
from longshore_runtime.pull.verification import verify as verify_tree
from longshore_runtime.signatures import keep_bundles, kept_bundles

HELD_AGAINST = {
    "digest": "verified",
    "manifest": "verified against the manifest beside them",
    "hub": "verified against the hub's digests",
    "checksum": "verified against the published checksums",
    "size": "NOT verified: their source publishes no digests",
}
"""What a verdict's word means, for people."""


@click.command()
@click.argument("source", metavar="REFERENCE|ADDRESS")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files like this; may be repeated. Not for versions.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files like this; may be repeated. Not for versions.")
@click.option("--max-rate", metavar="RATE", help="Bytes per second to take at most, such as 200MB/s.")
@trust_options
@registry_option
@json_option
def pull(
    source: str,
    directory: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_rate: str | None,
    public_key: Path | None,
    certificate_chain: tuple[Path, ...],
    registry: str | None,
    as_json: bool,
) -> None:
    """Bring a version into a folder, every byte verified.

    Or what lies at an address: hf://OWNER/MODEL[@REVISION], modelscope://OWNER/MODEL, s3://BUCKET/PREFIX,
    https://HOST/FILE[#sha256=HEX] or file:///FOLDER.
    An adapter comes with its base: that into the folder, the adapter into .longshore/adapters/NAME of it. A draft comes with
    what it guesses for, into .longshore/draft.
    What an interrupted pull left in the folder is used; files that the version does not have are refused.
    With --public-key or --certificate-chain nothing is pulled unless the version has such a signature, which is
    kept in the folder's .longshore/signatures.
    """
    trust, rate = read_trust(public_key, certificate_chain), parse_rate(max_rate) if max_rate is not None else None
    target, patterns = find_target(source, registry), Patterns(include, exclude)
    if patterns and target.digest:
        raise click.UsageError(f"{source} is a version, which is pulled whole: leave --include and --exclude out")
    composition = target.registry.compose(target.version) if target.registry and target.version else None
    if composition is not None and len(composition.versions) > 1:
        verdicts, signed = _pull_composed(target, composition, directory, trust, rate)
    else:
        bundles = _require_signature(target, trust) if trust else {}
        verdict = pull_tree(target.uri, directory, open_progress(), target.digest, patterns, max_rate=rate)
        verdicts, signed = [verdict], bool(bundles)
        keep_bundles(directory, bundles)
    if as_json:
        roles = [part.role for part in composition.parts[1:]] if composition else []
        others: dict[str, list[object]] = {}
        for role, verdict in zip(roles, verdicts[1:], strict=True):
            others.setdefault(f"{role}s", []).append(verdict.as_dict())
        print_json(verdicts[0].as_dict() | others)
        return
    for verdict in verdicts:
        what = show_digest(verdict.digest) or verdict.revision or target.title
        click.echo(f"{verdict.target}  {what}  {verdict.files} files, {describe(verdict)}" + (", signed" if signed else ""))


def _pull_composed(
    target: Target, found: Composition, folder: Path, trust: Trust | None, max_rate: int | None
) -> tuple[list[Verdict], bool]:
    """An adapter with its base, a version with its draft, all signed where that is asked for."""
    parts = [Target(part.uri, part.model, part.reference, part.digest, part, target.registry) for part in found.versions]
    bundles = [_require_signature(part, trust) if trust else {} for part in parts]
    verdicts = pull_together(found.parts, folder, open_progress(), max_rate)
    for verdict, signatures in zip(verdicts, bundles, strict=True):
        keep_bundles(Path(verdict.target), signatures)
    return verdicts, bool(trust)


def describe(verdict: Verdict) -> str:
    """How much it was, and what it was held against."""
    fetched = f", {format_size(verdict.fetched)} fetched" if verdict.fetched < verdict.size else ""
    return f"{format_size(verdict.size)} {HELD_AGAINST[verdict.verified]}{fetched}"


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY|ADDRESS")
@click.option("--fast", is_flag=True, help="Names and sizes only: finds what is missing or cut short, not what was altered.")
@click.option("--deep", is_flag=True, help="Read every byte, of a version in a bucket too.")
@trust_options
@registry_option
@json_option
def verify(
    target: str,
    fast: bool,
    deep: bool,
    public_key: Path | None,
    certificate_chain: tuple[Path, ...],
    registry: str | None,
    as_json: bool,
) -> None:
    """Hold a version, a pulled folder or a hub's model against its digests.

    Names every file that is missing, extra or changed. A version in a bucket is judged by the checksums that its store
    keeps, and nothing is downloaded; everything else is read, byte by byte, and with --deep that is too.
    With --public-key or --certificate-chain also asks for a signature, a pulled folder for the one that its pull asked for.
    """
    if fast and deep:
        raise click.UsageError("give --fast or --deep, not both")
    trust = read_trust(public_key, certificate_chain)
    found = find_target(target, registry)
    signed = bool(_require_signature(found, trust)) if trust else None
    outcome = None if fast or deep else _ask_store(found)
    outcome = outcome or _compare(found, fast, not Path(target).is_dir())
    if as_json:
        print_json({"target": target, **outcome.as_dict()} | ({"signed": signed} if trust else {}))
    if outcome.findings:
        raise refuse(outcome.findings, target) if outcome.digest else refuse_published(outcome.findings, target)
    if outcome.silent:
        raise _refuse_silent(outcome.silent, target)
    if not as_json:
        click.echo(f"{target}  {outcome.title}  {outcome.meaning}" + (", and signed by whom you trust" if signed else ""))


@dataclass(frozen=True)
class _Outcome:
    """What a comparison found: `title` names what it was held against, `checked` and `meaning` say how deep it went.

    Nothing is known of the files in `silent`.
    """

    findings: list[Finding]
    digest: str | None
    title: str
    checked: str
    meaning: str
    silent: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        content = {"digest": self.digest, "ok": not self.findings and not self.silent, "findings": self.findings}
        return content | {"checked": self.checked} | ({"unknown": self.silent} if self.silent else {})


def _ask_store(target: Target) -> _Outcome | None:
    """What a version's store says of its files, or None where there is none that keeps checksums."""
    if target.registry is None or target.version is None or not target.registry.keeps_checksums:
        return None
    found, digest = target.registry.account(target.version), target.version.digest
    meaning = "every file is as it was pushed, by the checksums that its store keeps; --deep reads the bytes"
    return _Outcome(found.findings, digest, f"sha256:{digest}", "checksums", meaning, tuple(found.silent))


def _compare(target: Target, fast: bool, remote: bool) -> _Outcome:
    source = open_source(target.uri)
    manifest = read_manifest(source, target.digest)
    if manifest is not None and fast:
        checked, meaning = "sizes", "names and sizes are as they were pushed; no byte was read"
        findings = compare_listing(list(source.list_files()), manifest)
    elif manifest is not None:
        checked, meaning = "bytes", "every byte is as it was pushed"
        findings = verify_tree(source, manifest, open_progress())
    elif remote and not fast and (entries := _published(source)):
        published = verify_published(source, entries, open_progress())
        meaning = "every byte is as the hub says" if source.vouched == "hub" else "every byte is as its checksum says"
        return _Outcome(published, None, source.revision or target.title, "bytes", meaning)
    else:
        raise NotFound(
            f"{target.title} has no manifest to be held against", "pull it first: longshore pull REFERENCE DIRECTORY"
        )
    return _Outcome(findings, manifest.digest, f"sha256:{manifest.digest}", checked, meaning)


def _published(source: Source) -> list[Entry]:
    """The files of a source that publishes what each must be; none where it does not."""
    entries = source.look_up(list(source.list_files()))
    return entries if all(entry.checksum for entry in entries) else []


def _refuse_silent(paths: tuple[str, ...], target: str) -> Refused:
    """What is said, after a line for each file, where the store keeps no checksum of some."""
    for path in paths:
        click.echo(f"{path}: the store keeps no checksum of it", err=True)
    return Refused(
        f"the store keeps no checksum of {len(paths)} of the files of {target}, so nobody knows how they are",
        f"have them read: longshore verify {target} --deep",
    )


def _require_signature(target: Target, trust: Trust) -> dict[str, bytes]:
    """The trusted signatures of a version, or those that were pulled with a folder; raises Refused when there are none."""
    if target.version is not None and target.registry is not None:
        return require_signature(target.registry, target.version, target.registry.manifest(target.version), trust)
    manifest = read_manifest(open_source(target.uri), None)
    if urlsplit(target.uri).scheme != "file" or manifest is None:
        raise Refused(f"{target.title} is no version, so nobody can have signed it", "name a version: MODEL:VERSION")
    return select_trusted(dict(kept_bundles(split_uri(target.uri))), manifest, trust, target.title)
