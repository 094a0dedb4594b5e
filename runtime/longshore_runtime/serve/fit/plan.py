"""The choice: the fewest GPUs of a kind that hold a model and a useful cache, or what stands in the way and what would help.

Everything is decided from figures; nothing is asked of a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.catalogue import CATALOGUE, GPU, NO_FP8
from longshore_runtime.serve.fit.drafts import draft_cache_per_token, draft_weights
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.memory import GIB, Batch
from longshore_runtime.serve.fit.parallel import Split, find_obstacle, make_split, tensor_sizes
from longshore_runtime.serve.fit.pool import Pool, lay_out
from longshore_runtime.serve.fit.quantization import FP8_CAPABILITY, LEAST_CAPABILITY
from longshore_runtime.serve.fit.weights import pack

USEFUL_CONTEXT, USEFUL_SEQUENCES = 8192, 4
"""What a cache must hold to be of use where nothing is asked for: four conversations of 8192 tokens."""

NODES = 4
"""Nodes that are considered where no limit is given."""

ROUND = 1024
"""A shortened context is a multiple of this."""

NARROW = 1
"""Bytes per element of an 8-bit cache."""


@dataclass(frozen=True)
class Wish:
    """What is asked for: a `context` in tokens (0: what fits), `sequences` of it at a time, at most so many GPUs.

    `per_node` replaces the catalogue's figure; `cache_width` is bytes per element of the cache.
    """

    context: int = 0
    sequences: int = 0
    gpus: int = 0
    per_node: int = 0
    utilisation: float = memory.UTILISATION
    cache_width: int = 2


@dataclass(frozen=True)
class Budget:
    """Bytes on the fullest GPU: what the engine takes of it, what goes where, and what is left for the cache.

    `draft` are the weights of a model that guesses, 0 without one; what it keeps of the tokens is part of the cache.
    """

    memory: int
    usable: int
    weights: int
    activations: int
    graphs: int
    runtime: int
    draft: int = 0

    @property
    def cache(self) -> int:
        """What remains for the cache; below zero where the model does not fit."""
        return self.usable - self.weights - self.draft - self.activations - self.graphs - self.runtime


@dataclass(frozen=True)
class Fit:
    """A model on GPUs of one kind.

    `context` is what one sequence may have, `sequences` how many of that length fit at a time, `tokens` what the
    cache holds in all, `replicas` how many copies a node has room for. Of `cache_per_token` a draft keeps
    `draft_per_token`. `notes` say what was decided and why.
    """

    gpu: GPU
    split: Split
    budget: Budget
    batch: Batch
    cache_width: int
    cache_per_token: int
    context: int
    full_context: int
    sequences: int
    tokens: int
    nodes: int
    replicas: int
    draft_per_token: int = 0
    notes: tuple[str, ...] = ()

    @property
    def shortened(self) -> bool:
        """Whether the context is less than the model's own."""
        return self.context < self.full_context


@dataclass(frozen=True)
class Misfit:
    """A model that does not go onto GPUs of one kind: `reason` in one sentence, `advice` what would."""

    gpu: GPU
    reason: str
    advice: tuple[str, ...]


def fit(geometry: Geometry, gpu: GPU, wish: Wish | None = None, others: Mapping[str, GPU] = CATALOGUE) -> Fit | Misfit:
    """The smallest division that holds what is wished for; `others` are the GPUs that advice may name."""
    wish = wish or Wish()
    if obstacle := _unsuitable(geometry, gpu):
        return Misfit(gpu, obstacle, tuple(_other_gpus(geometry, gpu, wish, others)))
    if geometry.context and wish.context > geometry.context:
        reason = f"the model knows {geometry.context} tokens of context, not {wish.context}"
        return Misfit(gpu, reason, (f"ask for --context {geometry.context} or less",))
    if found := _smallest(geometry, gpu, wish):
        return replace(found, notes=tuple(_notes(geometry, gpu, found, wish)))
    return Misfit(gpu, _explain(geometry, gpu, wish), tuple(_advise(geometry, gpu, wish, others)))


