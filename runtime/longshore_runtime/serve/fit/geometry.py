"""What of a model matters for memory and for splitting it: layers, heads, experts, bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longshore_runtime.serve.fit.parsers import NO_PARSERS, Parsers

Kind = Literal["full", "sliding", "chunked", "latent", "recurrent"]
Task = Literal["generate", "embed", "classify", "draft"]


@dataclass(frozen=True)
class Layers:
    """`count` layers that remember a sequence in the same way.

    Attention keeps `heads` × `width` elements per token (`width`: a key and a value; with "latent" one vector
    for all heads), "sliding" and "chunked" for the last `window` tokens alone. "recurrent" layers keep `state`
    bytes per sequence, whatever its length; `heads` of them can be divided among GPUs.
    """

    kind: Kind
    count: int
    heads: int
    width: int = 0
    window: int = 0
    state: int = 0


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `count` routed ones in each of `layers` layers, `chosen` of them per token, `width` wide."""

    count: int
    chosen: int
    layers: int
    width: int


@dataclass(frozen=True)
class Parts:
    """Amounts (parameters, or bytes) by where they go when a model is divided.

    `embedding` and `head` lie on the first and on the last pipeline stage (`head` is 0 where it is the embedding
    again), `layers` are everything in the layers but the routed `experts`, `towers` read images or sound.
    """

    embedding: int = 0
    head: int = 0
    layers: int = 0
    experts: int = 0
    towers: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.embedding + self.head + self.layers + self.experts + self.towers


@dataclass(frozen=True)
class Quantization:
    """How weights are packed: the `method` by its name in config.json, `bits` per weight.

    `block` is how many elements share a scale along a dimension that tensor parallelism divides (0: any number).
    """

    method: str
    bits: float
    block: int = 0


@dataclass(frozen=True)
class Geometry:
    """A model as its files describe it. Counts are 0 where the files do not tell.

    `parameters` are counted in the tensors where they tell it, otherwise from the shapes; `active` are those that
    one token passes through. `weights` are bytes as the engine loads them, `dtype` is what it computes in.
    `towers` names the encoders for other things than text. `draft` is the second model that guesses for this one.
    """

    architecture: str
    model_type: str
    task: Task
    dtype: str
    hidden: int
    intermediate: int
    layer_count: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    layers: tuple[Layers, ...]
    parameters: int
    active: int
    weights: Parts
    experts: Experts | None = None
    quantization: Quantization | None = None
    towers: tuple[str, ...] = ()
    tied: bool = False
    parsers: Parsers = NO_PARSERS
    draft: Geometry | None = None

    @property
    def models(self) -> tuple[Geometry, ...]:
        """The model, and its draft, where it has one."""
        return (self, self.draft) if self.draft else (self,)

    @property
    def attention(self) -> str:
        """The scheme of attention by its usual name: MLA, MHA, GQA, MQA; "none" without any."""
        kinds = {layers.kind for layers in self.layers}
        if "latent" in kinds:
            return "MLA"
        if not self.heads or kinds == {"recurrent"}:
            return "none"
        return "MQA" if self.kv_heads == 1 < self.heads else "MHA" if self.kv_heads == self.heads else "GQA"
