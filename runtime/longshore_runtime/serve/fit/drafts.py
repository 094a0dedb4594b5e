"""What a draft takes of the GPUs beside the model that it guesses for.

vLLM 0.32 puts the whole draft onto the last pipeline stage, and divides each of its layers among as many GPUs as the model's
(`SpeculativeConfig.create_draft_parallel_config`, `GPUModelRunner.__init__`). It keeps keys and values of its own for the
same tokens, in the same format. EAGLE heads are a draft of the few layers that their configuration names, mostly one.
N-grams keep nothing, and are no draft.
"""

from __future__ import annotations

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.parallel import Split, make_split


def draft_split(draft: Geometry, split: Split) -> Split:
    """How the draft of a model that is divided like this lies on its stage."""
    return make_split(draft, split.tensor)


def draft_weights(geometry: Geometry, split: Split) -> int:
    """Bytes of the draft's weights on each GPU of the stage that has it: all of them/T; 0 without a draft.

    Heads without an embedding use the model's; where that lies on another stage they have vocabulary × hidden × 2 bytes/T
    of their own (`SpecDecodeBaseProposer._maybe_share_embeddings`).
    """
    draft = geometry.draft
    if draft is None:
        return 0
    lacking = split.pipeline > 1 and draft.task == "draft" and not draft.weights.embedding
    embedding = 2 * draft.vocabulary * draft.hidden // split.tensor if lacking else 0
    return memory.weights_per_gpu(draft, draft_split(draft, split)) + embedding


def draft_cache_per_token(geometry: Geometry, split: Split | None = None, width: int = 2) -> int:
    """Bytes that the draft keeps of each token on one GPU, 0 without one.

    Multi-head attention: 2 × layers × max(1, KV heads/T) × head size × `width`, all layers on one stage.
    """
    draft = geometry.draft
    return memory.cache_per_token(draft, draft_split(draft, split or Split()), width) if draft else 0
