"""`longshore fit`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json
from longshore.cli.target import find_parts, find_target
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.progress import format_size
from longshore_runtime.pull.sources import open_source
from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.arguments import engine_arguments
from longshore_runtime.serve.fit.catalogue import CATALOGUE, GPU, find_gpu, read_gpus
from longshore_runtime.serve.fit.geometry import Geometry, Layers
from longshore_runtime.serve.fit.plan import NARROW, Fit, Misfit, Wish
from longshore_runtime.serve.fit.plan import fit as fit_model
from longshore_runtime.serve.fit.reading import read_geometry

GIB = 1024**3
NEEDED = "say onto which: --gpu h100, or several: --gpu l4,a100-80g; the catalogue: longshore fit --list-gpus"


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY|ADDRESS", required=False)
@click.option("--gpu", "names", metavar="NAME[,NAME…]", help="The kinds of GPU to try, e.g. h100,a100-80g.")
@click.option("--context", type=click.IntRange(1), metavar="TOKENS", help="The context that a sequence must have.")
@click.option("--sequences", type=click.IntRange(1), metavar="N", help="How many of them the cache must hold at a time.")
@click.option("--gpus", type=click.IntRange(1), metavar="N", help="GPUs at most; four nodes' worth by default.")
@click.option("--per-node", type=click.IntRange(1), metavar="N", help="GPUs in a node, where the catalogue is wrong.")
@click.option(
    "--kv-cache-dtype", type=click.Choice(["auto", "fp8"]), default="auto", show_default=True, help="The cache's format."
)
@click.option(
    "--gpu-memory-utilization",
    type=click.FloatRange(0.1, 1),
    default=memory.UTILISATION,
    show_default=True,
    help="The share of a GPU that the engine takes.",
)
@click.option("--gpus-file", metavar="FILE", type=click.Path(path_type=Path), help="YAML with GPUs of your own.")
@click.option("--list-gpus", is_flag=True, help="Print the catalogue of GPUs.")
@registry_option
@json_option
def fit(
    target: str | None,
    names: str | None,
    context: int | None,
    sequences: int | None,
    gpus: int | None,
    per_node: int | None,
    kv_cache_dtype: str,
    gpu_memory_utilization: float,
    gpus_file: Path | None,
    list_gpus: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Show how a model goes onto GPUs, and why.

    Reads config.json and the headers of the weights alone: of a version, a folder, or what lies at an address,
    such as hf://OWNER/MODEL[@REVISION] or s3://BUCKET/PREFIX.
    Exits with 1 when it goes onto none of the GPUs, and says what would.
    """
    known = {**CATALOGUE, **(_read_file(gpus_file) if gpus_file else {})}
    if list_gpus:
        _print_catalogue(list(known.values()), as_json)
        return
    if target is None:
        raise click.UsageError("name a REFERENCE, a DIRECTORY or an ADDRESS, or ask for --list-gpus")
    chosen = [find_gpu(name, known) for name in (names or "").split(",") if name.strip()]
    if not chosen:
        raise click.UsageError(NEEDED)
    title, geometry = _read_target(target, registry)
    width = NARROW if kv_cache_dtype == "fp8" else 2
    wish = Wish(context or 0, sequences or 0, gpus or 0, per_node or 0, gpu_memory_utilization, width)
    outcomes = [fit_model(geometry, gpu, wish, known) for gpu in chosen]
    if as_json:
        print_json({"model": title, "facts": _facts(geometry), "fits": [_as_json(geometry, outcome) for outcome in outcomes]})
    else:
        _print(title, geometry, outcomes)
    misfits = [outcome for outcome in outcomes if isinstance(outcome, Misfit)]
    if len(misfits) == len(outcomes):
        raise refusal(title, misfits)


def _read_target(target: str, registry: str | None) -> tuple[str, Geometry]:
    """The title and the geometry of what is named: an address, a folder, or a version, of an adapter its base.

    Of a version that names a draft, with the draft's.
    """
    found = find_target(target, registry)
    (base, *others), _ = find_parts(found)
    draft = next((part for part in others if part.role == "draft"), None)
    title = found.title
    if base.uri != found.uri:
        title = f"{title} on {base.name}"
    open_progress().say(f"reading the headers of {title}")
    return title, read_geometry(open_source(base.uri), open_source(draft.uri) if draft else None)


