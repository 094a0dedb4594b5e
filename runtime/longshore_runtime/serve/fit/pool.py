"""The cache of one GPU as vLLM lays it out: blocks of equal size, which the layers of a model and of its draft share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from longshore_runtime.serve.fit.attention import group_sizes
from longshore_runtime.serve.fit.drafts import draft_split
from longshore_runtime.serve.fit.geometry import Geometry, Layers
from longshore_runtime.serve.fit.memory import BLOCK, GROWING, Batch, stage_layers, token_bytes
from longshore_runtime.serve.fit.parallel import Split


@dataclass(frozen=True)
class Group:
    """`count` groups of layers that remember alike, each with blocks of `block` tokens."""

    layers: Layers
    count: int
    block: int


@dataclass(frozen=True)
class Pool:
    """Blocks of `page` bytes, of which a sequence takes some per group; `block` is the least number of tokens in one."""

    page: int
    block: int
    groups: tuple[Group, ...]
    in_flight: int

    def blocks(self, length: int) -> int:
        """Blocks of a sequence of that many tokens, over all groups of layers."""
        return sum(group.count * self._blocks_of(group, length) for group in self.groups)

    def _blocks_of(self, group: Group, length: int) -> int:
        """⌈n/B⌉, of windows no more than ⌈(window − 1 + tokens in flight)/B⌉ + 1, of recurrent layers one.

        `SlidingWindowSpec.max_admission_blocks_per_request`, `MambaSpec.max_memory_usage_bytes`.
        """
        layers, block = group.layers, group.block
        if layers.kind == "recurrent":
            return 1
        whole = -(-length // block)
        if not layers.window:
            return whole
        return min(whole, -(-min(layers.window - 1 + self.in_flight, length) // block) + 1)

    def sequences(self, memory: int, length: int) -> float:
        """How many sequences of that many tokens so many bytes hold: vLLM's "maximum concurrency"."""
        return memory // self.page / max(1, self.blocks(length))

    def tokens(self, memory: int, length: int) -> int:
        """Tokens in so many bytes, as vLLM reports them: its concurrency at that length, times the length."""
        return int(self.sequences(memory, length) * length)


@dataclass(frozen=True)
class _Kept:
    """`count` layers of a kind on the fullest stage, of which each keeps `token` bytes per token."""

    layers: Layers
    count: int
    token: int


def lay_out(geometry: Geometry, split: Split, batch: Batch, width: int = 2) -> Pool | None:
    """The pool of a model's cache and its draft's, None where nothing is kept.

    Where all layers remember all tokens, a block holds B tokens of every one, the draft's too (`UniformTypeKVCacheSpecs`).
    Several kinds: groups of equally many layers (`group_sizes`), all pages as large as the largest, with more tokens in a
    block where a layer keeps less of each and that comes out even (`unify_kv_cache_spec_page_size`); recurrent layers make
    attention's blocks as long as their state needs (`HybridAttentionMambaModelConfig.verify_and_update_config`).
    """
    if not geometry.layers:
        return None
    own, guessing = _keep(geometry, split, width), []
    if draft := geometry.draft:
        guessing = _keep(draft, draft_split(draft, split), width)
    kept = _merge(own + guessing)
    steps = 2 if split.pipeline == 1 else split.pipeline  # asynchronous scheduling keeps two batches in flight
    if all(kind.layers.kind in GROWING for kind in kept):
        page = BLOCK * sum(kind.count * kind.token for kind in kept)
        return Pool(page, BLOCK, (Group(kept[0].layers, 1, BLOCK),), steps * batch.tokens)
    token = max((kind.token for kind in own if kind.layers.kind != "recurrent"), default=0)
    state = max((_state(kind.layers, split) for kind in kept), default=0)
    block = max(BLOCK, -(-state // (token * BLOCK)) * BLOCK) if token else BLOCK
    page = max(state if not token else 0, *(block * kind.token for kind in kept))
    size, counts = group_sizes(tuple(kind.count for kind in kept))
    groups = (Group(kind.layers, count, _lengthen(block, kind.token, page)) for kind, count in zip(kept, counts, strict=True))
    return Pool(size * page, block, tuple(groups), steps * batch.tokens)


def _keep(geometry: Geometry, split: Split, width: int) -> list[_Kept]:
    def token(layers: Layers) -> int:
        return 0 if layers.kind == "recurrent" else token_bytes(layers, split, width)

    return [_Kept(layers, stage_layers(layers, split), token(layers)) for layers in geometry.layers]


def _merge(kept: list[_Kept]) -> list[_Kept]:
    """A draft's layers that keep just what the model's do are of one kind with them."""
    counts = Counter[_Kept]()
    for kind in kept:
        counts[replace(kind, layers=replace(kind.layers, count=0), count=0)] += kind.count
    return [replace(kind, count=count) for kind, count in counts.items()]


def _state(layers: Layers, split: Split) -> int:
    return -(-layers.state // split.tensor)


def _lengthen(block: int, token: int, page: int) -> int:
    """Tokens in a page of a layer that keeps so much of each."""
    return block * (page // (block * token)) if token and page % (block * token) == 0 else block