def splits(geometry: Geometry, gpu: GPU, wish: Wish) -> Iterator[Split]:
    """The divisions that are considered, fewest GPUs first: within a node by tensor, over nodes by pipeline as well.

    Within a node layers are divided; over nodes, or where heads leave GPUs of a node idle, stages of as many are made.
    """
    per_node = wish.per_node or gpu.per_node
    most = wish.gpus or NODES * per_node
    sizes = tensor_sizes(geometry, min(per_node, most))
    for size in sizes:
        yield make_split(geometry, size)
    widest = sizes[-1]
    for stages in range(2, min(most // widest, geometry.layer_count) + 1):
        yield make_split(geometry, widest, stages)


def budget(geometry: Geometry, gpu: GPU, split: Split, batch: Batch, utilisation: float) -> Budget:
    """Where the memory of the fullest GPU goes."""
    return Budget(
        gpu.memory,
        int(gpu.memory * utilisation),
        memory.weights_per_gpu(geometry, split),
        max(memory.activations(model, split, batch) for model in geometry.models),  # one computes after the other
        memory.graphs(geometry),
        memory.runtime(split),
        draft_weights(geometry, split),
    )


def longest(pool: Pool, space: int, most: int, sequences: int = 1) -> int:
    """The greatest number of tokens, up to `most`, that so many sequences may have at a time in `space` bytes."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if pool.sequences(space, middle) >= sequences:
            low = middle
        else:
            high = middle - 1
    return low


def _smallest(geometry: Geometry, gpu: GPU, wish: Wish) -> Fit | None:
    return next((found for split in splits(geometry, gpu, wish) if (found := _try(geometry, gpu, split, wish))), None)


def _try(geometry: Geometry, gpu: GPU, split: Split, wish: Wish) -> Fit | None:
    """The fit of this division, or None when it holds less than is wished for."""
    batch = memory.default_batch(gpu)
    spent = budget(geometry, gpu, split, batch, wish.utilisation)
    if spent.cache < 0:
        return None
    pool = lay_out(geometry, split, batch, wish.cache_width)
    whole = geometry.context or wish.context or USEFUL_CONTEXT
    context, sequences, tokens = whole, batch.sequences, 0
    if pool is not None:
        needed = wish.context or min(USEFUL_CONTEXT, whole)
        wanted = wish.sequences or (1 if wish.context else USEFUL_SEQUENCES)
        if pool.sequences(spent.cache, needed) < wanted:
            return None
        context = wish.context or _rounded(longest(pool, spent.cache, whole), whole)
        sequences = min(batch.sequences, int(pool.sequences(spent.cache, context)))
        tokens = pool.tokens(spent.cache, context)
    per_node = wish.per_node or gpu.per_node
    nodes = -(-split.gpus // per_node)
    replicas = per_node // split.gpus if nodes == 1 else 0
    guessed = draft_cache_per_token(geometry, split, wish.cache_width)
    per_token = memory.cache_per_token(geometry, split, wish.cache_width) + guessed
    return Fit(
        *(gpu, split, spent, batch, wish.cache_width, per_token),
        *(wish.context or context, whole, sequences, tokens, nodes, replicas, guessed),
    )


def _rounded(context: int, whole: int) -> int:
    return context if context >= whole or context < ROUND else context // ROUND * ROUND


def _unsuitable(geometry: Geometry, gpu: GPU) -> str | None:
    """Why the GPU cannot compute what the model, or its draft, is packed in, or None."""
    for packed in (model.quantization for model in geometry.models):
        least = LEAST_CAPABILITY.get(packed.method, 0) if packed else 0
        if packed and gpu.capability and gpu.capability < least:
            return f"{packed.method} weights need compute capability {least}, and {gpu.title} has {gpu.capability}"
    return None


def _explain(geometry: Geometry, gpu: GPU, wish: Wish) -> str:
    """What is missing on the largest division: memory for the weights, or for the cache."""
    *_, split = splits(geometry, gpu, wish)
    spent = budget(geometry, gpu, split, memory.default_batch(gpu), wish.utilisation)
    where = "one" if split.gpus == 1 else str(split.gpus)
    if spent.cache < 0:
        missing = -spent.cache / GIB
        what = "weights, draft and overhead" if geometry.draft else "weights and overhead"
        return f"{what} need {missing:.1f} GiB per GPU more than {where} × {gpu.name} can give"
    needed = wish.context or min(USEFUL_CONTEXT, geometry.context or USEFUL_CONTEXT)
    count = wish.sequences or (1 if wish.context else USEFUL_SEQUENCES)
    left = f"{spent.cache / GIB:.1f} GiB that {where} × {gpu.name} have left for the cache"
    return f"{count} × {needed} tokens do not go into the {left}"


def _advise(geometry: Geometry, gpu: GPU, wish: Wish, others: Mapping[str, GPU]) -> Iterator[str]:
    """What would make it fit, nearest first; each was tried."""
    most = max((split.gpus for split in splits(geometry, gpu, wish)), default=1)
    if shorter := _shorter(geometry, gpu, wish):
        yield shorter
    if wish.cache_width > NARROW and _smallest(geometry, gpu, replace(wish, cache_width=NARROW)):
        yield "an 8-bit cache: --kv-cache-dtype fp8"
    if geometry.draft and (found := _smallest(replace(geometry, draft=None), gpu, wish)):
        yield f"without its draft, on {found.split.gpus} × {gpu.name}"
    if (narrow := _narrower(geometry, gpu)) and (found := _smallest(narrow, gpu, wish)):
        yield f"the weights in FP8 on {found.split.gpus} × {gpu.name}"
    if (found := _smallest(geometry, gpu, replace(wish, gpus=0))) and found.split.gpus > most:
        yield f"{found.split.gpus} × {gpu.name}"
    yield from _other_gpus(geometry, gpu, wish, others)


def _shorter(geometry: Geometry, gpu: GPU, wish: Wish) -> str | None:
    best = 0
    for split in splits(geometry, gpu, wish):
        batch = memory.default_batch(gpu)
        space = budget(geometry, gpu, split, batch, wish.utilisation).cache
        pool = lay_out(geometry, split, batch, wish.cache_width)
        if space > 0 and pool:
            best = max(best, longest(pool, space, wish.context or geometry.context or USEFUL_CONTEXT, wish.sequences or 1))
    best = best // ROUND * ROUND
    return f"a context of {best} tokens: --context {best}" if best >= ROUND else None


def _narrower(geometry: Geometry, gpu: GPU) -> Geometry | None:
    """The model with 8-bit weights, where it has 16-bit ones and the GPU multiplies 8-bit floats."""
    capable = gpu.capability >= FP8_CAPABILITY or (not gpu.capability and gpu.name not in NO_FP8)
    if geometry.quantization or not capable:
        return None
    return replace(geometry, weights=pack(geometry.weights, 0.5))


def _other_gpus(geometry: Geometry, gpu: GPU, wish: Wish, others: Mapping[str, GPU]) -> Iterator[str]:
    """The other kind that needs the fewest GPUs, and of those has the least memory; of the same maker."""
    found: list[Fit] = []
    for other in others.values():
        if other.name != gpu.name and other.vendor == gpu.vendor and not _unsuitable(geometry, other):
            made = _smallest(geometry, other, replace(wish, per_node=0))
            found += [made] if made else []
    if found:
        best = min(found, key=lambda made: (made.nodes, made.split.gpus * made.gpu.memory))
        yield f"{best.split.gpus} × {best.gpu.name}"


def _notes(geometry: Geometry, gpu: GPU, found: Fit, wish: Wish) -> Iterator[str]:
    """What a person should know about the choice."""
    tensor = found.split.tensor
    refused = _refusals(geometry, range(2, wish.per_node or gpu.per_node)) if found.split.gpus > 1 else ()
    yield from (f"not over {size} GPUs: {why}" for size, why in refused if size < found.split.gpus and size & (size - 1) == 0)
    if found.shortened and not wish.context:
        whole = _smallest(geometry, gpu, replace(wish, context=found.full_context, sequences=1))
        room = f"{whole.split.gpus} × {gpu.name} hold it" if whole else f"no number of {gpu.name} that was tried holds it"
        yield f"the model's own context is {found.full_context} tokens; {room}"
    if found.split.whole_experts:
        yield "experts stay whole, spread over the GPUs: slices of them would be too thin or break quantised blocks"
    if geometry.attention == "MLA" and tensor > 1:
        yield (
            f"each of the {tensor} GPUs keeps the whole latent cache; --data-parallel-size with expert parallelism divides it, "
            "at the price of copies of all weights but the experts"
        )
    elif tensor > max((layers.heads for layers in geometry.layers if layers.kind == "full"), default=tensor):
        yield f"there are more GPUs than KV heads ({geometry.kv_heads}): each head is kept more than once"
    if gpu.capability and gpu.capability < 8 and geometry.dtype == "bfloat16":
        yield f"{gpu.title} has no bfloat16: it is served in float16"
    if found.split.pipeline > 1:
        layers = -(-geometry.layer_count // found.split.pipeline)
        yield f"over {found.nodes} nodes: {found.split.pipeline} stages of up to {layers} layers"


def _refusals(geometry: Geometry, sizes: Iterable[int]) -> list[tuple[int, str]]:
    return [(size, why) for size in sizes if (why := find_obstacle(geometry, size))]