def _read_file(path: Path) -> dict[str, GPU]:
    import yaml

    try:
        return read_gpus(yaml.safe_load(path.read_text()), str(path))
    except OSError as error:
        raise LongshoreError(f"cannot read {path}: {error.strerror}", "name a YAML file with --gpus-file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LongshoreError(f"{path} is not YAML", "write one GPU per key: NAME: {memory_gib: 48, per_node: 4}") from error


def refusal(title: str, misfits: Sequence[Misfit]) -> Refused:
    """What to raise for a model that goes onto none of the GPUs."""
    names = ", ".join(misfit.gpu.name for misfit in misfits)
    advice = misfits[0].advice
    hint = f"what would fit: {'; or '.join(advice)}" if advice else "try other GPUs: longshore fit --list-gpus"
    return Refused(f"{title} does not fit {names}: {misfits[0].reason}", hint)


# -- for people ------------------------------------------------------------------------------------


def _print(title: str, geometry: Geometry, outcomes: Sequence[Fit | Misfit]) -> None:
    click.echo(title)
    _print_lines(_describe(geometry))
    for outcome in outcomes:
        click.echo()
        if isinstance(outcome, Misfit):
            click.echo(f"{outcome.gpu.name}: does not fit")
            _print_lines([("why", outcome.reason), *(("instead", advice) for advice in outcome.advice)])
        else:
            click.echo(_headline(outcome))
            _print_lines(_explain(geometry, outcome))


def _print_lines(lines: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> None:
    for name, value in lines:
        click.echo(f"  {name:<12} {value}".rstrip())


def _describe(geometry: Geometry) -> Iterator[tuple[str, str]]:
    yield "model", ", ".join(part for part in (geometry.architecture, geometry.task, *geometry.towers) if part)
    active = f", {_millions(geometry.active)} active" if geometry.active < geometry.parameters else ""
    yield "parameters", _millions(geometry.parameters) + active
    packed = geometry.quantization
    method = f"{packed.method}, {packed.bits:.3g} bits per weight" if packed else geometry.dtype
    yield "weights", f"{_gib(geometry.weights.total)} ({method})"
    yield "layers", ", ".join(_describe_layers(layers) for layers in geometry.layers) or f"{geometry.layer_count}, no cache"
    if geometry.heads:
        latent = next((layers.width for layers in geometry.layers if layers.kind == "latent"), 0)
        keys = f"one latent vector of {latent}" if latent else f"{geometry.kv_heads} KV heads of {geometry.head_dim}"
        yield "attention", f"{geometry.attention}: {geometry.heads} heads, {keys}"
    if experts := geometry.experts:
        yield "experts", f"{experts.chosen} of {experts.count} per token in {experts.layers} layers"
    if geometry.context:
        yield "context", f"{geometry.context} tokens"
    if geometry.layers:
        yield "cache", f"{format_size(memory.cache_per_token(geometry))} per token"
    if draft := geometry.draft:
        kept = f"cache {format_size(memory.cache_per_token(draft))} per token"
        yield "draft", f"{draft.architecture}, {_millions(draft.parameters)}, {_gib(draft.weights.total)}, {kept}"


def _describe_layers(layers: Layers) -> str:
    window = f" (window {layers.window})" if layers.window else ""
    state = f" ({format_size(layers.state)} per sequence)" if layers.state else ""
    return f"{layers.count} {layers.kind}{window}{state}"


def _headline(found: Fit) -> str:
    split, parts = found.split, []
    if split.tensor > 1:
        parts.append(f"tensor parallel {split.tensor}")
    if split.pipeline > 1:
        parts.append(f"pipeline parallel {split.pipeline}")
    if split.whole_experts:
        parts.append("expert parallel")
    spread = f" ({', '.join(parts)})" if parts else ""
    nodes = f" on {found.nodes} nodes" if found.nodes > 1 else ""
    return f"{split.gpus} × {found.gpu.name}{nodes}{spread}"


def _explain(geometry: Geometry, found: Fit) -> Iterator[tuple[str, str]]:
    spent = found.budget
    yield "per GPU", f"{_gib(spent.memory)} {found.gpu.interconnect}, of which the engine takes {_gib(spent.usable)}"
    yield "  weights", _gib(spent.weights)
    if geometry.draft:
        yield "  draft", f"{_gib(spent.draft)}, and {format_size(found.draft_per_token)} of the cache per token"
    yield "  activations", f"{_gib(spent.activations)} for {found.batch.tokens} tokens in a step"
    yield "  graphs", _gib(spent.graphs)
    yield "  runtime", _gib(spent.runtime)
    cache = f"{_gib(spent.cache)} at {format_size(found.cache_per_token)} per token: {found.tokens} tokens"
    yield "  cache", cache if geometry.layers else "none is needed"
    if geometry.layers:
        yield "context", f"{found.context} tokens" + (f" of {found.full_context}" if found.shortened else ", the whole of it")
        yield "sequences", f"{found.sequences} of that length at a time"
    if found.replicas > 1:
        yield "replicas", f"{found.replicas} on a node of {found.replicas * found.split.gpus}"
    for note in found.notes:
        yield "note", note
    yield "arguments", shlex.join(engine_arguments(geometry, found)) or "none: the engine's defaults do"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _print_catalogue(gpus: Sequence[GPU], as_json: bool) -> None:
    from longshore.cli.output import print_table

    if as_json:
        print_json(gpus)
        return
    rows = (
        (gpu.name, _gib(gpu.memory), str(gpu.per_node), gpu.interconnect, str(gpu.capability or "-"), gpu.title) for gpu in gpus
    )
    print_table(("NAME", "MEMORY", "PER NODE", "INTERCONNECT", "CAPABILITY", "GPU"), rows)


# -- for programs ----------------------------------------------------------------------------------


def _facts(geometry: Geometry) -> dict[str, Any]:
    return {**asdict(geometry), "attention": geometry.attention, "cache_per_token": memory.cache_per_token(geometry)}


def _as_json(geometry: Geometry, outcome: Fit | Misfit) -> dict[str, Any]:
    if isinstance(outcome, Misfit):
        return {"gpu": outcome.gpu.name, "fits": False, "reason": outcome.reason, "advice": outcome.advice}
    content = {
        "gpu": outcome.gpu.name,
        "fits": True,
        "gpus": outcome.split.gpus,
        "arguments": engine_arguments(geometry, outcome),
    }
    budget = {**asdict(outcome.budget), "cache": outcome.budget.cache}
    return content | {key: value for key, value in asdict(outcome).items() if key not in ("gpu", "budget")} | {"budget": budget}
