"""`longshore list` and `longshore show`."""

from __future__ import annotations

from collections import defaultdict

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, print_table, show_digest, show_time
from longshore.registry import Registry
from longshore.version import Version
from longshore_runtime.manifest import Manifest, ModelFacts
from longshore_runtime.progress import format_size
from longshore_runtime.serve.engines import choose_engine


@click.command("list")
@click.argument("model", required=False)
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Only the newest N versions; 0: all.",
)
@click.option("--deleted", is_flag=True, help="Name the deleted versions of the model instead.")
@registry_option
@json_option
def list_(model: str | None, limit: int, deleted: bool, registry: str | None, as_json: bool) -> None:
    """List models, or the versions of one."""
    opened = Registry(registry)
    if deleted:
        if model is None:
            raise click.UsageError("--deleted needs a MODEL.", click.get_current_context())
        _list_deleted(opened.deleted(model), as_json)
    elif model is None:
        _list_models(opened, as_json)
    else:
        _list_versions(opened, model, limit, as_json)


def _list_models(registry: Registry, as_json: bool) -> None:
    models = [(name, registry.labels(name), registry.aliases(name)) for name in registry.models()]
    if as_json:
        print_json(
            [
                {"model": name, "versions": labels, "aliases": {alias: move.version for alias, move in aliases.items()}}
                for name, labels, aliases in models
            ]
        )
    elif not models:
        click.echo(f"{registry.uri} holds no models yet; push one: longshore push DIRECTORY MODEL", err=True)
    else:
        rows = [
            (name, str(len(labels)), " ".join(f"{alias}={move.version}" for alias, move in aliases.items()))
            for name, labels, aliases in models
        ]
        print_table(("MODEL", "VERSIONS", "ALIASES"), rows)


def _list_deleted(labels: list[str], as_json: bool) -> None:
    if as_json:
        print_json(labels)
    else:
        print_table(("DELETED",), ((label,) for label in labels))


def _list_versions(registry: Registry, model: str, limit: int, as_json: bool) -> None:
    versions = registry.versions(model, limit or None)
    if len(versions) == limit:
        click.echo(f"these are the newest {limit}; --limit 0 lists all", err=True)
    aliases = _aliases_by_version(registry, model)
    if as_json:
        print_json([{**vars(version), "aliases": aliases[version.version]} for version in versions])
        return
    rows = (
        (v.version, f"sha256:{v.digest[:12]}", show_time(v.created), v.by, " ".join(aliases[v.version]), v.message or "")
        for v in versions
    )
    print_table(("VERSION", "DIGEST", "CREATED", "BY", "ALIASES", "MESSAGE"), rows)


@click.command()
@click.argument("reference")
@registry_option
@json_option
def show(reference: str, registry: str | None, as_json: bool) -> None:
    """Show what a version is: files, digests, model facts."""
    opened = Registry(registry)
    version = opened.resolve(reference)
    manifest = opened.manifest(version)
    aliases = _aliases_by_version(opened, version.model)[version.version]
    if as_json:
        content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
        print_json({**vars(version), "aliases": aliases, "manifest": content})
    else:
        _print_version(version, manifest, aliases)


def _print_version(version: Version, manifest: Manifest, aliases: list[str]) -> None:
    facts = manifest.model
    shape = f"{facts.layers} layers, {facts.attention_heads} heads, {facts.kv_heads} KV heads of {facts.head_dim}"
    lines = [
        ("digest", show_digest(version.digest)),
        ("created", f"{show_time(version.created)} by {version.by}"),
        ("message", version.message),
        ("aliases", " ".join(aliases)),
        ("address", version.uri),
        ("size", f"{format_size(manifest.size)} in {len(manifest.files)} files"),
        ("model", _describe_model(facts)),
        ("base", _describe_base(manifest)),
        ("draft", f"{manifest.draft.reference}  {show_digest(manifest.draft.digest)}" if manifest.draft else None),
        ("context", f"{facts.context_length} tokens" if facts.context_length else None),
        ("shape", shape if facts.layers and facts.head_dim else None),
        ("chat", "has a chat template" if facts.chat_template else "no chat template"),
        ("engine", " ".join((choose_engine(manifest.serving, facts), *manifest.serving.arguments))),
    ]
    click.echo(version.reference)
    for name, value in lines:
        if value:
            click.echo(f"  {name:<8} {value}")
    click.echo("  files")
    for file in manifest.files:
        click.echo(f"  {format_size(file.size):>10}  sha256:{file.sha256[:12]}  {file.path}")


def _describe_base(manifest: Manifest) -> str | None:
    if manifest.base is None:
        return manifest.model.base_model
    return f"{manifest.base.reference}  {show_digest(manifest.base.digest)}"


def _describe_model(facts: ModelFacts) -> str | None:
    adapter = f"LoRA adapter of rank {facts.adapter_rank}" if facts.adapter_rank else None
    parts = [facts.architecture or facts.model_type or adapter, facts.dtype, facts.quantization]
    if facts.parameters:
        millions = facts.parameters / 1e6
        parts.insert(1, f"{millions:.1f} M parameters" if millions < 1000 else f"{millions / 1000:.1f} B parameters")
    return ", ".join(part for part in parts if part) or None


def _aliases_by_version(registry: Registry, model: str) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for alias, move in registry.aliases(model).items():
        found[move.version].append(alias)
    return found
