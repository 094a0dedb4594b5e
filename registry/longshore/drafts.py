"""Drafts: versions whose guesses have another answer sooner, and which are pulled beside it."""

from __future__ import annotations

import json

from longshore.version import Version
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.manifest import Base, Manifest, ModelFacts, Serving
from longshore_runtime.serve.facts import is_adapter
from longshore_runtime.serve.heads import find_mismatch


def pin_draft(draft: Version, manifest: Manifest) -> Base:
    """The version that is to guess, pinned. Raises Refused for one that answers nothing by itself."""
    if manifest.base is not None or is_adapter([file.path for file in manifest.files]):
        raise Refused(
            f"{draft.reference} is an adapter, which guesses nothing", "name a whole model: speculative.model: MODEL:VERSION"
        )
    return Base(model=draft.model, version=draft.version, digest=draft.digest)


def require_same_vocabulary(model: ModelFacts, draft: ModelFacts, serving: Serving, name: str) -> None:
    """Raise Refused for a draft, called `name`, whose tokens cannot be the model's, as far as both configurations tell.

    The engine would stop at it. EAGLE heads may have a smaller vocabulary, which they map by themselves.
    """
    if serving.speculative is None or serving.speculative.method != "draft":
        return
    own, its = model.vocabulary_size, draft.vocabulary_size
    if own and its and own != its:
        raise Refused(
            f"{name} has {its} tokens in its vocabulary, and the model {own}: its guesses would mean something else",
            "name a smaller model of the same family",
        )


def require_fitting_heads(model: ModelFacts, config: bytes | None, serving: Serving, name: str) -> None:
    """Raise Refused for EAGLE heads, called `name` and with this config.json, that were trained for another model."""
    wanted = serving.speculative
    if wanted is None or wanted.method not in ("eagle", "eagle3"):
        return
    try:
        content = json.loads(config or b"{}")
    except ValueError:
        return  # which the engine explains
    if isinstance(content, dict) and (why := find_mismatch(model, content, wanted.method)):
        raise Refused(f"the heads {name} are not for this model: {why}", "name heads that were trained for it")


def require_draft(serving: Serving, draft: str | None, *, adapter: bool = False) -> None:
    """Raise LongshoreError unless there is a draft just where the wish to speculate needs one. An adapter has no such wish."""
    wanted = serving.speculative
    if wanted and adapter:
        raise LongshoreError("an adapter is guessed for as its base is", "leave speculative out, and push it with the base")
    if wanted and wanted.needs_draft and draft is None:
        raise LongshoreError(
            f"speculative.method {wanted.method} needs a second model", "name it: speculative.model: MODEL:VERSION"
        )
    if draft is not None and not (wanted and wanted.needs_draft):
        raise LongshoreError(
            "a second model is named, and nothing asks it for its guesses",
            "say how: speculative.method: draft",
        )
