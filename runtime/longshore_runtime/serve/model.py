"""A model's folder, and its adapters', as the launcher finds them: pulled with a manifest, or plain."""

from __future__ import annotations

from pathlib import Path

from longshore_runtime import paths, tree
from longshore_runtime.errors import InvalidModel
from longshore_runtime.handover import read_handover
from longshore_runtime.manifest import ModelFacts, Serving, parse
from longshore_runtime.serve.engines.port import Adapter
from longshore_runtime.serve.facts import read_facts
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.reading import read_geometry
from longshore_runtime.serve.folder import Folder


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


def read_adapter(name: str, directory: Path) -> tuple[Adapter, Serving]:
    """The adapter in `directory`, and how it wishes its base to be served. Raises InvalidModel when it is none."""
    facts, serving = _read(directory)
    if not facts.adapter_rank:
        raise InvalidModel(f"{directory} holds no LoRA adapter", "name the folder that an adapter was pulled to")
    return Adapter(name, directory, facts.adapter_rank), serving


def _read(directory: Path) -> tuple[ModelFacts, Serving]:
    if handover := read_handover(directory):
        return handover.manifest.model, handover.manifest.serving
    manifest = directory / paths.MANIFEST
    if manifest.is_file():
        content = parse(manifest.read_bytes(), str(manifest))
        return content.model, content.serving
    return read_facts({file.path: file.location for file in tree.scan(directory)}), Serving()


def read_shape(directory: Path) -> Geometry | None:
    """The geometry of the model in `directory`, None where its files do not tell it: the engine then judges for itself.

    Of weights that are still to come the headers are there already.
    """
    handover = read_handover(directory)
    try:
        return read_geometry(Folder(directory, handover.weights if handover else {}))
    except InvalidModel:
        return None
