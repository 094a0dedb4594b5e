"""Bytes on one GPU: weights, cache, and what the engine itself takes. All figures are for the fullest GPU of a split."""

from __future__ import annotations

from dataclasses import dataclass

from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.geometry import Geometry, Layers
from longshore_runtime.serve.fit.parallel import Split

GIB = 1024**3
UTILISATION = 0.92
"""Share of a GPU's memory that vLLM takes (`CacheConfig.gpu_memory_utilization` as of 0.32; 0.90 before)."""

BLOCK = 16
"""Tokens per block of the cache (`CacheConfig.block_size`)."""

GROWING = frozenset({"full", "latent"})
"""Kinds of layers that remember every token."""


@dataclass(frozen=True)
class Batch:
    """What the engine schedules at most: `tokens` in one step, `sequences` at a time."""

    tokens: int
    sequences: int


def default_batch(gpu: GPU) -> Batch:
    """The defaults of vLLM for its server by the GPU's memory (`EngineArgs.get_batch_defaults`, 0.32)."""
    if gpu.memory >= 160 * GIB:
        return Batch(16384, 1024)
    if gpu.memory >= 70 * GIB and "a100" not in gpu.name:
        return Batch(8192, 1024)
    return Batch(2048, 256)


def weights_per_gpu(geometry: Geometry, split: Split) -> int:
    """The fullest stage: ⌈L/P⌉/L of (layers + experts)/T, the larger of the ends /T, encoders whole.

    With one stage both ends lie on it; with several the embedding is on the first and the output layer on the last,
    which holds a copy of a tied embedding. Experts that stay whole go in ⌈E/T⌉/E. Keys' and values' projections are
    copied where there are more GPUs than KV heads: L·2·hidden·head·(1 − KV/T) elements more.
    """
    weights, tensor = geometry.weights, split.tensor
    share = _share(geometry.layer_count, split.pipeline)
    experts = weights.experts / tensor
    if split.whole_experts and geometry.experts:
        experts = weights.experts * _share(geometry.experts.count, tensor)
    if split.pipeline == 1:
        ends = weights.embedding + weights.head
    else:
        ends = max(weights.embedding, weights.head or (weights.embedding if geometry.tied else 0))
    return int(share * (weights.layers / tensor + experts + _copied(geometry, split)) + ends / tensor + weights.towers) + 1


def _copied(geometry: Geometry, split: Split) -> float:
    if split.tensor <= geometry.kv_heads or geometry.attention in ("MLA", "none"):
        return 0.0
    elements = geometry.layer_count * 2 * geometry.hidden * geometry.head_dim
    return 2 * elements * (1 - geometry.kv_heads / split.tensor)


def _share(count: int, among: int) -> float:
    return -(-count // among) / count if count else 1.0


def token_bytes(layers: Layers, split: Split, width: int = 2) -> int:
    """Bytes per token in one such layer on one GPU: max(1, heads/T) × (key + value) × `width` bytes.

    The latent vector of MLA belongs to all heads, so each GPU has all of it (`ModelConfig.get_num_kv_heads`).
    """
    heads = 1 if layers.kind == "latent" else max(1, layers.heads // split.tensor)
    return heads * layers.width * width


def cache_per_token(geometry: Geometry, split: Split | None = None, width: int = 2) -> int:
    """Bytes by which a sequence grows with each token, in the layers that remember all of it, on one GPU of the split.

    Multi-head attention: 2 × layers × KV heads × head size × width. Windows have stopped growing by then.
    """
    split = split or Split()
    growing = (layers for layers in geometry.layers if layers.kind in GROWING)
    return sum(stage_layers(layers, split) * token_bytes(layers, split, width) for layers in growing)


def stage_layers(layers: Layers, split: Split) -> int:
    """How many of the layers the fullest stage has: ⌈L/P⌉."""
    return -(-layers.count // split.pipeline)


def activations(geometry: Geometry, split: Split, batch: Batch) -> int:
    """The peak of a step, which vLLM measures with its largest batch: the larger of the layers' and of the sampler's.

    Layers: tokens × 2 bytes × (2·hidden + the widest of q+k+v, 3·feed-forward, chosen·(hidden + 3·expert width)),
    the inner widths over T. Sampler: sequences × vocabulary × 10 bytes (logits in 16 and twice in 32 bits).
    An estimate from the shapes of vLLM's layers, which it does not publish; a margin of a quarter is added.
    """
    tensor, experts = split.tensor, geometry.experts
    attention = (geometry.heads + 2 * max(geometry.kv_heads, tensor)) * geometry.head_dim
    inner = max(attention, 3 * geometry.intermediate) / tensor
    if experts:
        inner = max(inner, experts.chosen * (geometry.hidden + 3 * experts.width / tensor))
    layers = batch.tokens * 2 * (2 * geometry.hidden + inner)
    sampler = batch.sequences * geometry.vocabulary * 10 if geometry.task == "generate" else 0
    return int(1.25 * max(layers, sampler))


def graphs(geometry: Geometry) -> int:
    """CUDA graphs: ½ GiB and 6 MiB per layer, a draft's too. An estimate with a margin; vLLM's own profile replaces it."""
    return GIB // 2 + 6 * 1024**2 * sum(model.layer_count for model in geometry.models)


def runtime(split: Split) -> int:
    """The CUDA context, libraries and workspaces: ¾ GiB, and ¾ GiB more for NCCL's buffers where GPUs talk. An estimate."""
    return (GIB * 3 // 4) * (1 if split.gpus == 1 else 2)
