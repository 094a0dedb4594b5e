"""A model's folder, and its adapters', as the launcher finds them: pulled with a manifest, or plain."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

from longshore_runtime import paths, tree
from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import InvalidModel, LongshoreError
from longshore_runtime.handover import read_handover
from longshore_runtime.manifest import ModelFacts, Serving, Speculation, parse
from longshore_runtime.serve.adapters import Site
from longshore_runtime.serve.engines.port import Adapter
from longshore_runtime.serve.facts import CONFIG, read_facts
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.reading import read_geometry
from longshore_runtime.serve.folder import Folder
from longshore_runtime.serve.heads import find_mismatch


def read_model(directory: Path) -> tuple[ModelFacts, Serving]:
    """The facts and the serving wishes of the model in `directory`: from its manifest, or from its files alone.

    Raises InvalidModel for an adapter, which serves nothing by itself.
    """
    facts, serving = _read(directory)
    if facts.adapter_rank:
        raise InvalidModel(
            f"{directory} holds an adapter, which serves nothing without its base",
            "push it with --base MODEL:VERSION, and serve that version",
        )
    return facts, serving


def find_site(folder: Path | None, model: Path) -> Site | None:
    """Where adapters of the model in the folder `model` may appear. Raises LongshoreError where it has no manifest."""
    if folder is None:
        return None
    digest = _find_digest(model)
    if digest is None:
        raise LongshoreError(
            f"{model} has no manifest, so nobody can tell which adapters are for it", "push it, and serve the version"
        )
    return Site(folder, digest)


def read_adapter(name: str, directory: Path) -> tuple[Adapter, Serving]:
    """The adapter in `directory`, and how it wishes its base to be served. Raises InvalidModel when it is none."""
    facts, serving = _read(directory)
    if not facts.adapter_rank:
        raise InvalidModel(f"{directory} holds no LoRA adapter", "name the folder that an adapter was pulled to")
    return Adapter(name, directory, facts.adapter_rank, _find_digest(directory)), serving


def choose_draft(serving: Serving, methods: Collection[str], draft: Path | None) -> tuple[Speculation | None, Path | None]:
    """How an engine that has these `methods` is to guess, and the folder of the model that it asks for it, if any.

    A `draft` alone is wish enough: how it guesses shows in its configuration. Raises LongshoreError for a wish that cannot
    be followed, and InvalidModel for a folder that holds no draft.
    """
    wanted = serving.speculative
    if draft is None:
        if wanted and wanted.needs_draft:
            raise LongshoreError(
                f"the version guesses by a second model ({wanted.method}), and there is none",
                "say where it was pulled to: --draft DIR",
            )
    elif wanted and not wanted.needs_draft:
        raise LongshoreError("the version guesses by n-grams, which need no second model", "leave --draft out")
    elif not wanted:
        wanted = Speculation(method=_method_of(_read(draft)[0]))
    if wanted and wanted.method not in methods:
        raise LongshoreError(
            f"the engine {serving.engine} cannot speculate by {wanted.method}", "leave speculative out, or --draft"
        )
    return wanted, draft


def require_fitting_heads(facts: ModelFacts, wanted: Speculation | None, draft: Path | None) -> None:
    """Raise LongshoreError for EAGLE heads in the folder `draft` that were trained for another model than that with `facts`."""
    if wanted is None or draft is None or wanted.method not in ("eagle", "eagle3"):
        return
    try:
        config = json.loads((draft / CONFIG).read_text())
    except (OSError, ValueError):
        return  # which the engine explains
    if isinstance(config, dict) and (why := find_mismatch(facts, config, wanted.method)):
        raise LongshoreError(f"the heads in {draft} are not for this model: {why}", "name heads that were trained for it")


def _method_of(draft: ModelFacts) -> Literal["draft", "eagle", "eagle3"]:
    """EAGLE heads say so in their configurations: EagleLlamaForCausalLM, LlamaForCausalLMEagle3, PeagleLlamaForCausalLM."""
    name = (draft.architecture or "").lower()
    if "eagle3" in name or "peagle" in name:
        return "eagle3"
    return "eagle" if name.startswith("eagle") and not name.startswith("eagle2") else "draft"  # Eagle 2.5 is a whole model


def _find_digest(directory: Path) -> str | None:
    """The digest (hex) of the manifest of what was pulled, or is being pulled, to `directory`; None where it has none."""
    if handover := read_handover(directory):
        return handover.manifest.digest
    manifest = directory / paths.MANIFEST
    return digest_bytes(manifest.read_bytes()) if manifest.is_file() else None


def _read(directory: Path) -> tuple[ModelFacts, Serving]:
    if handover := read_handover(directory):
        return handover.manifest.model, handover.manifest.serving
    manifest = directory / paths.MANIFEST
    if manifest.is_file():
        content = parse(manifest.read_bytes(), str(manifest))
        return content.model, content.serving
    return read_facts({file.path: file.location for file in tree.scan(directory)}), Serving()


def read_shape(directory: Path, draft: Path | None = None) -> Geometry | None:
    """The geometry of the model in `directory`, None where its files do not tell it: the engine then judges for itself.

    With it that of the `draft` in another folder, where its files tell that. Of weights that are still to come the headers
    are there already.
    """
    handover = read_handover(directory)
    try:
        found = read_geometry(Folder(directory, handover.weights if handover else {}))
    except InvalidModel:
        return None
    return replace(found, draft=read_shape(draft)) if draft else found
