"""Into how many GPUs a model can be divided: the engine's own conditions."""

from __future__ import annotations

from dataclasses import dataclass

from longshore_runtime.serve.fit.geometry import Geometry

VOCABULARY_PADDING = 64
"""vLLM rounds the vocabulary up to a multiple of this and divides the result (VocabParallelEmbedding)."""

THINNEST = 128
"""Expert slices that are thinner than this starve the matrix units: whole experts go to GPUs instead."""


@dataclass(frozen=True)
class Split:
    """A model over GPUs: each layer over `tensor` of them, the layers over `pipeline` stages.

    With `whole_experts` (expert parallelism) each GPU of a stage has some experts whole rather than a slice of each.
    """

    tensor: int = 1
    pipeline: int = 1
    whole_experts: bool = False

    @property
    def gpus(self) -> int:
        """How many GPUs one copy of the model takes."""
        return self.tensor * self.pipeline


def find_obstacle(geometry: Geometry, tensor: int) -> str | None:
    """Why the model's layers, or its draft's, cannot be divided among `tensor` GPUs, or None.

    vLLM divides a draft just as its model (`SpeculativeConfig._verify_and_get_draft_tp`).
    """
    if found := _find_own_obstacle(geometry, tensor):
        return found
    found = _find_own_obstacle(geometry.draft, tensor) if geometry.draft else None
    return f"in the draft, {found}" if found else None


def _find_own_obstacle(geometry: Geometry, tensor: int) -> str | None:
    """The same of the model alone.

    vLLM 0.32: query heads divide (`ModelConfig.verify_with_parallel_config`); KV heads divide, or are copied a whole
    number of times (`LlamaAttention`); feed-forward and padded vocabulary divide (`divide` in the parallel layers);
    a slice holds whole blocks of a quantised weight (`validate_fp8_block_shape`, `verify_marlin_supports_shape`);
    recurrent layers' heads divide (`MambaStateShapeCalculator`).
    """
    if tensor == 1:
        return None
    if geometry.heads % tensor:
        return f"{geometry.heads} attention heads do not divide by {tensor}"
    heads = {layers.heads for layers in geometry.layers if layers.kind not in ("latent", "recurrent")}
    for own in sorted(heads):
        if own % tensor and tensor % own:
            return f"{own} KV heads neither divide by {tensor} nor divide it"
    for layers in geometry.layers:
        if layers.kind == "recurrent" and layers.heads % tensor:
            return f"{layers.heads} recurrent heads do not divide by {tensor}"
    if geometry.intermediate % tensor:
        return f"the feed-forward width {geometry.intermediate} does not divide by {tensor}"
    padded = -(-geometry.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if padded % tensor:
        return f"the padded vocabulary of {padded} does not divide by {tensor}"
    block = _block(geometry)
    dense = not geometry.experts or geometry.experts.layers < geometry.layer_count
    if block and dense and geometry.intermediate // tensor % block:
        return f"a slice of {geometry.intermediate // tensor} is no multiple of the quantisation's blocks of {block}"
    return None


def needs_whole_experts(geometry: Geometry, tensor: int) -> bool:
    """Whether experts must, or had better, stay whole: slices would break quantisation blocks, or be very thin."""
    experts = geometry.experts
    if not experts or tensor == 1:
        return False
    width, block = experts.width, _block(geometry)
    return bool(width % tensor or (block and width // tensor % block) or width // tensor < THINNEST)


def make_split(geometry: Geometry, tensor: int, pipeline: int = 1) -> Split:
    """The division into that many GPUs."""
    return Split(tensor, pipeline, needs_whole_experts(geometry, tensor))


def tensor_sizes(geometry: Geometry, most: int) -> list[int]:
    """How many GPUs a layer can be divided among, up to `most`, in ascending order."""
    return [size for size in range(1, most + 1) if find_obstacle(geometry, size) is None]


def _block(geometry: Geometry) -> int:
    """Elements that share a scale, where slices must hold whole blocks; vLLM pads those of MXFP4."""
    packed = geometry.quantization
    return packed.block if packed and "mxfp4" not in packed.method else 0
