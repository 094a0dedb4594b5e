"""Bytes on one GPU: weights, cache, and what the engine itself takes. All figures are for the fullest GPU of a split."""

from __future__ import annotations

from dataclasses import dataclass

from longshore_runtime.serve.fit.attention import group_sizes
from longshore_runtime.serve.fit.catalogue import GPU
from longshore_runtime.serve.fit.geometry import Geometry, Layers
from longshore_runtime.serve.fit.parallel import Split

GIB = 1024**3
UTILISATION = 0.92
"""Share of a GPU's memory that vLLM takes (`CacheConfig.gpu_memory_utilization` as of 0.32; 0.90 before)."""

BLOCK = 16
"""Tokens per block of the cache (`CacheConfig.block_size`)."""


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
    growing = (layers for layers in geometry.layers if layers.kind in ("full", "latent"))
    return sum(_stage(layers.count, split) * token_bytes(layers, split, width) for layers in growing)


def _stage(count: int, split: Split) -> int:
    return -(-count // split.pipeline)


@dataclass(frozen=True)
class Pool:
    """The cache of one GPU as vLLM lays it out: blocks of `page` bytes, of which a sequence takes some per group."""

    page: int
    block: int
    groups: tuple[tuple[Layers, int], ...]
    in_flight: int

    def blocks(self, length: int) -> int:
        """Blocks of a sequence of that many tokens, over all groups of layers."""
        return sum(count * self._blocks_of(layers, length) for layers, count in self.groups)

    def _blocks_of(self, layers: Layers, length: int) -> int:
        """⌈n/B⌉, of windows no more than ⌈(window − 1 + tokens in flight)/B⌉ + 1, of recurrent layers one.

        `SlidingWindowSpec.max_admission_blocks_per_request`, `MambaSpec.max_memory_usage_bytes`.
        """
        if layers.kind == "recurrent":
            return 1
        whole = -(-length // self.block)
        if not layers.window:
            return whole
        return min(whole, -(-min(layers.window - 1 + self.in_flight, length) // self.block) + 1)

    def sequences(self, memory: int, length: int) -> float:
        """How many sequences of that many tokens so many bytes hold: vLLM's "maximum concurrency"."""
        return memory // self.page / max(1, self.blocks(length))

    def tokens(self, memory: int, length: int) -> int:
        """Tokens in so many bytes, as vLLM reports them: its concurrency at that length, times the length."""
        return int(self.sequences(memory, length) * length)


def lay_out(geometry: Geometry, split: Split, batch: Batch, width: int = 2) -> Pool | None:
    """The pool of a model's cache, None where nothing is kept.

    One kind of layer: a block holds B tokens of all layers. Several kinds: groups of equally many layers
    (`group_sizes`), all pages as large as the largest; recurrent layers make attention's blocks as long as
    their state needs (`HybridAttentionMambaModelConfig.verify_and_update_config`).
    """
    kinds = geometry.layers
    if not kinds:
        return None
    counts = tuple(_stage(layers.count, split) for layers in kinds)
    size, groups = group_sizes(counts)
    token = max((token_bytes(layers, split, width) for layers in kinds if layers.kind != "recurrent"), default=0)
    state = max((-(-layers.state // split.tensor) for layers in kinds if layers.kind == "recurrent"), default=0)
    block = max(BLOCK, -(-state // (token * BLOCK)) * BLOCK) if token else BLOCK
    page = size * (block * token if token else state)
    steps = 2 if split.pipeline == 1 else split.pipeline  # asynchronous scheduling keeps two batches in flight
    return Pool(page, block, tuple(zip(kinds, groups, strict=True)), steps * batch.tokens)


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
    """CUDA graphs: ½ GiB and 6 MiB per layer. An estimate with a margin; vLLM's own profile replaces it at the start."""
    return GIB // 2 + 6 * 1024**2 * geometry.layer_count


def runtime(split: Split) -> int:
    """The CUDA context, libraries and workspaces: ¾ GiB, and ¾ GiB more for NCCL's buffers where GPUs talk. An estimate."""
    return (GIB * 3 // 4) * (1 if split.gpus == 1 else 2)
